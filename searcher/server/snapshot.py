"""Snapshots: what one request sees of an index, or of several that are searched as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from storage.errors import SearchParameterError
from storage.exact_search import Vectors
from storage.lru import Lru
from storage.schema import TARGETS, Collection
from storage.version import IndexVersion
from storage.where import check_predicate

from ..errors import FilterError, ItemNotFoundError
from ..originals import corpus_root, image_source
from ..query import QueryPart, ResolvedQuery
from ..query_encoder import QueryEncoder
from ..searcher import Searcher
from ..sorting import check_sort
from .browse import Overview, overview
from .encoding import Encoding

# Where an item's file lies is nobody's business outside: neither shown nor to be found out by a filter.
HIDDEN_COLUMNS = frozenset({"uri"})
# Of use to filters; for people to read they only hide the rest.
DULL_COLUMNS = frozenset({"row_id", "item_id", "caption", "sha256", "file_bytes", "mtime_ns", "perceptual_hash"})
_KEPT_ROWS = 8_192
_IS_DATED = "taken_at IS NOT NULL"

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


class OpenVersion:
    """One version of one index, its searcher, and look-ups in its catalog. Safe from many threads.

    Attributes:
        name: Of the index, without where it lies.
        number: Of the version.
        searcher: Answers queries on it, and owns it.
        root: The folder that the images' paths are relative to.
        root_is_given: Whether the operator named that folder; else the index did.
    """

    def __init__(self, version: IndexVersion, encoder: QueryEncoder, name: str, root: Path | None = None) -> None:
        """Take an open version over."""
        self.name = name
        self.number = version.number
        self.searcher = Searcher(version, encoder, name)
        self.root = corpus_root(version.manifest.corpus, root)
        self.root_is_given = root is not None
        self._version = version
        self._lock = Lock()
        self._pairs: dict[Collection, Pairs] = {}

    def count(self, collection: Collection) -> int:
        """Return how many items a collection holds; 0 where there is none."""
        info = self.searcher.manifest.collections.get(collection)
        return info.rows if info else 0

    def columns(self, collection: Collection) -> list[tuple[str, str]]:
        """Return name and SQL type of the columns that a caller may see and filter by."""
        return [(name, kind) for name, kind in self._version.catalog.columns(collection) if name not in HIDDEN_COLUMNS]

    @cached_property
    def dated(self) -> frozenset[Collection]:
        """The collections of which any item says when it was taken."""
        catalog = self._version.catalog
        return frozenset(
            name
            for name in self.searcher.collections
            if ("taken_at", "TIMESTAMP") in catalog.columns(name) and len(catalog.filter_rows(name, _IS_DATED))
        )

    @cached_property
    def overview(self) -> Overview:
        """What there is to browse by."""
        return overview(self._version)

    def has_path_ids(self) -> bool:
        """Whether an item id is an absolute path, as tables of absolute paths without ids of their own make them."""
        condition = "starts_with(item_id, '/') OR regexp_matches(item_id, '^[A-Za-z]:')"
        return any(len(self._version.catalog.filter_rows(name, condition)) for name in self.searcher.collections)

    def check_filter(self, collection: Collection, where: str) -> None:
        """Check that a caller may use a filter, without evaluating it.

        Raises:
            FilterError: It is no condition on columns that callers may see.
        """
        names = [name for name, _ in self.columns(collection)]
        try:
            check_predicate(where, names, self._version.catalog.parse_predicate)
        except SearchParameterError as error:
            raise FilterError(str(error)) from error

    def entries(self, collection: Collection, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return what the catalog knows of these rows, hidden columns included: for the server's own use."""
        return self._version.catalog.rows(collection, rows)

    def vectors(self, collection: Collection) -> Vectors:
        """The stored vectors of a collection."""
        return self._version.vectors(collection)

    def partners(self, collection: Collection, row: int) -> list[int]:
        """Return the rows of the other collection that belong to an item by the corpus itself, ascending."""
        with self._lock:
            if not self._pairs:
                self._pairs = _sorted_pairs(self._version)
        items, others = self._pairs[collection]
        first, last = np.searchsorted(items, [row, row + 1])
        return cast("list[int]", np.sort(others[first:last]).tolist())

    def warm(self) -> None:
        """Do once what the first query would wait for: load the approximate indexes, touch the catalog."""
        vector = np.ones((1, self._version.dim), dtype=np.float32)
        for direction, into in TARGETS.items():
            if into in self.searcher.collections:
                getattr(self.searcher, direction)(vector, 1)
                self._version.vectors(into).find([""])
        _ = self.dated
        _ = self.overview


def _sorted_pairs(version: IndexVersion) -> dict[Collection, Pairs]:
    table = version.catalog.table("pairs")
    sides = {"images": table.column("image_row").to_numpy(), "texts": table.column("text_row").to_numpy()}
    pairs: dict[Collection, Pairs] = {}
    for name, other in (("images", "texts"), ("texts", "images")):
        order = np.argsort(sides[name], kind="stable")
        pairs[cast("Collection", name)] = (sides[name][order], sides[other][order])
    return pairs


class Snapshot:
    """What one request sees: an open version, or one of each of several indexes. Safe from many threads.

    Rows count through all versions: those of the second begin where those of the first end.

    Attributes:
        versions: Each index's version.
        number: Of the version; the highest of several.
        encoding: From queries to vectors.
        users: Requests that hold it.
        retired: Whether it is to be closed when nobody holds it any more.
    """

    def __init__(self, versions: Sequence[OpenVersion], encoding: Encoding) -> None:
        self.versions = tuple(versions)
        self.number = max(version.number for version in versions)
        self.encoding = encoding
        self.users = 0
        self.retired = False
        self._rows: Lru[tuple[Collection, str], int] = Lru(_KEPT_ROWS)
        self._first: dict[Collection, dict[str, Any]] = {}

    @property
    def searcher(self) -> Searcher:
        """The searcher of the only version, or of the first."""
        return self.versions[0].searcher

    @property
    def collections(self) -> tuple[Collection, ...]:
        """The halves that the index has."""
        return self.searcher.collections

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.encoding.query_encoder.dim

    @cached_property
    def identity(self) -> bytes:
        """A digest that snapshots share where their indexes hold the same, whatever their names."""
        files = [sorted(version.searcher.manifest.files.items()) for version in self.versions]
        sums = [[(name, entry.sha256) for name, entry in one] for one in files]
        return sha256(repr(sums).encode()).digest()

    @property
    def location(self) -> str:
        """The index's name, for messages."""
        return self.versions[0].name

    def count(self, collection: Collection) -> int:
        """Return how many items a collection holds; 0 where there is none."""
        return sum(version.count(collection) for version in self.versions)

    def columns(self, collection: Collection) -> list[tuple[str, str]]:
        """Return name and SQL type of the columns that a caller may see and filter by."""
        return self.versions[0].columns(collection)

    @property
    def has_words(self) -> bool:
        """Whether words can be looked up in every version."""
        return all(version.searcher.manifest.has_words for version in self.versions)

    @property
    def overview(self) -> Overview:
        """What there is to browse by; nothing where several indexes are searched as one."""
        return self.versions[0].overview if len(self.versions) == 1 else Overview()

    def rows_where(self, collection: Collection, where: str) -> NDArray[np.int64]:
        """Return the rows that pass a filter, ascending, where one index is searched; none where there are several.

        Raises:
            SearchError: As of `prepare_filter`.
        """
        if len(self.versions) > 1:
            self.check_filter(collection, where)
            return np.empty(0, dtype=np.int64)
        return self.searcher.rows_where(collection, where, hidden=HIDDEN_COLUMNS)

    def is_dated(self, collection: Collection) -> bool:
        """Whether any item of a collection says when it was taken."""
        return any(collection in version.dated for version in self.versions)

    def has_path_ids(self) -> bool:
        """Whether an item id is an absolute path."""
        return any(version.has_path_ids() for version in self.versions)

    def has_filter(self, collection: Collection, where: str) -> bool:
        """Whether a filter was prepared lately: a search with it then takes no longer than one without."""
        return self.searcher.has_filter(collection, where)

    def prepare_filter(self, collection: Collection, where: str) -> None:
        """Check that a caller may use a filter, and evaluate it, which may take seconds.

        Raises:
            SearchError: It is no condition on columns that callers may see, or cannot be evaluated.
        """
        self.searcher.rows_where(collection, where, hidden=HIDDEN_COLUMNS)

    def check_sort(self, collection: Collection, sort: str | None) -> None:
        """Check that a caller may sort by a column.

        Raises:
            SearchError: There is no such column that callers may see.
        """
        check_sort(sort, [name for name, _ in self.columns(collection)], collection)

    def check_filter(self, collection: Collection, where: str) -> None:
        """Check that a caller may use a filter that is evaluated elsewhere.

        Raises:
            FilterError: It is no condition on columns that callers may see.
        """
        if collection in self.collections:
            self.versions[0].check_filter(collection, where)

    def find(self, item_id: str, collection: Collection | None = None) -> tuple[Collection, int]:
        """Return the collection and the row of an item: among the images first, where no collection is named.

        Raises:
            ItemNotFoundError: There is no such item.
        """
        for name in (collection,) if collection else self.collections:
            if (row := self.known_row(name, item_id)) is not None:
                return name, row
        missing: ItemNotFoundError | None = None
        for position, version in enumerate(self.versions):
            try:
                half, row = version.searcher.find_item(item_id, collection)
            except ItemNotFoundError as error:
                missing = missing or error
                continue
            row += self.offset(half, position)
            self.remember(half, [item_id], [row])
            return half, row
        raise missing or ItemNotFoundError(f"there is no item {item_id[:200]!r}")

    def known_row(self, collection: Collection, item_id: str) -> int | None:
        """Return the row of an item that was found or shown lately; None for any other."""
        return self._rows.get((collection, item_id))

    def remember(self, collection: Collection, item_ids: Sequence[str], rows: Sequence[int]) -> None:
        """Keep where items are: what was just shown is what will be asked for."""
        for item_id, row in zip(item_ids, rows, strict=True):
            self._rows.put((collection, item_id), row)

    def item_query(self, part: QueryPart) -> ResolvedQuery:
        """Return an item of the index as a query.

        Raises:
            QueryError: There is no such item, or it is of another modality than the request says.
        """
        collection, row = self.find(part.content, part.collection)
        position, local_row = self._locate(collection, row)
        query = self.versions[position].searcher.item_query(part, collection, local_row)
        return query._replace(row=(collection, row))

    def entries(self, collection: Collection, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return what the catalogs know of these rows, hidden columns included: for the server's own use."""
        if len(self.versions) == 1:
            return self.versions[0].entries(collection, rows)
        entries: dict[int, dict[str, Any]] = {}
        for position, version in enumerate(self.versions):
            local = {
                row: self._locate(collection, row)[1] for row in rows if self._locate(collection, row)[0] == position
            }
            for row, entry in zip(local, version.entries(collection, list(local.values())), strict=True):
                entries[row] = {**entry, "row_id": row}
        return [entries[row] for row in rows]

    def vectors(self, collection: Collection) -> Vectors:
        """The stored vectors of a collection, where one index is searched, or of the first of several."""
        return self.versions[0].vectors(collection)

    def first(self, collection: Collection) -> dict[str, Any]:
        """Return the first item of a collection: values to show as examples."""
        if collection not in self._first:
            (self._first[collection],) = self.entries(collection, [0])
        return self._first[collection]

    def partners(self, collection: Collection, row: int) -> list[int]:
        """Return the rows of the other collection that belong to an item by the corpus itself, ascending."""
        position, local_row = self._locate(collection, row)
        start = self.offset("texts" if collection == "images" else "images", position)
        return [start + partner for partner in self.versions[position].partners(collection, local_row)]

    def image_source(self, row: int, uri: str | None) -> Path | bytes | None:
        """Return the file of an image, or its bytes out of an archive; None where the index names none."""
        return image_source(uri, self.versions[self._locate("images", row)[0]].root)

    def may_show(self, row: int, uri: str | None) -> bool:
        """Whether an image lies below the folder that the operator named: then it is shown whatever it is by now."""
        version = self.versions[self._locate("images", row)[0]]
        if not version.root_is_given or version.root is None or not uri:
            return False
        return not Path(uri).is_absolute() or Path(uri).is_relative_to(version.root.absolute())

    def offset(self, collection: Collection, position: int) -> int:
        """Return the row that the rows of a version begin with."""
        return sum(version.count(collection) for version in self.versions[:position])

    def close(self) -> None:
        """Wait for running searches and close the files."""
        for version in self.versions:
            version.searcher.close()

    def _locate(self, collection: Collection, row: int) -> tuple[int, int]:
        """Return which version a row is of, and its number there."""
        position = 0
        while row >= (count := self.versions[position].count(collection)):
            position, row = position + 1, row - count
        return position, row
