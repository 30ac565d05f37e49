"""A folder that is written under another name and appears whole, or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import atomic
from ..errors import StorageError

MARK = "export.json"


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that is there already; with `force` only what is no export.

    Raises:
        StorageError: The target is there, or its parent is not a folder.
    """
    if not target.name:
        raise StorageError(f"cannot export to {str(target)!r}; name a new folder")
    if not target.parent.is_dir():
        raise StorageError(f"there is no folder {str(target.parent)!r} to export into; make it first")
    if not (target.exists() or target.is_symlink()):
        return
    if not force:
        raise StorageError(f"{target} exists already; name another folder, or give --force to replace it")
    if target.is_symlink() or not (target / MARK).is_file():
        raise StorageError(f"{target} is not an export (it has no {MARK}), and --force replaces only those; remove it")


@contextmanager
def whole_folder(target: Path, *, force: bool) -> Iterator[Path]:
    """Give an empty folder to write into; at the end of the block it is made durable and becomes `target`.

    Where the block fails, nothing is left. What a killed export left is cleared by the next one to the same target.

    Raises:
        StorageError: Another export writes there, the target is there already, or the disk is full.
    """
    check_target(target, force=force)
    work = target.with_name(f".{target.name}.exporting")
    with atomic.explained("write", work), _held(work):
        try:
            yield work
            _sync(work)
            atomic.checkpoint("export.synced")
            _take_place(work, target, force)
        except BaseException:
            atomic.remove_folder(work)
            raise


def write_mark(folder: Path, facts: Mapping[str, Any]) -> None:
    """Say in the folder what it is."""
    text = json.dumps(facts, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    (folder / MARK).write_text(text, encoding="utf-8")


@contextmanager
def _held(work: Path) -> Iterator[None]:
    """Make the folder, empty, and hold a lock on it that ends with this process."""
    atomic.make_folder(work)
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"another export is writing {work}; wait for it, or name another folder") from error
        for left in work.iterdir():
            atomic.remove_folder(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield
    finally:
        os.close(descriptor)


def _sync(work: Path) -> None:
    paths = sorted(work.rglob("*"))
    for path in paths:
        if path.is_file():
            atomic.sync_file(path)
    for folder in [*(path for path in paths if path.is_dir()), work]:
        atomic.sync_directory(folder)


def _take_place(work: Path, target: Path, force: bool) -> None:
    check_target(target, force=force)
    old = target.with_name(f".{target.name}.replaced")
    atomic.remove_folder(old)
    if target.exists():
        # Between these two renames there is no target; both folders are whole all the while.
        atomic.rename(target, old, "export_old")
    atomic.rename(work, target, "export")
    atomic.remove_folder(old)
