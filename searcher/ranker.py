"""Ranking: the rows of a collection nearest to query vectors, by candidates and an exact re-rank, or all compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.exact_search import exact_search
from storage.lru import Lru
from storage.schema import COLLECTIONS, TARGETS, Collection, CollectionInfo, Direction

from .errors import SearchError
from .filters import Filters, RowIds
from .hybrid import fused, needed_words, ranked_by_words
from .operating_points import NOT_WIDENED, Choice, choose
from .pages import Ranking
from .query_encoder import Vectors
from .request import SearchRequest

if TYPE_CHECKING:
    from storage.version import IndexVersion

_KEPT_CHOICES = 1024
_SAMPLED = 4096


class Ranker:
    """Ranks the rows of an open version, whose filters and choices of settings it remembers. Safe from many threads."""

    def __init__(self, version: IndexVersion, location: str) -> None:
        """Rank in an open version, which stays its owner's; `location` is how errors name the index."""
        self.filters = Filters(version.catalog)
        self._version = version
        self._location = location
        self._samples: dict[Collection, Vectors] = {}
        self._choices: Lru[tuple[Any, ...], Choice] = Lru(_KEPT_CHOICES)
        # Replaced and never changed, so that one search sees one state of it.
        self._widened: Mapping[Direction, int] = NOT_WIDENED

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
        # Rounding to float16 leaves lengths of 1 +- 0.0003; a cosine is at most 1 all the same. Best come first.
        if not _within(scores):
            np.minimum(scores, 1, out=scores)
            scores[(scores < -1) & (ids >= 0)] = -1
        return Ranking(ids, scores, choice)

    def ranking(
        self, into: Collection, direction: Direction | None, queries: Vectors | None, request: SearchRequest, count: int
    ) -> Ranking:
        """Return the best `k` rows of each of `count` queries: by vectors (n, dim), words, or both."""
        if queries is None or request.words is not None:
            return self.rank_words(into, direction, queries, request, count)
        return self.rank(into, direction, queries, request)

    def rank_words(
        self, into: Collection, direction: Direction | None, queries: Vectors | None, request: SearchRequest, count: int
    ) -> Ranking:
        """Return the rows that have the request's words: by those alone, or with the vectors of queries (n, dim).

        Args:
            into: The collection.
            direction: As in `rank`.
            queries: None where there are only words.
            request: Has `words`.
            count: How many queries.

        Raises:
            SearchError: There is no such collection, it has no lexical index, or the filter cannot be used.
        """
        self.info(into)
        index = needed_words(self._version.words(into), self._location)
        rows = None if request.where is None else self.filters.rows(into, request.where)
        words = request.words or ""
        matches = index.search(words, rows)
        if queries is None:
            return ranked_by_words(matches, count, request.k)
        ranking = self.rank(into, direction, queries, request)
        most = sum(index.idf(words).values())
        return fused(ranking, matches, most, queries, self.spread(into, queries), self._version.vectors(into))

    def spread(self, into: Collection, vectors: Vectors) -> NDArray[np.float32]:
        """Return the standard deviation of the cosines of each vector (n, dim) over some thousand items."""
        sample = self._samples.get(into)
        if sample is None:
            table = self._version.vectors(into)
            rows = np.arange(0, table.rows, max(1, table.rows // _SAMPLED))
            sample = self._samples[into] = table.gather(rows).astype(np.float32)
        spread: NDArray[np.float32] = np.std(sample @ vectors.T, axis=0)
        return spread

    def _choose(
        self, into: Collection, direction: Direction | None, request: SearchRequest, filtered_rows: int | None
    ) -> Choice:
        """`choose`, remembered: it takes as long as the re-rank of a query, and the same is asked again and again."""
        widened = self._widened
        asked = (request.k, request.ann_recall, request.nprobe, request.oversample, request.exact)
        key = (into, direction, *asked, sum(widened.values()))
        choice = self._choices.get(key) if filtered_rows is None else None
        if choice is None:
            choice = choose(self.info(into), direction, request, filtered_rows, widened)
            if (rounding := self._version.manifest.rounding.get(into)) is not None:
                choice = replace(choice, score_within=rounding.within)
            if filtered_rows is None:
                self._choices.put(key, choice)
        return choice

    def widen(self, direction: Direction) -> int:
        """Take the next wider operating point in a direction from now on; return how many times that was done."""
        steps = self._widened.get(direction, 0) + 1
        self._widened = {**self._widened, direction: steps}
        return steps

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


def check_direction(into: Collection, direction: Direction | None) -> None:
    """Refuse a collection that there is not, and a direction that searches another one.

    Raises:
        SearchError: The message names those that fit.
    """
    if into not in COLLECTIONS:
        raise SearchError(f"into={into!r} is no collection; give one of {', '.join(COLLECTIONS)}")
    if direction is not None and TARGETS.get(direction) != into:
        fitting = ", ".join(name for name, target in TARGETS.items() if target == into)
        raise SearchError(f"direction={direction!r} does not search {into}; give one of {fitting}")


def _all_in(ids: NDArray[np.int64], rows: RowIds) -> bool:
    """Whether every id but the padding is among `rows`, which ascend."""
    return bool(np.isin(ids[ids >= 0], rows).all())


def _within(scores: NDArray[np.float32]) -> bool:
    """Whether the first and the last score of each query are from -1 to 1."""
    if len(scores) == 1 and scores.shape[1]:  # a reduction of one number takes ten times as long
        return scores.item(0) <= 1 and scores.item(-1) >= -1
    return bool((scores[:, :1] <= 1).all() and (scores[:, -1:] >= -1).all())
