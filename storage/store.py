"""An index folder: its versions, which of them is current, and how one is published, rolled back and removed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from .arguments import check_arguments
from .errors import CorruptIndexError, IncompatibleIndexError, IndexNotFoundError, StorageError
from .files import atomic
from .files.layout import (
    CURRENT,
    DRAFT_PREFIX,
    LOCK,
    MANIFEST,
    STAGING,
    TRASH_PREFIX,
    VERSIONS,
    Verify,
    number_in,
    version_name,
    version_number,
)
from .files.lock import IndexLock
from .hit_calibration import HitCalibration
from .manifest import Manifest, check_writable
from .publish import (
    Draft,
    Pointer,
    check_pointer,
    describe,
    no_current_version,
    read_manifest,
    read_pointer,
    seal,
    write_pointer,
)
from .schema import Collection, CollectionInfo, CorpusInfo, Counts, Direction, EncoderInfo, EncodingInfo, Rounding
from .staging import Staging, is_shard
from .verify import Verification, check_version, unreadable
from .version import IndexVersion, check_files

_INDEX_NAMES = frozenset({CURRENT, f".{CURRENT}.new", LOCK, STAGING, VERSIONS})


class IndexStore:
    """An index on disk.

    A reader sees the old version or the new one, whole, whatever happens to the builder. Reading takes no lock.
    `draft` and `publish` are for inside `with store.lock():`; the other changes take the lock themselves.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | Path) -> Self:
        """Open the index at `path`, or make an empty one where there is nothing.

        Raises:
            StorageError: The folder holds something else, or cannot be made; or it is an address.
        """
        check_arguments(cls.create, locals(), StorageError)
        path = _here(path)
        with atomic.explained("make the index", path):
            atomic.make_folder(path)
            others = sorted(entry.name for entry in path.iterdir() if entry.name not in _INDEX_NAMES)
            if others and not (path / VERSIONS).is_dir():
                raise StorageError(
                    f"{path} is not an index and not empty (it holds {others[0]!r}); name a new or an empty folder"
                )
            atomic.make_folder(path / VERSIONS)
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the index at `path`.

        Raises:
            IndexNotFoundError: There is none; or it is an address.
        """
        check_arguments(cls.open, locals(), StorageError)
        path = _here(path)
        if not (path / VERSIONS).is_dir():
            raise IndexNotFoundError(f"there is no index at {path}; make one with `build-index CORPUS --out {path}`")
        return cls(path)

    @classmethod
    @contextmanager
    def building(cls, path: str | Path) -> Iterator[Self]:
        """Open or make the index at `path` and hold its lock while the block runs.

        A block that fails before it has kept anything, a version or a finished shard, leaves nothing where nothing was.

        Raises:
            StorageError: As `create` raises it.
            IndexLockedError: Another builder has the lock.
        """
        path = Path(path)
        with atomic.folder_made(path, "make the index"):
            fresh = not (path / VERSIONS).is_dir()
            store = cls.create(path)
            with store.lock():
                try:
                    yield store
                except BaseException:
                    if fresh and not store._holds_work():
                        store._remove_traces()
                    raise

    @cached_property
    def _lock(self) -> IndexLock:
        return IndexLock(self.path / LOCK)

    def lock(self) -> AbstractContextManager[None]:
        """Return the one-builder lock, to be used with `with`; who holds it may take it again.

        Raises:
            IndexLockedError: On entering, when another builder has it; the message says who.
        """
        return self._lock

    def current(self) -> int | None:
        """Return the number of the current version, None where nothing was published."""
        pointer = read_pointer(self.path)
        return pointer.number if pointer else None

    def versions(self) -> list[int]:
        """Return the numbers of the published versions, ascending."""
        numbers = (version_number(entry.name) for entry in (self.path / VERSIONS).iterdir())
        return sorted(number for number in numbers if number is not None)

    def manifest(self, number: int | None = None) -> Manifest:
        """Return the manifest of a version, the current one by default, without opening its files.

        Raises:
            IndexNotFoundError: There is no such version.
            CorruptIndexError: The manifest, or CURRENT, is damaged.
            IncompatibleIndexError: It is of a newer format.
        """
        return read_manifest(self.path, *self._resolve(number))[0]

    def open_version(self, number: int | None = None, verify: Verify = "full") -> IndexVersion:
        """Open a version, the current one by default, after checking its files against its manifest.

        Args:
            number: Which version.
            verify: `full` reads every file and compares checksums (about a second a gigabyte); `size` compares sizes
                only, for files that were verified before.

        Raises:
            IndexNotFoundError: There is no such version.
            CorruptIndexError: A file is damaged; the message names it.
            IncompatibleIndexError: It is of a newer format.
        """
        check_arguments(type(self).open_version, locals(), StorageError)
        while True:
            resolved, pointer = self._resolve(number)
            try:
                manifest, _ = read_manifest(self.path, resolved, pointer)
                check_files(self.version_path(resolved), manifest, verify)
                return IndexVersion(self.version_path(resolved), manifest)
            except CorruptIndexError:
                # A version that ceased to be current meanwhile may just have been vacuumed: look again.
                if number is not None or read_pointer(self.path) == pointer:
                    raise

    def verify(self, number: int | None = None) -> Verification:
        """Read and open every file of a version, the current one by default, and return what is wrong with each.

        Raises:
            IndexNotFoundError: There is no such version.
        """
        try:
            resolved, pointer = self._resolve(number)
        except CorruptIndexError as error:
            return unreadable(self.path, self.path / CURRENT, error)
        folder = self.version_path(resolved)
        try:
            manifest, _ = read_manifest(self.path, resolved, pointer)
        except (CorruptIndexError, IncompatibleIndexError) as error:
            return unreadable(self.path, folder / MANIFEST, error, resolved)
        return check_version(self.path, folder, manifest)

    def version_path(self, number: int) -> Path:
        """Return the folder of a version."""
        return self.path / VERSIONS / version_name(number)

    def staging(self, fingerprint: str) -> Staging:
        """Return the staging folder of the build with this fingerprint, made where it is missing.

        Raises:
            StorageError: The fingerprint is not a plain name, or the folder cannot be made.
        """
        return Staging.create(self.path / STAGING, fingerprint)

    def is_staged(self, fingerprint: str) -> bool:
        """Return whether a build with this fingerprint has left a staging folder."""
        return (self.path / STAGING / fingerprint).is_dir()

    def drop_staging(self, keep: str | None = None) -> None:
        """Remove the staging folders of all builds but the one with the fingerprint `keep`."""
        with self._lock:
            for folder in self._entries(STAGING):
                if folder.name != keep:
                    atomic.remove_folder(folder)

    def draft(self) -> Draft:
        """Return a new draft, after removing those that killed builds have left.

        Raises:
            StorageError: The lock is not held, or the folder cannot be made.
            CorruptIndexError: CURRENT is damaged.
        """
        self._require_lock("start a draft")
        self._remove_leftovers()
        seen = [number_in(entry.name) for entry in self._entries(VERSIONS)]
        draft = Draft(self.path, max([self._checked_current() or 0, *seen]) + 1)
        with atomic.explained("make", draft.path):
            atomic.make_folder(draft.path)
        return draft

    def publish(
        self,
        draft: Draft,
        *,
        encoder: EncoderInfo | None,
        collections: Mapping[Collection, CollectionInfo],
        counts: Counts,
        build: Mapping[str, Any],
        encoding: EncodingInfo | None = None,
        corpus: CorpusInfo | None = None,
        calibrations: Mapping[Direction, HitCalibration] | None = None,
        rounding: Mapping[Collection, Rounding] | None = None,
    ) -> Manifest:
        """Make a draft the current version and return its manifest; when this returns, the version is durable.

        Raises:
            StorageError: The files do not fit what is said of them, or the disk is full; the old version stays.
            CorruptIndexError: CURRENT is damaged.
            PublishStateUnknownError: All is written and current, but the final fsync failed.
        """
        self._require_lock("publish")
        parent = self._checked_current()
        self._check_writable(parent)
        described: dict[str, Any] = {"encoder": encoder, "collections": collections, "counts": counts, "build": build}
        described |= {"encoding": encoding or EncodingInfo(), "corpus": corpus, "calibrations": calibrations or {}}
        described["rounding"] = rounding or {}
        with atomic.explained("publish", draft.path):
            manifest = describe(draft, parent, described)
            data = seal(draft, manifest)
            draft.renamed = True
            atomic.rename(draft.path, self.version_path(draft.number), "version")
        write_pointer(self.path, draft.number, data)
        return Manifest.from_json(data, str(self.version_path(draft.number) / MANIFEST))

    def confirm(self) -> None:
        """Make what CURRENT says durable, as the publishing that was stopped before its last step would have.

        Raises:
            StorageError: The disk refuses.
        """
        with atomic.explained("sync", self.path):
            atomic.sync_directory(self.path)

    def rollback(self, to: int | None = None) -> int:
        """Make an older version current again, the parent of the current one by default, and return its number.

        It is verified in full first. Only CURRENT changes.

        Raises:
            IndexNotFoundError: There is no such version, or the current one has no parent.
            CorruptIndexError: The version is damaged; CURRENT stays.
        """
        with self._lock:
            number = self._parent() if to is None else to
            with self.open_version(number) as version:
                for collection in version.manifest.collections:
                    version.ann(collection)
            _, data = read_manifest(self.path, *self._resolve(number))
            write_pointer(self.path, number, data)
            return number

    def vacuum(self, keep: int = 2) -> list[int]:
        """Remove all versions but the newest `keep` and the current one; return the removed numbers.

        Leftovers of killed builds go too, and what they could resume from. Open readers keep what they have open.

        Raises:
            StorageError: `keep` is not positive, or a folder cannot be removed.
            CorruptIndexError: CURRENT is damaged, so that nothing says which version is the current one.
        """
        if keep < 1:
            raise StorageError(f"cannot keep {keep!r} versions of {self.path}; keep 1 or more")
        with self._lock:
            kept = {self._checked_current(), *self.versions()[-keep:]}
            removed = [number for number in self.versions() if number not in kept]
            for number in removed:
                self._retire(number)
            self._remove_leftovers()
            self.drop_staging()
            return removed

    def _resolve(self, number: int | None) -> tuple[int, Pointer | None]:
        """Return the number of the version that is meant, and what CURRENT says of it if that names it."""
        if number is None:
            pointer = read_pointer(self.path)
            if pointer is None:
                raise no_current_version(self.path, self.versions())
            return pointer.number, pointer
        if type(number) is not int or not self.version_path(number).is_dir():
            raise IndexNotFoundError(f"{self.path} has no version {number!r}; it has {self.versions()}")
        return number, None  # a damaged CURRENT stops nobody who names a version

    def _checked_current(self) -> int | None:
        """Return the number of the current version for what builds on it or removes others; None where none is."""
        pointer = read_pointer(self.path)
        if pointer is None:
            return None
        check_pointer(self.path, pointer)
        return pointer.number

    def _check_writable(self, parent: int | None) -> None:
        if parent is None:
            return
        try:
            manifest = self.manifest(parent)
        except CorruptIndexError:
            return  # a new version replaces a damaged one
        check_writable(manifest, str(self.version_path(parent)))

    def _parent(self) -> int:
        current = self._checked_current()
        try:
            parent = self.manifest().parent
        except CorruptIndexError:
            parent = max((number for number in self.versions() if number < (current or 0)), default=None)
        if parent is None:
            raise IndexNotFoundError(f"version {current} of {self.path} has no parent; name one of {self.versions()}")
        return parent

    def _retire(self, number: int) -> None:
        """Remove a version under another name, so that a half removed one is never taken for a version."""
        trash = self.path / VERSIONS / (TRASH_PREFIX + version_name(number))
        with atomic.explained("remove", self.version_path(number)):
            atomic.rename(self.version_path(number), trash, "vacuum")
        atomic.remove_folder(trash)

    def _remove_leftovers(self) -> None:
        for entry in self._entries(VERSIONS):
            if entry.name.startswith((DRAFT_PREFIX, TRASH_PREFIX)):
                atomic.remove_folder(entry)

    def _entries(self, name: str) -> list[Path]:
        folder = self.path / name
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _holds_work(self) -> bool:
        """Whether there is anything that a reader or a later build could use."""
        staged = (file for folder in self._entries(STAGING) for file in folder.iterdir())
        versions = (version_number(entry.name) for entry in self._entries(VERSIONS))
        return any(map(is_shard, staged)) or any(number is not None for number in versions)

    def _remove_traces(self) -> None:
        """Remove what a build without result has left; what cannot be removed stays."""
        with suppress(StorageError, OSError):
            self._remove_leftovers()
            atomic.remove_folder(self.path / STAGING)
            atomic.remove_empty(self.path / VERSIONS)
            (self.path / LOCK).unlink(missing_ok=True)

    def _require_lock(self, action: str) -> None:
        if not self._lock.held:
            raise StorageError(f"cannot {action} in {self.path} without its lock; do it inside `with store.lock():`")


# A `Path` of an address has one slash left behind the colon. At least two letters: `C:/` is a place on Windows.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)


def _here(path: str | Path) -> Path:
    """Return where an index is; an address is refused, which would otherwise be a folder named like its protocol."""
    address = _ADDRESS.match(str(path))
    if address and not Path(path).is_dir():
        raise IndexNotFoundError(
            f"an index is a folder of this machine, and {address[1]}://... is an address; copy the whole folder here, "
            "its versions and CURRENT, and name the copy"
        )
    return Path(path)
