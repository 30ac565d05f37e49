"""Checks every file of a version and says what is wrong with each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .checksum import FileEntry, check
from .errors import StorageError
from .layout import MANIFEST, surplus
from .manifest import Manifest
from .version import IndexVersion


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """One file, by its path below the index; `problem` is None when it is as it was published."""

    name: str
    problem: str | None = None


def check_version(root: Path, folder: Path, manifest: Manifest) -> list[FileCheck]:
    """Return one result a file of a version in `folder`, below the index `root`; all are read, then opened."""
    prefix = folder.relative_to(root).as_posix()
    results = [FileCheck(name=f"{prefix}/{MANIFEST}")]
    for name in surplus(folder, {MANIFEST, *manifest.files}):
        results.append(FileCheck(name=f"{prefix}/{name}", problem=f"{folder / name} does not belong there; remove it"))
    for name, entry in sorted(manifest.files.items()):
        results.append(FileCheck(name=f"{prefix}/{name}", problem=_damage(folder, name, entry)))
    if all(result.problem is None for result in results) and (problem := _misfit(folder, manifest)):
        results.append(FileCheck(name=prefix, problem=problem))
    return results


def _damage(folder: Path, name: str, entry: FileEntry) -> str | None:
    try:
        check(folder, name, entry, "full")
    except StorageError as error:
        return str(error)
    return None


def _misfit(folder: Path, manifest: Manifest) -> str | None:
    """Open what has the right checksums: it may still not fit the manifest."""
    try:
        with IndexVersion(folder, manifest) as version:
            for collection in manifest.collections:
                version.ann(collection)
    except StorageError as error:
        return str(error)
    return None
