"""The index as it is now: a newly published version takes over without a request being lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from storage.errors import TwinlensError
from storage.pointer import Pointer, read_pointer
from storage.store import IndexStore

from .errors import ServerError
from .generation import Generation
from .settings import ServerSettings

if TYPE_CHECKING:
    from encoders import Encoder
    from storage.spec import EncoderInfo
    from storage.version import IndexVersion

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who wants to know of versions coming and failing."""

    def swapped(self, generation: Generation) -> None:
        """A version was put in front."""

    def failed(self) -> None:
        """A version was published and cannot be opened."""


class LiveIndex:
    """Holds the current version open, and follows CURRENT.

    A request borrows a version for its whole length; a version that was replaced is closed when its last request is
    done. Where a new version cannot be opened the old one stays. Safe from many threads.
    """

    def __init__(self, path: Path, settings: ServerSettings, encoder: Encoder | None = None) -> None:
        """Open the current version.

        Args:
            path: The folder of the index.
            settings: How to open it.
            encoder: An encoder that is there already; by default the one that the settings or the index name.

        Raises:
            TwinlensError: There is no index, a file is damaged, or the encoder cannot be loaded or is another one.
        """
        self._path = path
        self._settings = settings
        self._given = encoder
        self._encoders: dict[str, Encoder] = {}
        self._lock = Lock()
        self._listeners: list[Listener] = []
        self._refused: Pointer | None = None
        self._pointer, self._current = self._open()
        self._open_ones = {self._current}

    @property
    def name(self) -> str:
        """The index's name, without where it lies."""
        return self._path.resolve().name

    @property
    def current(self) -> Generation:
        """The version in front. To search it, `borrow` it."""
        return self._current

    @property
    def open_versions(self) -> list[int]:
        """The numbers of the versions that are open: the one in front, and those that requests still hold."""
        with self._lock:
            return sorted(one.number for one in self._open_ones)

    @property
    def secrets(self) -> list[str]:
        """Places on this machine that no answer may name, longest first."""
        places = {str(self._path), str(self._path.resolve())}
        with self._lock:
            places |= {str(one.root) for one in self._open_ones if one.root is not None}
        return sorted((place for place in places if len(place) > 1), key=len, reverse=True)

    def tell(self, listener: Listener) -> None:
        """Add one who is told of versions."""
        self._listeners.append(listener)
        listener.swapped(self._current)

    @contextmanager
    def borrow(self) -> Iterator[Generation]:
        """Hold the version in front open for the length of a block."""
        with self._lock:
            generation = self._current
            generation.users += 1
        try:
            yield generation
        finally:
            with self._lock:
                generation.users -= 1
                over = generation.retired and not generation.users
            if over:
                self._close(generation)

    def follow(self) -> bool:
        """Put a newly published version in front; return whether there was one.

        Called from one thread at a time. A version that cannot be opened is reported once, and not tried again.
        """
        try:
            pointer = read_pointer(self._path)
            if pointer is None or pointer in (self._pointer, self._refused):
                return False
            self._refused = pointer
            self._pointer, generation = self._open()
        except (TwinlensError, OSError, MemoryError) as error:
            log.warning("version %d stays in front: %s", self._current.number, error)
            for listener in self._listeners:
                listener.failed()
            return False
        self._refused = None
        self._replace(generation)
        return True

    def close(self) -> None:
        """Close every version; borrowed ones when they are given back."""
        with self._lock:
            self._current.retired = True
            idle = [one for one in self._open_ones if not one.users]
        for generation in idle:
            self._close(generation)

    def _replace(self, generation: Generation) -> None:
        with self._lock:
            old, self._current = self._current, generation
            self._open_ones.add(generation)
            old.retired = True
            over = not old.users
        log.info("version %d is in front, after %d", generation.number, old.number)
        for listener in self._listeners:
            listener.swapped(generation)
        if over:
            self._close(old)

    def _close(self, generation: Generation) -> None:
        with self._lock:
            if generation not in self._open_ones:
                return
            self._open_ones.discard(generation)
        generation.close()

    def _open(self) -> tuple[Pointer | None, Generation]:
        store = IndexStore.open(self._path)
        while True:
            pointer = read_pointer(self._path)
            version = store.open_version(verify=self._settings.verify)
            if read_pointer(self._path) == pointer:
                break
            version.close()  # published meanwhile
        try:
            generation = Generation(version, self._encoder(version), self.name, self._settings.root)
            generation.warm()
        except BaseException:
            version.close()
            raise
        return pointer, generation

    def _encoder(self, version: IndexVersion) -> Encoder | None:
        """Return the encoder for a version, loaded once for all versions that it made."""
        if self._given is not None:
            return self._given
        spec = self._settings.encoder or _known_spec(version.manifest.encoder)
        if spec is None:
            return None
        key = spec if version.manifest.encoder is None else version.manifest.encoder.fingerprint or spec
        if key not in self._encoders:
            from encoders import load_encoder  # only a server with an encoder pays for importing one

            # Versions of another encoder, should any still be in use, hold theirs.
            self._encoders = {key: load_encoder(spec, self._settings.device, self._settings.precision)}
        return self._encoders[key]


def _known_spec(info: EncoderInfo | None) -> str | None:
    return info.spec if info is not None and info.fingerprint is not None else None


def check_index(path: Path) -> None:
    """Refuse early what cannot be an index, before anything expensive is imported.

    Raises:
        ServerError: The path is a file.
        IndexNotFoundError: There is no index.
    """
    if path.is_file():
        raise ServerError(f"{str(path)!r} is a file and no index; give the folder that build-index made")
    IndexStore.open(path)
