"""The index as it is now: a newly published version takes over without a request being lost."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from storage.errors import TwinlensError
from storage.publish import Pointer, read_pointer
from storage.schema import COLLECTIONS, TARGETS, Collection
from storage.store import IndexStore
from storage.version import IndexVersion

from ..filters import check_predicate
from ..query_encoder import Embedder, EncoderChoice
from ..render.image_files import corpus_root
from ..searcher import Searcher
from .errors import RefusedError, ServerError
from .settings import ServerSettings

if TYPE_CHECKING:
    from encoders import Encoder
    from storage.schema import EncoderInfo


# Where an item's file lies is nobody's business outside: neither shown nor to be found out by a filter.
HIDDEN_COLUMNS = frozenset({"uri"})
# Of use to filters; for people to read they only hide the rest.
DULL_COLUMNS = frozenset({"row_id", "item_id", "caption", "sha256", "file_bytes", "mtime_ns"})
_KEPT_ROWS = 8_192
# Fewer than the searcher keeps, so that what is remembered here is still there.
_KEPT_FILTERS = 12


class Generation:
    """A version, its searcher, and the encoder that fits it. Safe from many threads.

    Attributes:
        number: Of the version.
        searcher: Answers queries on it, and owns it.
        encoder: What queries are encoded with; None where the index does not know its encoder and none was given.
        embedder: From texts to vectors of this index.
        root: The folder that the pictures' places are relative to.
    """

    def __init__(self, version: IndexVersion, encoder: Encoder | None, place: str, root: Path | None = None) -> None:
        """Take an open version over.

        Raises:
            EncoderMismatchError: The encoder is not the one that made the version.
        """
        self.number = version.number
        self.encoder = encoder
        choice = EncoderChoice(encoder=encoder)
        self.searcher = Searcher(version, choice, place)
        manifest = version.manifest
        prompt = manifest.encoding.prompt
        self.embedder = Embedder(choice, manifest.encoder, version.dim, place, prompt=prompt)
        self.root = corpus_root(manifest.corpus, root)
        self.dim = version.dim
        self.place = place
        self._version = version
        self._lock = Lock()
        self._rows: OrderedDict[tuple[Collection, str], int] = OrderedDict()
        self._pairs: dict[Collection, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._filters: OrderedDict[tuple[Collection, str], None] = OrderedDict()
        self._first: dict[Collection, dict[str, Any]] = {}
        self.users = 0
        self.retired = False

    @property
    def collections(self) -> tuple[Collection, ...]:
        """The halves that the version has."""
        return self.searcher.collections

    @property
    def text_key(self) -> tuple[str, str]:
        """Versions with the same key turn a text into the same vector."""
        return (self.encoder.fingerprint if self.encoder else "", self.searcher.manifest.encoding.prompt or "")

    def count(self, collection: Collection) -> int:
        """Return how many items a collection holds; 0 where there is none."""
        info = self.searcher.manifest.collections.get(collection)
        return info.rows if info else 0

    def warm(self) -> None:
        """Do once what the first query would wait for: load the approximate indexes, touch the catalog."""
        vector = np.ones((1, self.dim), dtype=np.float32)
        for direction, into in TARGETS.items():
            if into in self.collections:
                getattr(self.searcher, direction)(vector, 1)
                self.first(into)
                self._row(into, "")

    def columns(self, collection: Collection) -> list[tuple[str, str]]:
        """Return name and SQL type of the columns that a caller may see and filter by."""
        return [(name, kind) for name, kind in self._version.catalog.columns(collection) if name not in HIDDEN_COLUMNS]

    def has_path_ids(self) -> bool:
        """Whether an item id is an absolute path, as tables of absolute paths without ids of their own make them."""
        condition = "starts_with(item_id, '/') OR regexp_matches(item_id, '^[A-Za-z]:')"
        return any(len(self._version.catalog.filter_rows(name, condition)) for name in self.collections)

    def knows_filter(self, collection: Collection, where: str) -> bool:
        """Whether a filter was prepared lately: a search with it then takes no longer than one without."""
        with self._lock:
            return (collection, where) in self._filters

    def prepare_filter(self, collection: Collection, where: str) -> None:
        """Check that a caller may use a filter, and evaluate it, which may take seconds.

        Raises:
            FilterError: It is no condition on columns that callers may see, or cannot be evaluated.
        """
        if collection in self.collections:
            names = [name for name, _ in self.columns(collection)]
            check_predicate(where, names, self._version.catalog.parse_predicate)
        # The searcher keeps the rows that pass the last filters.
        self.searcher.search_vectors(collection, np.ones(self.dim, dtype=np.float32), 1, where=where)
        with self._lock:
            self._filters[collection, where] = None
            while len(self._filters) > _KEPT_FILTERS:
                self._filters.popitem(last=False)

    def find(self, item_id: str, collection: Collection | None = None) -> tuple[Collection, int]:
        """Return the collection and the row of an item: among the images first, where no collection is named.

        Raises:
            RefusedError: 404, there is no such item.
        """
        for name in (collection,) if collection else COLLECTIONS:
            row = self._row(name, item_id) if name in self.collections else -1
            if row >= 0:
                return name, row
        where = collection or " or ".join(self.collections)
        raise RefusedError(404, f"there is no item {item_id[:200]!r} among the {where} of this index")

    def _row(self, collection: Collection, item_id: str) -> int:
        key = (collection, item_id)
        with self._lock:
            known = self._rows.get(key)
        if known is not None:
            return known
        try:
            row = int(self._version.vectors(collection).find([item_id])[0])
        except UnicodeEncodeError:
            return -1  # half of a surrogate pair: no id of ours
        if row >= 0:
            self.remember(collection, [item_id], [row])
        return row

    def remember(self, collection: Collection, item_ids: Sequence[str], rows: Sequence[int]) -> None:
        """Keep where items are: what was just shown is what will be asked for."""
        with self._lock:
            for item_id, row in zip(item_ids, rows, strict=True):
                self._rows[collection, item_id] = row
            while len(self._rows) > _KEPT_ROWS:
                self._rows.popitem(last=False)

    def vector(self, collection: Collection, row: int) -> NDArray[np.float32]:
        """Return the stored vector of a row, (dim,)."""
        found: NDArray[np.float32] = self._version.vectors(collection).gather(np.array([row]))[0].astype(np.float32)
        return found

    def entries(self, collection: Collection, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return what the catalog knows of these rows, hidden columns included: for the server's own use."""
        return self._version.catalog.rows(collection, rows)

    def first(self, collection: Collection) -> dict[str, Any]:
        """Return the first item of a collection: values to show as examples."""
        if collection not in self._first:
            (self._first[collection],) = self.entries(collection, [0])
        return self._first[collection]

    def partners(self, collection: Collection, row: int) -> list[int]:
        """Return the rows of the other collection that belong to an item by the corpus itself, ascending."""
        with self._lock:
            if not self._pairs:
                self._pairs = _sorted_pairs(self._version)
        own, other = self._pairs[collection]
        first, last = np.searchsorted(own, [row, row + 1])
        return cast("list[int]", np.sort(other[first:last]).tolist())

    def close(self) -> None:
        """Let go of the files."""
        self.searcher.close()


def _sorted_pairs(version: IndexVersion) -> dict[Collection, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    table = version.catalog.table("pairs")
    sides = {"images": table.column("image_row").to_numpy(), "texts": table.column("text_row").to_numpy()}
    found: dict[Collection, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for name, other in (("images", "texts"), ("texts", "images")):
        order = np.argsort(sides[name], kind="stable")
        found[cast("Collection", name)] = (sides[name][order], sides[other][order])
    return found


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
            from encoders import load_encoder

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
