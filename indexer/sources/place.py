"""Portable names of files: relative to the corpus where below it, else absolute."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path


def uri_of(path: Path, root: Path) -> str:
    """`path` relative to `root` when it lies below it, else absolute; POSIX slashes, `.` and `..` folded.

    Links are not followed: a linked picture is called by the name that it has in the corpus.
    """
    # Plain strings, since a table of ten million rows comes through here.
    whole, base = os.path.abspath(path), _base(root)  # noqa: PTH100
    return (whole[len(base) :] if whole.startswith(base) else whole).replace(os.sep, "/")


def printable(name: str) -> str:
    """`name` as valid UTF-8: bytes that the file system gave and UTF-8 does not know are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(name: str) -> bool:
    """False for a name with bytes that are not UTF-8, which neither Arrow nor DuckDB can hold."""
    return printable(name) == name


@lru_cache(maxsize=16)
def _base(root: Path) -> str:
    folder = os.path.abspath(root)  # noqa: PTH100
    return folder if folder.endswith(os.sep) else folder + os.sep


def one_line(error: Exception) -> str:
    """What a library says, on one line and without its tail, to stand inside a message of ours."""
    words = " ".join(str(error).split())
    return f"{words[:200]}..." if len(words) > 200 else words.rstrip(".")
