"""Hubs and far items: what lies near to very many queries, and what lies near to nothing of its own collection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.neighbors import exact_top_k
from storage.exact_search import to_float32
from storage.hit_calibration import evenly_spaced, other_collection
from storage.schema import Collection
from storage.vectors import VectorTable
from storage.version import IndexVersion

Rows = NDArray[np.int64]
DEPTH = 10
"""How many nearest items of a query are counted, as usual for k-occurrences (Radovanovic et al. 2010)."""
NEIGHBORS = 5
"""How many nearest items tell how far an item lies: one would be its duplicate."""
# Rows that are compared with one another; two times as many take four times as long, 10,000 some 5 s on two cores.
MOST_ROWS = 10_000
MOST_QUERIES = 2_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Hubs:
    """Which items are among the ten nearest of many queries.

    Attributes:
        rows: (n,) row ids that were searched, ascending.
        counts: (n,) how many queries have each among their ten nearest.
        queries: How many were asked.
        asked: `images` or `texts`: what they were; the other collection where there is one.
    """

    rows: Rows
    counts: Rows
    queries: int
    asked: Collection

    @property
    def expected(self) -> float:
        """How many queries an item would be near to, were all the same."""
        return self.queries * min(DEPTH, len(self.rows)) / len(self.rows)

    def largest(self, count: int) -> Rows:
        """Return the positions of the largest hubs, those that are near to at least five times as many as expected."""
        order = np.argsort(-self.counts, kind="stable")[:count]
        return order[self.counts[order] >= max(5 * self.expected, 5)]


@dataclass(frozen=True, kw_only=True, eq=False)
class FarItems:
    """How far each item lies from its own collection.

    Attributes:
        rows: (n,) row ids that were compared, ascending.
        nearness: (n,) mean cosine with the five nearest others.
        nearest: (n,) row id of the nearest one.
    """

    rows: Rows
    nearness: NDArray[np.float64]
    nearest: Rows

    def farthest(self, count: int) -> Rows:
        """Return the positions of items whose nearness is three deviations below the median or less, farthest first.

        The deviation is that of a normal distribution with the same median absolute deviation.
        """
        median = np.median(self.nearness)
        spread = 1.4826 * np.median(np.abs(self.nearness - median))
        order = np.argsort(self.nearness, kind="stable")[:count]
        return order[self.nearness[order] < median - 3 * max(float(spread), 1e-4)]


def find_hubs(version: IndexVersion, collection: Collection) -> Hubs:
    """Return how many of up to 2,000 evenly spaced queries each of up to 10,000 evenly spaced items is near to."""
    asked = other_collection(collection)
    if asked not in version.manifest.collections:
        asked = collection
    rows, base = _sample(version.vectors(collection), MOST_ROWS)
    queries, vectors = _sample(version.vectors(asked), MOST_QUERIES)
    found = _others(base, rows, vectors, queries if asked == collection else None, DEPTH)[0]
    counts = np.bincount(found.ravel(), minlength=len(rows))
    return Hubs(rows=rows, counts=counts, queries=len(queries), asked=asked)


def find_far(version: IndexVersion, collection: Collection) -> FarItems | None:
    """Return how far each of up to 10,000 evenly spaced items lies from the others; None for fewer than seven items."""
    rows, base = _sample(version.vectors(collection), MOST_ROWS)
    if len(rows) < NEIGHBORS + 2:
        return None
    found, cosines = _others(base, rows, base, rows, NEIGHBORS)
    return FarItems(rows=rows, nearness=cosines.mean(axis=1), nearest=rows[found[:, 0]])


def _sample(table: VectorTable, most: int) -> tuple[Rows, NDArray[np.float32]]:
    rows = evenly_spaced(table.rows, most)
    return rows, to_float32(table.gather(rows))


def _others(
    base: NDArray[np.float32], rows: Rows, queries: NDArray[np.float32], own: Rows | None, k: int
) -> tuple[Rows, NDArray[np.float64]]:
    """Positions in the base and cosines of the k nearest, but for the query itself where `own` names its row."""
    if own is None:
        return exact_top_k(base, queries, k)
    found, cosines = exact_top_k(base, queries, k + 1)
    itself = rows[found] == own[:, None]
    # Among more than k equal ones it may not be found; then the last one goes.
    itself[~itself.any(axis=1), -1] = True
    shape = (len(queries), found.shape[1] - 1)
    return found[~itself].reshape(shape), cosines[~itself].reshape(shape)
