"""A version while it is written: a folder under a name that no reader looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import atomic
from .checksum import FileEntry, measure
from .errors import StorageError
from .layout import DRAFT_PREFIX, MANIFEST, VERSIONS, file_names, version_name
from .manifest import Manifest
from .version import IndexVersion


@dataclass
class Draft:
    """The folder of a version that is being written, from `IndexStore.draft`.

    Attributes:
        path: Where the builder writes `catalog.duckdb`, `images/vectors.arrow` and the other files.
        number: The number that the version will have.
    """

    root: Path
    number: int
    renamed: bool = False

    @property
    def path(self) -> Path:
        """The folder."""
        return self.root / VERSIONS / (DRAFT_PREFIX + version_name(self.number))

    def discard(self) -> None:
        """Remove the folder, unless it has become a version."""
        if not self.renamed:
            atomic.remove_folder(self.path)


def describe(draft: Draft, parent: int | None, described: Mapping[str, Any]) -> Manifest:
    """Return the manifest of a draft: what the builder says of it, and its files, durable and measured.

    Raises:
        StorageError: A file is missing or does not belong there, or the disk fails.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(version=draft.number, parent=parent, created_at=now, files={}, **described)
    return replace(manifest, files=_measured(draft, manifest.expected_files()))


def seal(draft: Draft, manifest: Manifest) -> bytes:
    """Open a draft as a reader will, write its manifest last, make it durable, and return the manifest's bytes.

    Raises:
        StorageError: The files do not open, or do not fit what the manifest says.
    """
    data = manifest.to_json()
    with IndexVersion(draft.path, manifest) as version:
        for collection in manifest.collections:
            version.ann(collection)
    atomic.checkpoint("draft.read_back")
    atomic.write_new(draft.path / MANIFEST, data, "manifest")
    for folder in sorted({path.parent for path in draft.path.rglob("*")} | {draft.path}):
        atomic.sync_directory(folder)
    atomic.checkpoint("draft.synced")
    return data


def _measured(draft: Draft, expected: set[str]) -> dict[str, FileEntry]:
    """Make the files of a draft durable and return their entries, read back from the disk."""
    found = file_names(draft.path) - {MANIFEST}
    if found != expected:
        raise StorageError(
            f"the draft {draft.path} lacks {sorted(expected - found)} and has {sorted(found - expected)} unasked; "
            "write what the collections say"
        )
    entries = {}
    for name in sorted(expected):
        atomic.sync_file(draft.path / name)
        atomic.checkpoint(f"{name}.synced")
        entries[name] = measure(draft.path, name, from_disk=True)
    return entries
