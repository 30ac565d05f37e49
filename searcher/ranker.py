"""Ranking: the rows of a collection nearest to query vectors, by candidates and an exact re-rank, or all compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.exact_search import exact_search
from storage.lru import Lru
from storage.schema import COLLECTIONS, Collection, CollectionInfo, Direction

from .errors import SearchError
from .filters import Filters, RowIds
from .operating_points import Choice, choose
from .pages import Ranking
from .query_encoder import Vectors
from .request import SearchRequest

if TYPE_CHECKING:
    from storage.version import IndexVersion

_KEPT_CHOICES = 1024


class Ranker:
    """Ranks the rows of an open version, whose filters and choices of settings it remembers. Safe from many threads."""

    def __init__(self, version: IndexVersion, location: str) -> None:
        """Rank in an open version, which stays its owner's; `location` is how errors name the index."""
        self.filters = Filters(version.catalog)
        self._version = version
        self._location = location
        self._choices: Lru[tuple[Any, ...], Choice] = Lru(_KEPT_CHOICES)

    def rank(self, into: Collection, direction: Direction | None, queries: Vectors, request: SearchRequest) -> Ranking:
        """Return the best `k` rows of each query (n, dim) by exact cosine, found as the request and the plan say.

        Raises:
            SearchError: There is no such collection, or the filter cannot be used.
        """
        info = self.info(into)
        rows = None if request.where is None else self.filters.rows(into, request.where)
        choice = self._choose(into, direction, request, None if rows is None else len(rows))
        k = min(request.k, info.rows if rows is None else len(rows))
        vectors = self._version.vectors(into)
        if choice.exact:
            ids, scores = exact_search(vectors, queries, k, rows)
        else:
            setting = {"nprobe": choice.nprobe, "oversample": choice.oversample}
            ids, scores = self._version.ann(into).search(queries, k, rows=rows, **setting)
            if rows is not None and not _all_in(ids, rows):
                ids, scores = exact_search(vectors, queries, k, rows)
        # Rounding to float16 leaves lengths of 1 +- 0.0003; a cosine is at most 1 all the same.
        np.minimum(scores, 1, out=scores)
        if (low := scores < -1).any():
            scores[low & (ids >= 0)] = -1
        return Ranking(ids, scores, choice)

    def _choose(
        self, into: Collection, direction: Direction | None, request: SearchRequest, filtered_rows: int | None
    ) -> Choice:
        """`choose`, remembered: it takes as long as the re-rank of a query, and the same is asked again and again."""
        key = (into, direction, request.k, request.ann_recall, request.nprobe, request.oversample, request.exact)
        choice = self._choices.get(key) if filtered_rows is None else None
        if choice is None:
            choice = choose(self.info(into), direction, request, filtered_rows)
            if filtered_rows is None:
                self._choices.put(key, choice)
        return choice

    def info(self, into: Collection) -> CollectionInfo:
        """Return what the manifest says of a collection.

        Raises:
            SearchError: There is no such collection.
        """
        collections = self._version.manifest.collections
        if into not in collections:
            held = " and ".join(f"{collections[name].rows} {name}" for name in COLLECTIONS if name in collections)
            raise SearchError(
                f"the index {self._location} has no {into}, it has {held}; search those, or build it with {into}"
            )
        return collections[into]


def _all_in(ids: NDArray[np.int64], rows: RowIds) -> bool:
    """Whether every id but the padding is among `rows`, which ascend."""
    return bool(np.isin(ids[ids >= 0], rows).all())
