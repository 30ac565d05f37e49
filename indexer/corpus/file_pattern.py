"""Patterns that name several files of a corpus: `{000..009}`, `{a,b}`, `*`, `?`, `[ab]` and `**`.

A folder or file that is really called like a part of the pattern is taken by its name: folders are called `set [2020]`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from ..errors import SourceError

MAX_FILES = 100_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_NUMBERS = re.compile(r"([0-9]+)")
_WILD = re.compile(r"[*?\[{]")


def is_pattern(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether a path where nothing is names several files of one of the suffixes."""
    return path.suffix.lower() in suffixes and _WILD.search(str(path)) is not None and not is_there(path)


def matching_files(pattern: Path, what: str) -> tuple[Path, list[Path]]:
    """The folder that the pattern starts from, and the files in the order of its braces, by name within each.

    Args:
        pattern: A path with braces or wildcards.
        what: One of the files in messages, e.g. `shard`.

    Raises:
        SourceError: No file fits, or one that the braces name is not there.
    """
    root, parts = _fixed(pattern)
    files: dict[Path, None] = {}
    for text in _expanded("/".join(parts), pattern):
        matches = [path for path in _matches(root, text.split("/")) if path.is_file()]
        if not matches and _WILD.search(text):
            raise SourceError(
                f"no {what} fits {str(root / text)!r}; quote the pattern, so that the shell leaves it alone"
            )
        if not matches:
            raise SourceError(f"there is no {what} {str(root / text)!r}; fix the pattern, or fetch the {what}")
        files.update(dict.fromkeys(matches))
    return root, list(files)


def files_in_parts(path: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    """The files that hold one thing in parts: one, those of a pattern, or those of a folder with its first suffix.

    They come in natural order, 2 before 10, in which vectors and the rows beside them fit each other.

    Raises:
        SourceError: Nothing is there.
    """
    if is_pattern(path, suffixes):
        return sorted(matching_files(path, what)[1], key=lambda path: natural_key(str(path)))
    if not is_there(path):
        raise SourceError(f"there is no file {str(path)!r}; name {what} in one of {', '.join(suffixes)}, or a folder")
    if not path.is_dir():
        return [path]
    for suffix in suffixes:
        files = [path / name for name in _listed(path) if name.lower().endswith(suffix)]
        if files:
            return sorted(files, key=lambda path: natural_key(str(path)))
    raise SourceError(f"folder {str(path)!r} holds no file of {', '.join(suffixes)}; name the folder with {what}")


def natural_key(name: str) -> list[tuple[int, str]]:
    """A key to sort names by that puts 2 before 10."""
    # Every other part is a number.
    return [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(_NUMBERS.split(name))]


def _fixed(pattern: Path) -> tuple[Path, Sequence[str]]:
    """The folders before the first part that is a pattern, and the parts from there on."""
    parts = pattern.parts
    for number, part in enumerate(parts):
        base = Path(*parts[:number])
        if _WILD.search(part) and not is_there(base / part):
            return base, parts[number:]
    return pattern.parent, parts[-1:]


def _expanded(rest: str, pattern: Path) -> Iterator[str]:
    """The rest of the pattern with every pair of braces filled in, as a shell does."""
    pieces = _BRACES.split(rest)
    choices = [_choices(piece, str(pattern)) for piece in pieces[1::2]]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MAX_FILES:
        raise SourceError(f"the pattern {str(pattern)!r} names {total} files, at most {MAX_FILES} are read; name fewer")
    for chosen in product(*choices):
        yield "".join(a + b for a, b in zip(pieces[::2], (*chosen, ""), strict=True))


def _choices(braces: str, text: str) -> list[str]:
    match = _RANGE.fullmatch(braces)
    if match is None:
        if "," not in braces:
            raise SourceError(f"the braces {{{braces}}} of {text!r} are no range like {{000..009}} and no list {{a,b}}")
        return braces.split(",")
    first, last = int(match[1]), int(match[2])
    if last < first or last - first >= MAX_FILES:
        raise SourceError(f"the range {{{braces}}} of {text!r} is empty or too long; write the lower number first")
    return [str(number).zfill(len(match[1])) for number in range(first, last + 1)]


def _matches(base: Path, parts: Sequence[str]) -> Iterator[Path]:
    """The paths below a folder that fit the parts, sorted in each folder."""
    part, rest = parts[0], parts[1:]
    if part in ("", "."):
        paths: Sequence[Path] = (base,)
    elif part == "**":
        paths = [Path(folder) for folder, _, _ in sorted(os.walk(base))]
    elif is_there(base / part):
        paths = (base / part,)
    else:
        paths = [base / name for name in _listed(base) if fnmatchcase(name, part)] if _WILD.search(part) else ()
    for path in paths:
        yield from _matches(path, rest) if rest else (path,)


def is_there(path: Path) -> bool:
    """Whether something has this name; a name that is too long for any file has nothing."""
    return os.path.exists(path)  # noqa: PTH110 - `Path.exists` raises then


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:  # no folder, or none that may be read: nothing in it fits
        return []
