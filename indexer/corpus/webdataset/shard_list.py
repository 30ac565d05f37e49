"""The tar shards that a path, a folder or a pattern names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from encoders.images import IMAGE_SUFFIXES

from ...errors import SourceError
from ..file_pattern import is_pattern, matching_files
from ..layouts.walk import kept_paths

TAR_SUFFIX = ".tar"
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_shard_pattern(path: Path) -> bool:
    """Whether a path names several shards: with `{00000..00009}`, `{a,b}`, `*`, `?` or `[ab]`, ending in `.tar`."""
    return is_pattern(path, (TAR_SUFFIX,))


def is_packed(path: Path) -> bool:
    """Whether a file is named like a compressed archive."""
    return path.name.lower().endswith(PACKED_SUFFIXES)


def holds_shards(folder: Path, exclude: Sequence[str] = ()) -> bool:
    """Whether a folder is one of shards: `.tar` files, and neither folders nor images beside them."""
    entries = kept_paths(folder, _entries(folder), exclude)
    if not any(_is_tar(entry) for entry in entries):
        return False
    return not any(entry.is_dir() or entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)


def find_shards(corpus: Path, exclude: Sequence[str] = ()) -> tuple[Path, list[Path]]:
    """The folder that the names of shards start from, and the shards: in the order of a pattern, else by name.

    Raises:
        SourceError: There is no such shard, or none that is not excluded.
    """
    if corpus.is_dir():
        root, shards = corpus, sorted(entry for entry in _entries(corpus) if _is_tar(entry))
    elif is_shard_pattern(corpus):
        root, shards = matching_files(corpus, "shard")
    else:
        return corpus.parent, [corpus]
    kept = kept_paths(root, shards, exclude)
    if not kept:
        but = f"{len(shards)} .tar files, all hidden or excluded" if shards else "no .tar files"
        raise SourceError(f"{str(corpus)!r} holds {but}; name a folder of shards or a pattern")
    return root, kept


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise SourceError(f"folder {str(folder)!r} cannot be read ({error.strerror}); fix its permissions") from error


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == TAR_SUFFIX and path.is_file()
