"""Checks every file of a version, then how the files fit each other, and says what is wrong with each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .checksum import FileEntry, check
from .errors import StorageError
from .layout import MANIFEST, surplus
from .manifest import Manifest
from .structure import StructureCheck, check_structure

Checksum = Literal["ok", "bad", "missing", "unasked"]


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """One file, by its path below the index.

    Attributes:
        name: The path.
        bytes: Its size on the disk; None where nothing can be read.
        checksum: `ok`, `bad`, `missing`, or `unasked` for a file that does not belong there.
        problem: One line that says what is wrong; None when it is as it was published.
    """

    name: str
    bytes: int | None = None
    checksum: Checksum = "ok"
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a full check of one version found.

    Attributes:
        version: Its number; None where CURRENT does not say which is meant.
        files: One result a file.
        structure: One result a rule that the files obey together; empty where there is no manifest to compare with.
    """

    version: int | None
    files: tuple[FileCheck, ...]
    structure: tuple[StructureCheck, ...] = ()

    @property
    def problems(self) -> list[str]:
        """One line for each thing that is wrong; empty for a whole version."""
        told = [*(file.problem for file in self.files), *(rule.problem for rule in self.structure)]
        return [problem for problem in told if problem is not None]

    @property
    def ok(self) -> bool:
        """Whether the version is whole."""
        return not self.problems


def unreadable(root: Path, path: Path, error: StorageError, version: int | None = None) -> Verification:
    """Return the result where CURRENT or a manifest is damaged, so that nothing says what the rest should be."""
    return Verification(version=version, files=(_file(root, path, str(error)),))


def check_version(root: Path, folder: Path, manifest: Manifest) -> Verification:
    """Check a version in `folder`, below the index `root`: every file is read; those that are whole are then opened.

    A file whose checksum is wrong never reaches a library that would parse it.
    """
    files = [_file(root, folder / MANIFEST, None)]
    for name in surplus(folder, {MANIFEST, *manifest.files}):
        files.append(_file(root, folder / name, f"{folder / name} does not belong there; remove it", "unasked"))
    damaged = set()
    for name, entry in sorted(manifest.files.items()):
        problem = _damage(folder, name, entry)
        files.append(_file(root, folder / name, problem))
        damaged |= {name} if problem else set()
    structure = check_structure(folder, manifest, damaged)
    return Verification(version=manifest.version, files=tuple(files), structure=structure)


def _file(root: Path, path: Path, problem: str | None, checksum: Checksum | None = None) -> FileCheck:
    present = path.exists() and not path.is_symlink()
    found: Checksum = checksum or ("ok" if problem is None else "bad" if present else "missing")
    size = path.stat().st_size if present else None
    return FileCheck(name=path.relative_to(root).as_posix(), bytes=size, checksum=found, problem=problem)


def _damage(folder: Path, name: str, entry: FileEntry) -> str | None:
    try:
        check(folder, name, entry, "full")
    except StorageError as error:
        return str(error)
    return None
