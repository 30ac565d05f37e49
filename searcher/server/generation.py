"""One open version of the index, with all that the server looks up in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from searcher.embedder import Embedder, EncoderChoice
from searcher.paths import corpus_root
from searcher.predicate import check_predicate
from searcher.search import Searcher
from storage.spec import COLLECTIONS, TARGETS, Collection
from storage.version import IndexVersion

from .errors import RefusedError

if TYPE_CHECKING:
    from encoders import Encoder

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
        prompt = (manifest.build.get("config") or {}).get("prompt")
        self.embedder = Embedder(choice, manifest.encoder, version.dim, place, prompt=prompt)
        self.root = corpus_root(manifest.build, root)
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
        config = self.searcher.manifest.build.get("config") or {}
        return (self.encoder.fingerprint if self.encoder else "", config.get("prompt") or "")

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
