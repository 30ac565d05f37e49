"""Which items answer which query, and how well: the ground truth of a ranking."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Relevant = Sequence[Collection[int] | Mapping[int, float]]


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
        """Return the same pairs asked the other way round: of `queries` items, which queries each belongs to."""
        order = np.lexsort((self.query, self.item))
        return replace(self, queries=queries, query=self.item[order], item=self.query[order], gain=self.gain[order])

    def part(self, start: int, stop: int) -> slice:
        """Return where the lines of queries `start` up to, not including, `stop` lie."""
        low, high = np.searchsorted(self.query, [start, stop])
        return slice(int(low), int(high))


def _gains(items: Collection[int] | Mapping[int, float]) -> Collection[float]:
    return items.values() if isinstance(items, Mapping) else (1.0,) * len(items)


def _check(query: NDArray[np.int64], item: NDArray[np.int64], gain: NDArray[np.float64]) -> None:
    if np.any(item < 0):
        place = int(np.argmax(item < 0))
        raise ValueError(f"relevant item {item[place]} of query {query[place]} is negative; give row ids from 0 on")
    wrong = ~(np.isfinite(gain) & (gain >= 0))
    if np.any(wrong):
        place = int(np.argmax(wrong))
        raise ValueError(f"gain {gain[place]} of item {item[place]} for query {query[place]} must be finite and >= 0")


def _sorted_once(query: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[Any]:
    order = np.lexsort((item, query))
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = (np.diff(query[order]) != 0) | (np.diff(item[order]) != 0)
    return order[keep]
