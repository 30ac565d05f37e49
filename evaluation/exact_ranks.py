"""Exact ranks of relevant items, straight from embeddings: by counting what scores higher instead of sorting.

Scores come in blocks from float32 matrix products. One block serves both directions: texts rank images along its rows,
images rank texts along its columns. Scores so close that float32 cannot tell them apart are computed again in float64,
so the ranks depend neither on the blocks nor on the BLAS in use.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact_scores import CenteredScores, dots_of_pairs, duplicates_of
from .ranks import Relevance

# A block is large enough for the product to run at full speed, a strip of it small enough for the cache of one core.
_BLOCK_VALUES = 1 << 22
_BLOCK_COLUMNS = 1 << 12
_STRIP_VALUES = 1 << 18
# Counts along a column are added up in bytes.
_STRIP_LINES = 255
_THREADS = min(8, os.cpu_count() or 1)
Floats = NDArray[Any]
Wide = NDArray[np.float64]
Rows = NDArray[np.int64]
Ranks = NDArray[np.float64]
Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]
# Vectors, and which of them stands at each position of an axis of the scores.
Side = tuple[Floats, Rows]


@dataclass(frozen=True, kw_only=True)
class RankCounter:
    """Per-direction state for exact rank counting.

    Queries run along one axis of the score matrix, the base that they rank along the other.
    Queries with most relevant items come first, so that for each j those with more than j of them are the first few.
    Pairs (query, relevant item) come in the order of their queries.

    Attributes:
        by_row: Whether queries are rows of the score matrix; else they are columns.
        queries: The query vectors, and which of them stands at each position of their axis.
        base: The same of what is ranked.
        entries: (p,) which entry of the relevance each pair is.
        ends: (nq + 1,) the pairs of the query at position x are those from ends[x] to ends[x + 1].
        query: (p,) row of the query vectors.
        item: (p,) row of the relevant item.
        exact: (p,) its score in float64.
        low: (p,) below this float32 score another item surely ranks behind it, and
        high: (p,) above this one surely before it.
        duplicate: For each row of the base the one that stands for all equal rows.
        above: (p,) how many items rank before it; filled in while counting.
    """

    by_row: bool
    queries: Side
    base: Side
    entries: Rows
    ends: Rows
    query: Rows
    item: Rows
    exact: Wide
    low: Scores
    high: Scores
    duplicate: Rows
    above: Rows

    @classmethod
    def of(
        cls, relevance: Relevance, exact: Wide, centered: CenteredScores, *, by_row: bool, sides: tuple[Side, Side]
    ) -> RankCounter:
        """Prepare a direction.

        Args:
            relevance: Which rows of the base answer which query.
            exact: The float64 score of each of its entries.
            centered: Both sides as they are multiplied.
            by_row: Whether queries are its left side.
            sides: Queries and base, in the orders that it was given.
        """
        order = sides[0][1]
        position = np.empty(relevance.queries, dtype=np.int64)
        position[order] = np.arange(len(order))
        entries = np.argsort(position[relevance.query], kind="stable")
        at = position[relevance.query[entries]]
        relevant = exact[entries] * centered.scale - centered.constant
        slack = (centered.left_slack if by_row else centered.right_slack)[at]
        return cls(
            by_row=by_row,
            queries=sides[0],
            base=sides[1],
            entries=entries,
            ends=np.searchsorted(at, np.arange(len(order) + 1)),
            query=relevance.query[entries],
            item=relevance.item[entries],
            exact=exact[entries],
            low=(relevant - slack).astype(np.float32),
            high=(relevant + slack).astype(np.float32),
            duplicate=duplicates_of(sides[1][0]),
            above=np.zeros(len(entries), dtype=np.int64),
        )

    def pair_range(self, corner: tuple[int, int], shape: tuple[int, ...]) -> slice:
        """Return the pairs of the queries in the block of scores with this first row and column."""
        axis = 1 - int(self.by_row)
        ends = self.ends[[corner[axis], corner[axis] + shape[axis]]]
        return slice(int(ends[0]), int(ends[1]))

    def add(self, scores: Scores, corner: tuple[int, int], counts: Rows, buffers: tuple[Mask, Mask]) -> None:
        """Count in a block of scores what ranks before each relevant item of its queries.

        Args:
            scores: The block.
            corner: Its first row and column.
            counts: One number for each pair of `pair_range`, added to.
            buffers: Two flat arrays to work in, of at least its size.
        """
        start, first_base = corner if self.by_row else corner[::-1]
        ends = self.ends[start : start + len(scores if self.by_row else scores.T) + 1]
        relevant_counts = np.diff(ends)
        for j in range(relevant_counts.max(initial=0)):
            pairs = ends[: np.count_nonzero(relevant_counts > j)] + j
            part = scores[: len(pairs)] if self.by_row else scores[:, : len(pairs)]
            surely, perhaps = (a[: part.size].reshape(part.shape) for a in buffers)
            np.greater(part, self._along(self.high[pairs]), out=surely)
            np.greater_equal(part, self._along(self.low[pairs]), out=perhaps)
            before = _count_true(surely, int(self.by_row))
            counts[pairs - ends[0]] += before
            close = _count_true(perhaps, int(self.by_row)) - before
            if not self._only_duplicates(close, part.shape, pairs, first_base):
                before_pairs = self._ranked_before(np.flatnonzero(close), (surely, perhaps), pairs, first_base)
                np.add.at(counts, before_pairs - ends[0], 1)

    def ranks(self) -> Wide:
        """Return the rank of each entry of the relevance, once all blocks are counted."""
        ranks = np.empty(len(self.entries))
        ranks[self.entries] = 1 + self.above + _lower_duplicates(self.duplicate)[self.item]
        return ranks

    def _along(self, values: Scores) -> Scores:
        return values[:, None] if self.by_row else values[None]

    def _only_duplicates(self, close: NDArray[Any], shape: tuple[int, ...], pairs: Rows, first_base: int) -> bool:
        """Whether all close scores are those of the relevant items and their duplicates; checked where
        they are many."""
        total = int(close.sum(dtype=np.int64))
        if total * 8 < shape[0] * shape[1]:
            return total == 0
        here = self.duplicate[self.base[1][first_base : first_base + shape[int(self.by_row)]]]
        of_each = np.bincount(here, minlength=len(self.duplicate))
        return total == int(of_each[self.duplicate[self.item[pairs]]].sum())

    def _ranked_before(self, doubtful: Rows, masks: tuple[Mask, Mask], pairs: Rows, first_base: int) -> Rows:
        """Return a pair for each close item that ranks before its relevant item by float64 scores; duplicates left out.

        Args:
            doubtful: Which of `pairs` have close items.
            masks: Where items surely rank before, and where perhaps.
            pairs: Those compared.
            first_base: The position of the first base item that they are compared with.
        """
        surely, perhaps = (a[doubtful] if self.by_row else a[:, doubtful] for a in masks)
        # `flatnonzero` of a flat array is several times as fast as `nonzero`.
        row_at, column = np.divmod(np.flatnonzero(surely != perhaps), surely.shape[1])
        position, other = (row_at, column) if self.by_row else (column, row_at)
        pair, row = pairs[doubtful[position]], self.base[1][first_base + other]
        unlike = self.duplicate[row] != self.duplicate[self.item[pair]]
        pair, row = pair[unlike], row[unlike]
        scores = dots_of_pairs(self.queries[0], self.base[0], (self.query[pair], row))
        relevant = self.exact[pair]
        return np.asarray(pair[(scores > relevant) | ((scores == relevant) & (row < self.item[pair]))])


def _count_true(mask: Mask, axis: int) -> NDArray[Any]:
    """Count what is true along an axis, in the narrowest integers that hold the counts."""
    return np.asarray(np.add.reduce(mask.view(np.uint8), axis=axis, dtype=np.uint16 if axis else np.uint8))


def _lower_duplicates(duplicate: Rows) -> Rows:
    """Return for each row how many of its duplicates have a lower row number."""
    order = np.argsort(duplicate, kind="stable")
    first = np.searchsorted(duplicate[order], duplicate[order])
    lower = np.empty(len(duplicate), dtype=np.int64)
    lower[order] = np.arange(len(duplicate)) - first
    return lower


def ranks_by_counting(queries: Floats, base: Floats, relevance: Relevance) -> Ranks:
    """Rank each relevant item among all rows of `base` by dot product, equal scores by lower row.

    rank(i) = 1 + #{j: s_j > s_i} + #{j < i: s_j = s_i}, as open_clip's validation and every search here break ties.

    Args:
        queries: (nq, dim) finite floats; unit rows make the score a cosine.
        base: (n, dim).
        relevance: For each query the rows of `base` that answer it.

    Returns:
        The rank of each entry of `relevance`, in its order.
    """
    order, relevant_counts = _most_first(relevance)
    order = order[: np.count_nonzero(relevant_counts)]
    centered = CenteredScores.of(queries, base, order, np.arange(len(base)))
    exact = dots_of_pairs(queries, base, (relevance.query, relevance.item))
    counter = RankCounter.of(
        relevance, exact, centered, by_row=True, sides=((queries, order), (base, np.arange(len(base))))
    )
    _count(centered, [counter])
    return counter.ranks()


def ranks_both_ways(left: Floats, right: Floats, relevance: Relevance) -> tuple[Ranks, Ranks]:
    """Rank the relevant rows of `right` for those of `left` and the other way round, from one matrix product.

    Args:
        left: (n, dim) finite floats.
        right: (m, dim).
        relevance: For each row of `left` the rows of `right` that answer it; they are answered by it in turn.

    Returns:
        The rank of each entry of `relevance`, and of each entry of `relevance.flipped(m)`, as
        `ranks_by_counting` would.
    """
    back = relevance.flipped(len(right))
    one, other = (left, _most_first(relevance)[0]), (right, _most_first(back)[0])
    centered = CenteredScores.of(left, right, one[1], other[1])
    exact = dots_of_pairs(left, right, (relevance.query, relevance.item))
    there = RankCounter.of(relevance, exact, centered, by_row=True, sides=(one, other))
    exact = exact[np.lexsort((relevance.query, relevance.item))]
    here = RankCounter.of(back, exact, centered, by_row=False, sides=(other, one))
    _count(centered, [there, here])
    return there.ranks(), here.ranks()


def _count(centered: CenteredScores, counters: Sequence[RankCounter]) -> None:
    """Count over all scores, block by block: BLAS spreads the product over the cores, threads share the counting."""
    lines, columns = len(centered.left), len(centered.right)
    width = max(1, min(columns, _BLOCK_COLUMNS))
    height = max(1, min(lines, _BLOCK_VALUES // width))
    work = np.empty(height * width, dtype=np.float32)
    with ThreadPoolExecutor(_THREADS) as pool:
        for top, side in product(range(0, lines, height), range(0, columns, width)):
            left, right = centered.left[top : top + height], centered.right[side : side + width]
            scores = work[: len(left) * len(right)].reshape(len(left), len(right))
            np.matmul(left, right.T, out=scores)
            step = -(-len(left) // _THREADS)
            shares = [
                pool.submit(_count_share, scores[at : at + step], (top + at, side), counters)
                for at in range(0, len(left), step)
            ]
            for share in shares:
                for counter, (span, counts) in zip(counters, share.result(), strict=True):
                    counter.above[span] += counts


def _count_share(scores: Scores, corner: tuple[int, int], counters: Sequence[RankCounter]) -> list[tuple[slice, Rows]]:
    """Return for each direction which pairs these rows of scores count for, and the counts."""
    spans = [counter.pair_range(corner, scores.shape) for counter in counters]
    counts_of = [np.zeros(span.stop - span.start, dtype=np.int64) for span in spans]
    height, width = max(1, min(_STRIP_LINES, _STRIP_VALUES // scores.shape[1])), scores.shape[1]
    buffers = np.empty(height * width, dtype=np.bool_), np.empty(height * width, dtype=np.bool_)
    for at in range(0, len(scores), height):
        strip, here = scores[at : at + height], (corner[0] + at, corner[1])
        for counter, span, counts in zip(counters, spans, counts_of, strict=True):
            part = counter.pair_range(here, strip.shape)
            counter.add(strip, here, counts[part.start - span.start : part.stop - span.start], buffers)
    return list(zip(spans, counts_of, strict=True))


def _most_first(relevance: Relevance) -> tuple[Rows, Rows]:
    """Return the queries by falling number of relevant items, and these numbers."""
    relevant_counts = np.bincount(relevance.query, minlength=relevance.queries)
    order = np.argsort(-relevant_counts, kind="stable")
    return order, relevant_counts[order]
