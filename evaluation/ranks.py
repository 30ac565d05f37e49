"""Ranks of relevant items, and which items are relevant: all that the metrics need of a ranking."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Relevant = Sequence[Collection[Any] | Mapping[Any, float]]
"""For each query the ids of the items that answer it, or a mapping from id to gain."""


@dataclass(frozen=True, kw_only=True)
class Relevance:
    """One line for each (query, relevant item), sorted by query, then item, each once.

    `query` and `item` are int64, `gain` float64 above 0 (1 where nothing else was said); `queries` is the number of all
    queries, those without any relevant item included.
    """

    queries: int
    query: NDArray[np.int64]
    item: NDArray[np.int64]
    gain: NDArray[np.float64]
    graded: bool = False

    @classmethod
    def from_lists(cls, relevant: Relevant) -> Relevance:
        """Take for each query its items, or a mapping from item to gain (0: not relevant).

        Raises:
            ValueError: An item is negative, or a gain is negative or not finite.
        """
        check_relevant(relevant)
        sizes = [len(items) for items in relevant]
        query = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
        item = np.fromiter((item for items in relevant for item in items), dtype=np.int64, count=len(query))
        gain = np.fromiter((gain for items in relevant for gain in _gains(items)), dtype=np.float64, count=len(query))
        _check(query, item, gain)
        query, item, gain = query[gain > 0], item[gain > 0], gain[gain > 0]
        order = _sorted_once(query, item)
        graded = any(isinstance(items, Mapping) for items in relevant)
        return cls(queries=len(sizes), query=query[order], item=item[order], gain=gain[order], graded=graded)

    @classmethod
    def from_rows(cls, query: NDArray[np.int64], item: NDArray[np.int64], queries: int) -> Relevance:
        """Take pairs (query[i], item[i]) in any order; a pair that is given twice counts once."""
        order = _sorted_once(query, item)
        return cls(queries=queries, query=query[order], item=item[order], gain=np.ones(len(order)))

    @property
    def only_items(self) -> NDArray[np.int64] | None:
        """The one item of each query, -1 where it has none; None where a query has two."""
        if np.any(self.query[1:] == self.query[:-1]):
            return None
        items = np.full(self.queries, -1, dtype=np.int64)
        items[self.query] = self.item
        return items

    def flipped(self, queries: int) -> Relevance:
        """Return the same pairs in the other direction: of `queries` items, which queries each belongs to."""
        order = np.lexsort((self.query, self.item))
        return replace(self, queries=queries, query=self.item[order], item=self.query[order], gain=self.gain[order])

    def part(self, start: int, stop: int) -> slice:
        """Return where the lines of queries `start` up to, not including, `stop` lie."""
        low, high = np.searchsorted(self.query, [start, stop])
        return slice(int(low), int(high))


def _gains(items: Collection[int] | Mapping[int, float]) -> Collection[float]:
    return items.values() if isinstance(items, Mapping) else (1.0,) * len(items)


def check_relevant(relevant: Any) -> None:
    """Refuse what does not hold something with a length for each query, and no text.

    Raises:
        ValueError: It does not.
    """
    is_list = isinstance(relevant, Sequence | np.ndarray) and not isinstance(relevant, str | bytes)
    if not is_list or not all(hasattr(one, "__len__") and not isinstance(one, str | bytes) for one in relevant):
        raise ValueError("relevant does not hold one list of ids for each query; give e.g. [{0, 1}, {2}]")


def _check(query: NDArray[np.int64], item: NDArray[np.int64], gain: NDArray[np.float64]) -> None:
    if np.any(item < 0):
        position = int(np.argmax(item < 0))
        raise ValueError(
            f"relevant item {item[position]} of query {query[position]} is negative; give row ids from 0 on"
        )
    wrong = ~(np.isfinite(gain) & (gain >= 0))
    if np.any(wrong):
        position = int(np.argmax(wrong))
        raise ValueError(
            f"gain {gain[position]} of item {item[position]} for query {query[position]} must be finite and >= 0"
        )


def _sorted_once(query: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[Any]:
    order = np.lexsort((item, query))
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = (np.diff(query[order]) != 0) | (np.diff(item[order]) != 0)
    return order[keep]


_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The ranks of the relevant items of those queries that have any; the others are only counted.

    Attributes:
        query: (p,) int64, ascending from 0; numbers the measured queries without gaps.
        query_rows: (n,) int64, ascending; which of all queries each measured one is.
        rank: (p,) float64, from 1, ascending within a query; inf where the ranking does not hold the item.
        gain: (p,) float64, the gain of the item at that rank.
        left_out: How many queries have no relevant item.
        depth: How many ranks of each query are known.
        graded: Whether gains other than 1 were given.
    """

    query: NDArray[np.int64]
    query_rows: NDArray[np.int64]
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
        query_rows, query = np.unique(relevance.query, return_inverse=True)
        return cls(
            query=query,
            query_rows=query_rows,
            rank=rank[order],
            gain=relevance.gain[order],
            left_out=relevance.queries - len(query_rows),
            depth=depth,
            graded=relevance.graded,
        )

    @cached_property
    def totals(self) -> NDArray[np.int64]:
        """How many relevant items each measured query has, retrieved or not; (n,), at least 1."""
        return np.bincount(self.query)

    @cached_property
    def position(self) -> NDArray[np.int64]:
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

    An item that a ranking holds twice counts at its first position; the second one still takes up a rank.

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
    keys, relevant_keys = lines * stride + ranked[lines, columns], query * stride + item
    position = np.minimum(np.searchsorted(relevant_keys, keys), len(relevant_keys) - 1)
    hit = relevant_keys[position] == keys
    np.minimum.at(rank, position[hit], columns[hit] + 1.0)
    return rank
