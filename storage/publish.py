"""Publishing: the draft of a version, its manifest, and CURRENT, the pointer to the version that readers open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import (
    CorruptIndexError,
    IncompatibleIndexError,
    IndexNotFoundError,
    PublishStateUnknownError,
    StorageError,
)
from .files import atomic
from .files.layout import (
    CURRENT,
    DRAFT_PREFIX,
    MANIFEST,
    TOWER_FILES,
    VERSIONS,
    FileEntry,
    file_names,
    measure,
    open_regular,
    sha256_of,
    version_name,
    words_name,
)
from .manifest import CALIBRATIONS, INT8, MAX_BYTES, PROVENANCE, WORDS, Manifest
from .version import IndexVersion

_POINTER_LINE = re.compile(rb"([0-9]{8}) ([0-9a-f]{64})\n?")


@dataclass
class Draft:
    """A draft: the folder of a version that is being written, which no reader looks at; from `IndexStore.draft`.

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


@dataclass(frozen=True)
class Pointer:
    """The number of the current version and the SHA-256 of its manifest."""

    number: int
    sha256: str


def describe(draft: Draft, parent: int | None, described: Mapping[str, Any]) -> Manifest:
    """Return the manifest of a draft: what the builder says of it, and its files, durable and measured.

    Raises:
        StorageError: A file is missing or does not belong there, or the disk fails.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    words = [WORDS] if any((draft.path / words_name(name)).exists() for name in described["collections"]) else []
    calibrations = [CALIBRATIONS] if described.get("calibrations") else []
    towers = (tower for tower in TOWER_FILES if (draft.path / tower).is_dir())
    rounded = [INT8] if described.get("rounding") else []
    features = (PROVENANCE, *calibrations, *words, *rounded, *towers)
    manifest = Manifest(
        version=draft.number, parent=parent, created_at=now, files={}, reader_features=features, **described
    )
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


def read_pointer(root: Path) -> Pointer | None:
    """Return what CURRENT says, or None where nothing was published yet.

    Raises:
        CorruptIndexError: The file is there and does not hold a number and a checksum.
    """
    if not (root / CURRENT).exists() and not (root / CURRENT).is_symlink():
        return None
    with open_regular(root, CURRENT) as file:
        data = file.read(256)
    match = _POINTER_LINE.fullmatch(data)
    if not match or not int(match[1]):
        raise CorruptIndexError(
            f"{root / CURRENT} holds {data!r} and not a version and its checksum; "
            f"take a version of {root / VERSIONS} with `twinlens rollback {root} --to NUMBER`"
        )
    return Pointer(int(match[1]), match[2].decode())


def check_pointer(root: Path, pointer: Pointer) -> None:
    """Compare what CURRENT says with the manifest that it names, before anything is removed or built on its word.

    Raises:
        CorruptIndexError: There is no such version, or its manifest is whole and another than CURRENT says.
    """
    try:
        data = read_manifest(root, pointer.number, None)[1]
    except IncompatibleIndexError:
        return
    except CorruptIndexError:
        if (root / VERSIONS / version_name(pointer.number)).is_dir():
            return  # it is the version that is damaged, as far as anybody can tell
        raise _names_no_version(root, pointer.number) from None
    if sha256_of(data) != pointer.sha256:
        raise CorruptIndexError(
            f"{root / CURRENT} names version {pointer.number} and not the checksum of its manifest; "
            f"take a version of {root / VERSIONS} with `twinlens rollback {root} --to NUMBER`"
        )


def _names_no_version(root: Path, number: int) -> CorruptIndexError:
    return CorruptIndexError(
        f"{root / CURRENT} names version {version_name(number)}, which {root / VERSIONS} does not hold; "
        f"take one of those there with `twinlens rollback {root} --to NUMBER`"
    )


def no_current_version(root: Path, versions: list[int]) -> IndexNotFoundError:
    """Return the error for an index without CURRENT: never published, or it has versions and lost the file."""
    if not versions:
        return IndexNotFoundError(f"nothing has been published in {root} yet; finish a build")
    return IndexNotFoundError(
        f"{root / CURRENT} is missing, so no version is current; the index has {versions}: "
        f"take one with `twinlens rollback {root} --to {versions[-1]}`"
    )


def read_manifest(root: Path, number: int, pointer: Pointer | None) -> tuple[Manifest, bytes]:
    """Return the manifest of a version and its bytes, compared with what CURRENT says of it, if anything.

    Raises:
        CorruptIndexError: It is damaged, or is that of another version.
        IncompatibleIndexError: It is of a newer format.
    """
    name = f"{VERSIONS}/{version_name(number)}/{MANIFEST}"
    path = str(root / name)
    if pointer is not None and not (root / name).parent.exists():
        raise _names_no_version(root, number)
    with open_regular(root, name) as file:
        data = file.read(MAX_BYTES + 1)
    if pointer is not None and sha256_of(data) != pointer.sha256:
        raise CorruptIndexError(
            f"{path} has SHA-256 {sha256_of(data)} and {CURRENT} says {pointer.sha256}; "
            "roll back to another version or build again"
        )
    manifest = Manifest.from_json(data, path)
    if manifest.version != number:
        raise CorruptIndexError(f"{path} says that it is version {manifest.version}; it was moved, move it back")
    return manifest, data


def write_pointer(root: Path, number: int, manifest: bytes) -> None:
    """Make a version the current one, atomically and durably.

    Raises:
        StorageError: CURRENT could not be replaced; it is as it was.
        PublishStateUnknownError: It was replaced, but the final fsync failed.
    """
    line = f"{version_name(number)} {sha256_of(manifest)}\n".encode()
    with atomic.explained("write", root / CURRENT):
        finish = atomic.replace_file(root / CURRENT, line, "current")
    try:
        finish()
    except OSError as error:
        raise PublishStateUnknownError(
            f"version {number} of {root} is current, but the last fsync failed ({error.strerror or error}) and a power "
            "loss may undo that; check the disk, then run `twinlens versions` to see what is current"
        ) from error


def _measured(draft: Draft, expected: set[str]) -> dict[str, FileEntry]:
    """Make the files of a draft durable and return their entries, read back from the disk."""
    files = file_names(draft.path) - {MANIFEST}
    if files != expected:
        raise StorageError(
            f"the draft {draft.path} lacks {sorted(expected - files)} and has {sorted(files - expected)} unasked; "
            "write what the collections say"
        )
    entries = {}
    for name in sorted(expected):
        atomic.sync_file(draft.path / name)
        atomic.checkpoint(f"{name}.synced")
        entries[name] = measure(draft.path, name, from_disk=True)
    return entries
