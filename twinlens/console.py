"""The command group `twinlens`, and what its commands share: output as text or JSON, one-line errors, exit codes.

Results go to stdout, progress to stderr. Exit codes: 0 it worked, 2 the command was typed wrong, 3 the index is
damaged, 1 it did not work for another reason, which the message says, 130 interrupted.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from io import TextIOBase, TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from storage.errors import CorruptIndexError, TwinlensError, install_hint
from storage.files.atomic import next_step

PACKAGES = ("encoders", "evaluation", "indexer", "matcher", "searcher", "storage", "training", "twinlens")


def check_origins() -> None:
    """Raise `TwinlensError` unless every package of ours lies in the folder that holds this one.

    The message names the foreign file, the distribution that owns it, and the command that fixes it.
    """
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parents[1] != home:
            raise TwinlensError(_foreign(name, origin, home))


def _foreign(name: str, origin: Path | None, home: Path) -> str:
    if origin is None:
        return f"the package {name!r} is missing beside the others in {home}; install Twinlens again"
    from importlib.metadata import packages_distributions  # slow to import, and needed for this message alone

    owners = [owner for owner in packages_distributions().get(name, []) if owner != "twinlens"]
    remedy = f"run `pip uninstall {owners[0]}`" if owners else "remove it"
    return (
        f"the package {name!r} should come from {home} but comes from {origin}; "
        f"{remedy}, or install Twinlens in a clean virtual environment"
    )


F = TypeVar("F", bound=Callable[..., Any])

TOKEN = "TWINLENS_TOKEN"
"""The environment variable with the token that a server asks for and callers show."""

output_option: Callable[[F], F] = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Print results for people or for programs.",
)


index_argument: Callable[[F], F] = click.argument("index", type=click.Path(path_type=Path))


def emit(output: str, value: Any, text: str) -> None:
    """Print the result of a command to stdout: `value` as JSON, or `text`.

    A reader that has gone (`| head -1`) is not an error.
    """
    _print(json.dumps(value, ensure_ascii=_needs_ascii(), indent=2, allow_nan=False) if output == "json" else text)


def emit_line(value: Any) -> bool:
    """Print one result to stdout, as JSON on a line of its own; False where nobody reads on (`| head -1`)."""
    return _print(json.dumps(value, ensure_ascii=_needs_ascii(), allow_nan=False))


def _needs_ascii() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") != "utf8"


def _print(text: str) -> bool:
    if not isinstance(sys.stdout, TextIOBase):
        return False  # closed by whoever started the command
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return False
    except OSError as error:
        _silence_stdout()
        reason, step = error.strerror or str(error), next_step(error)
        raise TwinlensError(f"the result cannot be written to stdout: {reason}; {step}") from error
    return True


def format_counts(counts: Mapping[str, Any]) -> str:
    """Return how many images, texts, pairs and rejected items there are, as one line."""
    return ", ".join(f"{counts[name]:,} {name}" for name in ("images", "texts", "pairs", "rejected"))


def align_columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as lines, their columns padded to one width, the last one left as it is."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


COMMANDS = {
    "audit": "audit:audit",
    "build": "build:build",
    "compare": "compare:compare",
    "duplicates": "duplicates:duplicates",
    "encoders": "encoders:encoders",
    "evaluate": "evaluate:evaluate",
    "evaluate-hrem": "hrem:evaluate_hrem",
    "export": "export:export",
    "fit": "fit:fit",
    "fit-hrem": "hrem:fit_hrem",
    "info": "info:info",
    "match": "match:match",
    "regions": "hrem:regions",
    "rollback": "versions:rollback",
    "search": "search:search",
    "serve": "serve:serve",
    "serve-ray": "serve_ray:serve_ray",
    "vacuum": "versions:vacuum",
    "verify": "verify:verify",
    "versions": "versions:versions",
}
"""Each command of `twinlens`: its module in `twinlens.commands`, and its function there."""

READ_ONLY = "nothing was changed; run the same command again"
KEPT = {
    "build": "finished shards are kept and what was published has not changed; run the same command again to go on",
    "compare": "nothing was changed, and what was encoded is kept; run the same command again to go on",
    "export": "nothing appeared under the name of the export; run the same command again",
    "fit": "no encoder was written; run the same command again, which goes on from the last evaluation, if any",
    "fit-hrem": "no towers were written; run the same command again, which goes on from the last evaluation, if any",
    "regions": "no folder was written; run the same command again",
    "rollback": "`twinlens versions INDEX` shows which version is current",
    "serve": "the server has stopped, and the index has not changed",
    "serve-ray": "the server has stopped, and the index has not changed",
    "vacuum": "the versions that are left are whole; run the same command again to remove the others",
    "verify": "what was published has not changed; run the same command again",
}
"""What a command has kept when it is interrupted, and how to go on; `READ_ONLY` for all others."""

_COMPLETED = 60  # signs of help beside a command that is completed
TYPED_WRONG, DAMAGED, INTERRUPTED = 2, CorruptIndexError.exit_code, 130

EXTRA_OF = {
    "fastapi": "server",
    "ftfy": "search",
    "huggingface_hub": "encode",
    "matplotlib": "plot",
    "open_clip": "encode",
    "ray": "ray",
    "regex": "search",
    "safetensors": "encode",
    "timm": "encode",
    "tokenizers": "search",
    "torch": "encode",
    "transformers": "encode",
}
"""The extra that brings a package which the core does without, by the package's import name."""


def summary(name: str) -> str:
    """Return what a command says of itself, read from its file: to import them all takes four times as long."""
    module, _, function = COMMANDS[name].partition(":")
    tree = ast.parse((Path(__file__).parent / "commands" / f"{module}.py").read_text("utf-8"))
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    return next((ast.get_docstring(node) or "" for node in found), "")


def _short(name: str, width: int) -> str:
    return click.Command(name, help=summary(name)).get_short_help_str(width)


class CommandGroup(click.Group):
    """Commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        width = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl([(name, _short(name, width)) for name in sorted(COMMANDS)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands, and the options of the group, that begin like what is typed; nothing is imported."""
        names = [name for name in sorted(COMMANDS) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=_short(name, _COMPLETED)) for name in names]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, or None where there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f".commands.{module}", __package__), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called; one that is misspelt is an error that names those like it."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS)
            words = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {words}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="twinlens")
def twinlens() -> None:
    """Search images and texts by meaning, in an index built beforehand."""


def run(command: click.Command) -> None:
    """Run a command as a program and exit: errors are one line on stderr, never a traceback."""
    _escape_unknown_characters()
    try:
        check_origins()
        defaults = default_map(None if command is twinlens else _called(command))
        code = command.main(standalone_mode=False, default_map=defaults)
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _fail(f"interrupted; {KEPT.get(_called(command), READ_ONLY)}", INTERRUPTED)
    except click.UsageError as error:
        code = _fail(f"{_sentence(error)} See `{_path(error)} --help`.", TYPED_WRONG)
    except click.ClickException as error:
        code = _fail(error.format_message(), 1)
    except ModuleNotFoundError as error:
        code = _fail(_missing(error), 1)
    except TwinlensError as error:
        code = _fail(str(error), error.exit_code)
    except OSError as error:
        code = _fail(_of_system(error), 1)
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        code = _fail(f"there is not enough memory{what}; ask for less at once, or end other programs", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _of_system(error: OSError) -> str:
    """Return the message for an error of the system that nobody has put into words."""
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror or error}; {next_step(error)}"


def _called(command: click.Command) -> str:
    """Return the name in `COMMANDS` of what runs."""
    if command is not twinlens:
        return "build" if command.name == "build-index" else command.name or ""
    return next((name for name in sys.argv[1:] if not name.startswith("-")), "")


def _fail(message: str, code: int) -> int:
    click.echo("error: " + " ".join(message.split()), err=True)
    return code


def _sentence(error: click.UsageError) -> str:
    """Return what click says of a mistake, with one sign at its end."""
    words = error.format_message().rstrip(".").replace(". (Did you mean", "; did you mean").replace("?)", "?")
    words += _origin(error)
    return words if words.endswith("?") else f"{words}."


def _missing(error: ModuleNotFoundError) -> str:
    """Return the message for a package that is not installed; a package that no extra of ours brings is a bug."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        raise error
    return f"this command needs the package {package!r}, which is not installed; {install_hint(EXTRA_OF[package])}"


def _origin(error: click.UsageError) -> str:
    """Return where a wrong value comes from, for one that nobody typed."""
    name = error.param.name if isinstance(error, click.BadParameter) and error.param else None
    source = error.ctx.get_parameter_source(name) if error.ctx and name else None
    return f" (it comes from {variable(name)} or {FILE})" if name and source is ParameterSource.DEFAULT_MAP else ""


def _path(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "twinlens"


def _escape_unknown_characters() -> None:
    """Print characters that the terminal cannot show as escapes, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    # Python would complain when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the `twinlens` command."""
    run(twinlens)


FILE = "twinlens.toml"
OPTIONS: Mapping[str, tuple[type, tuple[str, ...]]] = {
    "encoder": (str, ("build", "fit", "match")),
    "device": (str, ("build", "compare", "fit", "match", "search", "serve", "serve-ray")),
    "precision": (str, ("build", "compare", "match", "search", "serve", "serve-ray")),
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
    return by_command if command is None else by_command.get(command, {})


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
    try:
        folders = [Path.cwd()]
    except FileNotFoundError as error:
        raise TwinlensError("the working directory is gone; go to another one and run the command again") from error
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
