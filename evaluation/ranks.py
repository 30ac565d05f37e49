"""At which rank each relevant item came: all that the metrics need to know of a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .relevance import Relevance

_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The ranks of the relevant items of those queries that have any; the others are only counted.

    Attributes:
        query: (p,) int64, ascending from 0; numbers the measured queries without gaps.
        asked: (n,) int64, ascending; which of all queries each measured one is.
        rank: (p,) float64, from 1, ascending within a query; inf where the ranking does not hold the item.
        gain: (p,) float64, the gain of the item at that rank.
        left_out: How many queries have no relevant item.
        depth: How many ranks of each query are known.
        graded: Whether gains other than 1 were asked for.
    """

    query: NDArray[np.int64]
    asked: NDArray[np.int64]
    rank: NDArray[np.float64]
    gain: NDArray[np.float64]
    left_out: int
    depth: int
    graded: bool

    @classmethod
    def of(cls, relevance: Relevance, rank: NDArray[np.float64], depth: int) -> Ranks:
        """Sort the rank of each line of `relevance` within its query.

        Raises:
            ValueError: No query has a relevant item.
        """
        if not len(rank):
            raise ValueError("no query has a relevant item, so there is nothing to measure")
        order = np.lexsort((rank, relevance.query))
        asked, query = np.unique(relevance.query, return_inverse=True)
        return cls(
            query=query,
            asked=asked,
            rank=rank[order],
            gain=relevance.gain[order],
            left_out=relevance.queries - len(asked),
            depth=depth,
            graded=relevance.graded,
        )

    @cached_property
    def totals(self) -> NDArray[np.int64]:
        """How many relevant items each measured query has, found or not; (n,), at least 1."""
        return np.bincount(self.query)

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """Which relevant item of its query each one is, from 1; (p,)."""
        return np.arange(1, len(self.query) + 1) - self._starts[self.query]

    @cached_property
    def first(self) -> NDArray[np.float64]:
        """The rank of the first relevant item of each measured query; (n,), inf where none was ranked."""
        return self.rank[self._starts]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.totals) - self.totals

    def add_up(self, values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sum one value for each relevant item to one for each measured query."""
        return np.asarray(np.bincount(self.query, weights=values), dtype=np.float64)


def ranks_in(ranked: NDArray[np.int64], relevance: Relevance) -> Ranks:
    """Look up each relevant item in rankings that are given.

    An item that a ranking holds twice counts at its first place; the second one still takes up a rank.

    Args:
        ranked: (nq, m) row ids, best first, padded with -1.
        relevance: The truth for the same nq queries.

    Raises:
        ValueError: The numbers of queries differ, or no query has a relevant item.
    """
    if ranked.ndim != 2 or len(ranked) != relevance.queries:
        rankings = f"{len(ranked)} rankings" if ranked.ndim == 2 else f"rankings of shape {ranked.shape}"
        raise ValueError(f"{rankings} and {relevance.queries} lists of relevant items; give one for each query")
    rank = np.full(len(relevance.query), np.inf)
    step = max(1, _BLOCK_VALUES // max(1, ranked.shape[1]))
    for start in range(0, len(ranked), step):
        part = relevance.part(start, start + step)
        rank[part] = _look_up(ranked[start : start + step], relevance.query[part] - start, relevance.item[part])
    return Ranks.of(relevance, rank, ranked.shape[1])


def _look_up(ranked: NDArray[np.int64], query: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the first rank of each item[i] in ranked[query[i]]; `query`, then `item` ascend."""
    rank = np.full(len(query), np.inf)
    if not len(query):
        return rank
    stride = int(item.max()) + 1
    lines, columns = np.nonzero((ranked >= 0) & (ranked < stride))
    keys, wanted = lines * stride + ranked[lines, columns], query * stride + item
    place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    hit = wanted[place] == keys
    np.minimum.at(rank, place[hit], columns[hit] + 1.0)
    return rank
