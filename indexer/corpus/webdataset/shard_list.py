"""The tar shards that a path, a folder or a pattern names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from encoders.images import IMAGE_SUFFIXES

from ...errors import SourceError

TAR_SUFFIX = ".tar"
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MAX_SHARDS = 100_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_WILD = re.compile(r"[*?\[{]")


def is_pattern(path: Path) -> bool:
    """Whether a path names several shards: with `{00000..00009}`, `{a,b}`, `*`, `?` or `[ab]`, ending in `.tar`."""
    return path.suffix.lower() == TAR_SUFFIX and _WILD.search(str(path)) is not None


def is_packed(path: Path) -> bool:
    """Whether a file is named like a compressed archive."""
    return path.name.lower().endswith(PACKED_SUFFIXES)


def holds_shards(folder: Path) -> bool:
    """Whether a folder is one of shards: `.tar` files, and neither folders nor images beside them."""
    entries = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
    if not any(_is_tar(entry) for entry in entries):
        return False
    return not any(entry.is_dir() or entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)


def find_shards(corpus: Path) -> tuple[Path, list[Path]]:
    """The folder that the names of shards start from, and the shards: in the order of a pattern, else by name.

    Raises:
        SourceError: There is no such shard.
    """
    if corpus.is_dir():
        shards = sorted(entry for entry in _entries(corpus) if _is_tar(entry) and not entry.name.startswith("."))
        if not shards:
            raise SourceError(f"folder {str(corpus)!r} holds no .tar files; name a folder of shards or a pattern")
        return corpus, shards
    if corpus.exists() or not is_pattern(corpus):
        return corpus.parent, [corpus]
    root = _fixed(corpus)
    shards = list(dict.fromkeys(path for one in _expanded(corpus) for path in _globbed(one)))
    return root, shards


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise SourceError(f"folder {str(folder)!r} cannot be read ({error.strerror}); fix its permissions") from error


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == TAR_SUFFIX and path.is_file()


def _fixed(pattern: Path) -> Path:
    """The folders before the first part with a wildcard."""
    parts = pattern.parts
    wild = next(number for number, part in enumerate(parts) if _WILD.search(part))
    return Path(*parts[:wild])


def _expanded(pattern: Path) -> Iterator[Path]:
    """The pattern with every pair of braces filled in, as a shell does."""
    text = str(pattern)
    pieces = _BRACES.split(text)
    choices = [_choices(piece, text) for piece in pieces[1::2]]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MAX_SHARDS:
        raise SourceError(f"the pattern {text!r} names {total} shards, at most {MAX_SHARDS} are read; name fewer")
    for chosen in product(*choices):
        yield Path("".join(a + b for a, b in zip(pieces[::2], (*chosen, ""), strict=True)))


def _choices(braces: str, text: str) -> list[str]:
    match = _RANGE.fullmatch(braces)
    if match is None:
        if "," not in braces:
            raise SourceError(f"the braces {{{braces}}} of {text!r} are no range like {{000..009}} and no list {{a,b}}")
        return braces.split(",")
    first, last = int(match[1]), int(match[2])
    if last < first or last - first >= MAX_SHARDS:
        raise SourceError(f"the range {{{braces}}} of {text!r} is empty or too long; write the lower number first")
    return [str(number).zfill(len(match[1])) for number in range(first, last + 1)]


def _globbed(path: Path) -> list[Path]:
    if _WILD.search(str(path)) is None:
        if not path.is_file():
            raise SourceError(f"there is no shard {str(path)!r}; fix the pattern, or fetch the shard")
        return [path]
    base = _fixed(path)
    try:
        shards = sorted(one for one in base.glob(str(path.relative_to(base))) if one.is_file())
    except ValueError as error:
        raise SourceError(f"{str(path)!r} is no pattern: {error}") from error
    if not shards:
        raise SourceError(f"no shard fits {str(path)!r}; quote the pattern, so that the shell leaves it alone")
    return shards
