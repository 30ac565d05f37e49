"""What can happen to a file."""

from __future__ import annotations

import os
from pathlib import Path


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """The last byte gone."""
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    """A byte more."""
    path.write_bytes(path.read_bytes() + b"\0")


def link(path: Path) -> None:
    """A link to the same bytes elsewhere."""
    target = path.parent.parent.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


def pipe(path: Path) -> None:
    """A named pipe in its place."""
    path.unlink()
    os.mkfifo(path)
