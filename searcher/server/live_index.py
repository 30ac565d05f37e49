"""The index as it is now: a newly published version takes over without a request being lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from storage.errors import TwinlensError
from storage.publish import Pointer, read_pointer
from storage.store import IndexStore
from storage.version import IndexVersion

from ..query_encoder import EncoderChoice, QueryEncoder
from .encoding import Encoding
from .errors import ServerError
from .settings import ServerSettings
from .snapshot import OpenVersion, Snapshot

if TYPE_CHECKING:
    from encoders import Encoder
    from storage.schema import EncoderInfo

log = logging.getLogger(__name__)

_KEPT_TEXTS = 8_192


class Listener(Protocol):
    """What is notified of versions that come and fail."""

    def swapped(self, snapshot: Snapshot) -> None:
        """A version became the current one."""

    def failed(self) -> None:
        """A version was published and cannot be opened."""


class LiveIndex:
    """Holds the current version open, and follows CURRENT.

    A request holds its snapshot for its whole length; one that was replaced is closed when its last request is done.
    Where a new version cannot be opened the old one stays. Safe from many threads.
    """

    def __init__(
        self,
        index: Path | Sequence[Path],
        settings: ServerSettings,
        encoder: Encoder | None = None,
        *,
        pinned: Sequence[int] | None = None,
    ) -> None:
        """Open the current version.

        Args:
            index: The folder of the index, or those of several that are searched as one.
            settings: How to open it.
            encoder: An encoder that is there already; by default the one that the settings or the index name.
            pinned: The version of each index, in place of the current one, for a process that leaves the searching to
                others: no newer one is followed, and nothing is loaded that only searches need.

        Raises:
            TwinlensError: There is no index, a file is damaged, or an encoder that was asked for cannot be loaded or
                did not make the index.
        """
        self._paths = (index,) if isinstance(index, Path) else tuple(index)
        self._settings = settings
        self._given = encoder
        self._pinned = pinned
        self._last: Encoding | None = None
        self._lock = Lock()
        self._listeners: list[Listener] = []
        self._refused: Pointer | None = None
        self._failed: Pointer | None = None
        self._pointer, self._current = self._open()
        self._open_ones = {self._current}

    @property
    def name(self) -> str:
        """The index's name, without where it lies."""
        return " + ".join(path.resolve().name for path in self._paths)

    @property
    def current(self) -> Snapshot:
        """The current version. To search it, `acquire` it."""
        return self._current

    @property
    def failed_version(self) -> int | None:
        """The number of the version that CURRENT names, where it cannot be opened and an older one is served."""
        failed = self._failed
        return None if failed is None else failed.number

    @property
    def open_versions(self) -> list[int]:
        """The numbers of the versions that are open: the current one, and those that requests still hold."""
        with self._lock:
            return sorted(one.number for one in self._open_ones)

    @property
    def secret_paths(self) -> list[str]:
        """Paths of this machine that no answer may name, longest first."""
        paths = {str(path) for path in self._paths} | {str(path.resolve()) for path in self._paths}
        with self._lock:
            roots = {version.root for snapshot in self._open_ones for version in snapshot.versions}
        paths |= {str(root) for root in roots if root is not None}
        return sorted((path for path in paths if len(path) > 1), key=len, reverse=True)

    def add_listener(self, listener: Listener) -> None:
        """Notify a listener of the current version now, and of those that follow."""
        self._listeners.append(listener)
        listener.swapped(self._current)

    @contextmanager
    def acquire(self) -> Iterator[Snapshot]:
        """Hold the current version open for the length of a block."""
        with self._lock:
            snapshot = self._current
            snapshot.users += 1
        try:
            yield snapshot
        finally:
            with self._lock:
                snapshot.users -= 1
                unused = snapshot.retired and not snapshot.users
            if unused:
                self._close(snapshot)

    def follow(self) -> bool:
        """Make a newly published version the current one; return whether there was one.

        Called from one thread at a time. A version that cannot be opened is reported once, and not tried again.
        """
        try:
            pointer = None if self._pinned else read_pointer(self._paths[0])
            if pointer == self._pointer:
                self._failed = None  # gone back to
            if pointer is None or pointer in (self._pointer, self._refused):
                return False
            self._refused = pointer
            self._pointer, snapshot = self._open()
        except (TwinlensError, OSError, MemoryError) as error:
            self._failed = self._refused
            log.warning("version %d stays current: %s", self._current.number, error)
            for listener in self._listeners:
                listener.failed()
            return False
        self._refused = self._failed = None
        self._replace(snapshot)
        return True

    def close(self) -> None:
        """Close every version; those that requests hold when they are done."""
        with self._lock:
            self._current.retired = True
            idle = [one for one in self._open_ones if not one.users]
        for snapshot in idle:
            self._close(snapshot)

    def _replace(self, snapshot: Snapshot) -> None:
        with self._lock:
            old, self._current = self._current, snapshot
            self._open_ones.add(snapshot)
            old.retired = True
            unused = not old.users
        log.info("version %d is current, after %d", snapshot.number, old.number)
        for listener in self._listeners:
            listener.swapped(snapshot)
        if unused:
            self._close(old)

    def _close(self, snapshot: Snapshot) -> None:
        with self._lock:
            if snapshot not in self._open_ones:
                return
            self._open_ones.discard(snapshot)
        snapshot.close()

    def _open(self) -> tuple[Pointer | None, Snapshot]:
        if self._pinned:
            pairs = zip(self._paths, self._pinned, strict=True)
            return None, self._snapshot([IndexStore.open(path).open_version(one, verify="size") for path, one in pairs])
        (path,) = self._paths
        store = IndexStore.open(path)
        while True:
            pointer = read_pointer(path)
            version = store.open_version(verify=self._settings.verify)
            if read_pointer(path) == pointer:
                break
            version.close()  # published meanwhile
        snapshot = self._snapshot([version])
        try:
            snapshot.versions[0].warm()
        except BaseException:
            snapshot.close()
            raise
        return pointer, snapshot

    def _snapshot(self, versions: Sequence[IndexVersion]) -> Snapshot:
        try:
            encoding = self._encoding(versions[0])
            self._check(encoding)
        except BaseException:
            for version in versions:
                version.close()
            raise
        names = [path.resolve().name for path in self._paths]
        opened = [
            OpenVersion(version, encoding.query_encoder, name, self._settings.root)
            for version, name in zip(versions, names, strict=True)
        ]
        return Snapshot(opened, encoding)

    def _encoding(self, version: IndexVersion) -> Encoding:
        """Return what encodes the queries of a version: the same for all that were made alike, since it knows texts.

        Raises:
            EncoderMismatchError: An encoder was given and is not the one that made the index.
        """
        prompt = version.manifest.encoding.prompt
        key = self._encoder_key(version.manifest.encoder)
        before = self._last
        if before and (before.key, before.query_encoder.prompt, before.query_encoder.dim) == (key, prompt, version.dim):
            return before
        # Another prompt needs no other encoder.
        there = self._given or (before.query_encoder.loaded if before and before.key == key else None)
        choice = EncoderChoice(
            encoder=there or self._settings.encoder,
            device=self._settings.device,
            precision=self._settings.precision,
            kept_texts=_KEPT_TEXTS,
        )
        query_encoder = QueryEncoder.of(choice, version, self.name)
        return Encoding(query_encoder, key, loaded=there is not None)

    def _check(self, encoding: Encoding) -> None:
        """Load, before a version is served, an encoder that was asked for by name, or that follows one that worked.

        Raises:
            ServerError: It cannot be loaded, or is not the one that made the index.
        """
        needed = self._settings.encoder is not None or (
            self._last is not None and self._last.state in ("ready", "loading")
        )
        if needed and (problem := encoding.prepare()):
            raise ServerError(f"texts cannot be encoded: {problem}")
        self._last = encoding

    def _encoder_key(self, info: EncoderInfo | None) -> str:
        """Return what names the encoder of a version; empty where nobody knows it."""
        if info is not None and info.fingerprint is not None:
            return info.fingerprint
        return getattr(self._given, "fingerprint", "") or self._settings.encoder or ""


def check_index(path: Path) -> None:
    """Refuse early what cannot be an index, before anything expensive is imported.

    Raises:
        ServerError: The path is a file.
        IndexNotFoundError: There is no index.
    """
    if path.is_file():
        raise ServerError(f"{str(path)!r} is a file and no index; give the folder that build-index made")
    IndexStore.open(path)
