"""Durable file operations: the only module that calls fsync, rename and replace, and how their errors are told.

A test sets `hook` to stop or fail a build at a named step; otherwise `checkpoint` does nothing.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StorageError

hook: Callable[[str], None] | None = None

_NEXT_STEPS = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some of your quota and run the same command again",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "check the permissions of the folder",
    errno.EPERM: "check the permissions of the folder",
    errno.EIO: "check the disk",
    errno.ENOTDIR: "choose another path",
    errno.EEXIST: "choose another path",
}


def checkpoint(name: str) -> None:
    """Mark a named step of a durable operation; a test may stop here."""
    if hook is not None:
        hook(name)


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError` that names the action, the path, the reason and the next step."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        location = path if error.filename is None or str(error.filename) == str(path) else f"{path} ({error.filename})"
        raise StorageError(f"cannot {action} {location}: {reason}; {next_step(error)}") from error


def next_step(error: OSError) -> str:
    """Return what a person can do about an error of the system."""
    return _NEXT_STEPS.get(error.errno or 0, "fix that and run the same command again")


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW)


def sync_directory(path: Path) -> None:
    """Make the entries of a folder durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def drop_cache(descriptor: int) -> None:
    """Ask the kernel to forget the pages of a synced file, so that reading it back reads the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def write_new(path: Path, data: bytes, step: str) -> None:
    """Write a file that does not exist yet, durably; its folder still has to be synced.

    `step` names it in checkpoints: `STEP.opened`, `STEP.written`, `STEP.synced`.
    """
    with path.open("xb") as file:
        checkpoint(f"{step}.opened")
        file.write(data)
        file.flush()
        checkpoint(f"{step}.written")
        os.fsync(file.fileno())
    checkpoint(f"{step}.synced")


def rename(source: Path, target: Path, step: str) -> None:
    """Rename within one folder, durably: `STEP.renamed`, `STEP.directory_synced`."""
    source.rename(target)
    checkpoint(f"{step}.renamed")
    sync_directory(target.parent)
    checkpoint(f"{step}.directory_synced")


def replace_file(path: Path, data: bytes, step: str) -> Callable[[], None]:
    """Replace a file by a whole new one and return the final step, the sync of its folder, for the caller to take.

    Until that is done nobody can tell which of the two files survives a power loss.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    write_new(temporary, data, step)
    temporary.replace(path)
    checkpoint(f"{step}.replaced")

    def finish() -> None:
        checkpoint(f"{step}.syncing_directory")
        sync_directory(path.parent)
        checkpoint(f"{step}.directory_synced")

    return finish


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that people asked for: whole, or not at all, and then what was there before stays.

    A link stays one, and a device is written to as it is. Nothing is made durable.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    temporary = target.with_name(f".{target.name}.new")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing, each durable in its parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


@contextmanager
def folder_made(path: Path, action: str) -> Iterator[None]:
    """Make a folder and its parents for a block; those that were made go again where it fails and leaves them empty.

    Raises:
        StorageError: It cannot be made, for what `action` says.
    """
    with explained(action, path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with explained(action, path):
            make_folder(path)
        yield
    except BaseException:
        remove_empty(*missing)
        raise


def remove_empty(*folders: Path) -> None:
    """Remove folders, each inside the next, as far as they are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def remove_folder(path: Path) -> None:
    """Remove a folder and all that is in it; one that is gone already is fine."""
    with explained("remove", path):
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
