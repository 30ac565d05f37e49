"""Defaults of the user's own for a few options: `TWINLENS_ENCODER` and its like, and the file `twinlens.toml`.

An option on the command line wins, then the variable, then `./twinlens.toml`, then `twinlens.toml` in the folder
`twinlens` of `$XDG_CONFIG_HOME` (else of `~/.config`). An update keeps the settings of its index whatever stands here.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from storage.errors import TwinlensError

FILE = "twinlens.toml"
OPTIONS: Mapping[str, tuple[type, tuple[str, ...]]] = {
    "encoder": (str, ("build", "fit", "match")),
    "device": (str, ("build", "fit", "match", "search", "serve", "serve-ray")),
    "precision": (str, ("build", "match", "search", "serve", "serve-ray")),
    "root": (str, ("search", "serve")),
    "ann_recall": (float, ("search",)),
}
"""Each option that has a default of the user's: the type of its value, and the commands whose default it becomes."""


def default_map(command: str | None) -> dict[str, Any]:
    """Return the defaults as click takes them: by option for one command, by command and option for the group (None).

    Raises:
        TwinlensError: A file is no TOML, or holds what is no such option or no such value.
    """
    values = user_defaults()
    commands = {name for _, names in OPTIONS.values() for name in names}
    by_command = {
        each: {name: value for name, value in values.items() if each in OPTIONS[name][1]} for each in sorted(commands)
    }
    return by_command if command is None else by_command.get("build" if command == "build-index" else command, {})


def user_defaults() -> dict[str, Any]:
    """Return the value of each option that has one, by the option's name.

    Raises:
        TwinlensError: As `default_map` raises it.
    """
    values: dict[str, Any] = {}
    for path in reversed([*_files()]):
        values.update(_read(path))
    for name in OPTIONS:
        value = os.environ.get(variable(name))
        if value:
            values[name] = value
    return values


def variable(name: str) -> str:
    """The environment variable of an option."""
    return f"TWINLENS_{name.upper()}"


def _files() -> Iterator[Path]:
    """Yield the files that are there, the nearest first."""
    config = os.environ.get("XDG_CONFIG_HOME")
    folders = [Path.cwd()]
    with suppress(RuntimeError):  # there is no home
        folders.append(Path(config if config else Path.home() / ".config") / "twinlens")
    yield from (folder / FILE for folder in folders if (folder / FILE).is_file())


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TwinlensError(f"{path} cannot be read: {error}; mend it or move it away") from error
    return {_checked(path, name, value): value for name, value in values.items()}


def _checked(path: Path, name: str, value: Any) -> str:
    option = name.replace("-", "_")
    if option not in OPTIONS:
        near = get_close_matches(option, OPTIONS)
        words = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPTIONS)}"
        raise TwinlensError(f"{path} has {name[:60]!r}, which is no option with a default; {words}")
    kind = OPTIONS[option][0]
    fits = isinstance(value, str) if kind is str else isinstance(value, int | float) and not isinstance(value, bool)
    if not fits:
        expected = "a text in quotes" if kind is str else "a number"
        raise TwinlensError(f"{path}: {name} is {str(value)[:60]!r}; give {expected}")
    return option
