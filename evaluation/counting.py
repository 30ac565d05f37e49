"""Ranks of relevant items straight from embeddings, by counting what scores higher instead of sorting.

A block of scores comes from one float32 matrix product. Where two scores lie so close that float32 cannot tell them
apart, they are computed again in float64, so the ranks depend neither on the block size nor on the BLAS in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ranks import Ranks
from .relevance import Relevance

_BLOCK_VALUES = 1 << 24
_CHUNK_ROWS = 4096
# From so many relevant items a query on, sorting its scores once is cheaper than one count for each.
_SORT_FROM = 64
Floats = NDArray[Any]


@dataclass(frozen=True)
class _Query:
    """One query with its float32 scores against all of `base`; scores within `slack` of each other are in doubt."""

    vector: Floats
    base: Floats
    scores: NDArray[np.float32]
    slack: np.float32

    def ranks(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        if len(items) < _SORT_FROM:
            return np.array([self._rank(item) for item in items.tolist()], dtype=np.float64)
        order = np.argsort(-_dots(self.base, np.arange(len(self.base)), self.vector), kind="stable")
        ranks = np.empty(len(order))
        ranks[order] = np.arange(1, len(order) + 1)
        return ranks[items]

    def _rank(self, item: int) -> int:
        own = self.scores[item]
        surely = self.scores > own + self.slack
        perhaps = self.scores >= own - self.slack
        above = int(np.count_nonzero(surely))
        if np.count_nonzero(perhaps) == above + 1:
            return above + 1
        rows = np.flatnonzero(perhaps ^ surely)
        exact = _dots(self.base, rows, self.vector)
        mine = exact[np.searchsorted(rows, item)]
        return 1 + above + int(np.count_nonzero((exact > mine) | ((exact == mine) & (rows < item))))


def ranks_by_counting(queries: Floats, base: Floats, relevance: Relevance) -> Ranks:
    """Rank each relevant item among all rows of `base` by dot product, equal scores by lower row.

    rank(i) = 1 + #{j: s_j > s_i} + #{j < i: s_j = s_i}, as open_clip's validation and every search here break ties.
    Takes one matrix product, in blocks of about 64 MiB, and one or two passes over its line for each relevant item.

    Args:
        queries: (nq, dim) finite floats; unit rows make the score a cosine.
        base: (n, dim).
        relevance: For each query the rows of `base` that answer it.

    Raises:
        ValueError: No query has a relevant item.
    """
    narrow_queries, narrow_base = (np.ascontiguousarray(a, dtype=np.float32) for a in (queries, base))
    slack = _slack(narrow_queries, narrow_base)
    rank = np.empty(len(relevance.query))
    ends = np.searchsorted(relevance.query, np.arange(len(queries) + 1)).tolist()
    step = max(1, _BLOCK_VALUES // max(1, len(base)))
    for start in range(0, len(queries), step):
        block = narrow_queries[start : start + step] @ narrow_base.T
        for row, scores in enumerate(block, start):
            part = slice(ends[row], ends[row + 1])
            rank[part] = _Query(queries[row], base, scores, slack[row]).ranks(relevance.item[part])
    return Ranks.of(relevance, rank, len(base))


def _slack(queries: NDArray[np.float32], base: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each query how far two scores must differ to be surely in that order.

    The error of a float32 dot product is at most lambda * sqrt(dim) * u * |q| * |b| but for a chance that vanishes with
    lambda (Higham and Mary 2019, A new approach to probabilistic rounding error analysis). That already takes every
    partial sum to be as large as it can be, so 3 leaves ample room; a larger one only makes more scores be recomputed.
    """
    longest = max((float(np.linalg.norm(base[i : i + _CHUNK_ROWS], axis=1).max()) for i in _starts(base)), default=0.0)
    error = (3 * np.sqrt(queries.shape[1]) + 4) * 2.0**-24 * longest
    return np.asarray(2 * error * np.linalg.norm(queries, axis=1), dtype=np.float32)


def _dots(base: Floats, rows: NDArray[Any], vector: Floats) -> NDArray[np.float64]:
    """Return float64 dot products; multiplied and summed line by line, so that equal rows get equal scores."""
    wide = vector.astype(np.float64)
    chunks = [(base[rows[i : i + _CHUNK_ROWS]].astype(np.float64) * wide).sum(axis=1) for i in _starts(rows)]
    return np.concatenate(chunks) if chunks else np.empty(0)


def _starts(rows: Floats) -> range:
    return range(0, len(rows), _CHUNK_ROWS)
