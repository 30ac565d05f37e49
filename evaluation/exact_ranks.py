"""Ranks of relevant items straight from embeddings, by counting what scores higher instead of sorting.

Scores come in blocks from float32 matrix products. One block serves both directions: texts rank images in its lines,
images rank texts in its columns. Scores so close that float32 cannot tell them apart are computed again in float64, so
the ranks depend neither on the blocks nor on the BLAS in use.
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

from .ranks import Relevance

_CHUNK_ROWS = 1024
# Any point near the middle will do, so it is taken of so many rows.
_SAMPLE_ROWS = 4096
Floats = NDArray[Any]
Narrow = NDArray[np.float32]
Wide = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """Both sets moved to their middles, so that float32 spends its digits on what differs.

    With l' = l - c and r' = r - d, l'.r' + l'.d + c.r' = l.r - c.d: with two more columns one product gives all scores
    less one constant. The vectors of an encoder lie in a cone, so the moved ones are short and lose less to rounding.

    Attributes:
        left: (n, dim + 2) float32, in the order asked for.
        right: (m, dim + 2) float32, in the order asked for.
        left_slack: (n,) how far two scores of one line of `left @ right.T` must differ to be surely in that order.
        right_slack: (m,) the same for a column.
        scale: Scores were multiplied by it, a power of two, and
        constant: this was then taken from them.
    """

    left: Narrow
    right: Narrow
    left_slack: Wide
    right_slack: Wide
    scale: float
    constant: float

    @classmethod
    def of(cls, left: Floats, right: Floats, left_order: Rows, right_order: Rows) -> Shifted:
        """Move and reorder; takes a float32 copy of both sets."""
        scales = _scale(left), _scale(right)
        c, d = _middle(left) * scales[0], _middle(right) * scales[1]
        one, other = _Moved.of(left, left_order, scales[0], (c, d)), _Moved.of(right, right_order, scales[1], (d, c))
        one.vectors[:, -2], one.vectors[:, -1] = 1, one.off
        other.vectors[:, -2], other.vectors[:, -1] = other.off, 1
        # Of the scores in float64, which decide in the end, the last digits are not known either.
        floor = 2.0**-50 * left.shape[1] * (one.longest + _norm(c)) * (other.longest + _norm(d))
        return cls(
            left=one.vectors,
            right=other.vectors,
            left_slack=one.slack(other) + floor,
            right_slack=other.slack(one) + floor,
            scale=scales[0] * scales[1],
            constant=float(c.astype(np.float64) @ d.astype(np.float64)),
        )


@dataclass(frozen=True)
class _Moved:
    """Moved vectors with room for two columns, their lengths, and their products with the middle of the other side."""

    vectors: Narrow
    length: Narrow
    off: Wide

    @classmethod
    def of(cls, rows: Floats, order: Rows, scale: float, middles: tuple[Narrow, Narrow]) -> _Moved:
        own, other = middles[0], middles[1].astype(np.float64)
        vectors = np.empty((len(order), rows.shape[1] + 2), dtype=np.float32)
        length, off = np.empty(len(order), dtype=np.float32), np.empty(len(order))
        for start in range(0, len(order), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            some = rows[order[chunk]]
            wide = some if some.dtype == np.float64 else some.astype(np.float32)
            moved = (wide * np.float32(scale) - own).astype(np.float32, copy=False)
            vectors[chunk, :-2] = moved
            length[chunk], off[chunk] = np.linalg.norm(moved, axis=1), moved.astype(np.float64) @ other
        return cls(vectors, length, off)

    @property
    def longest(self) -> float:
        return float(self.length.max(initial=0))

    def slack(self, other: _Moved) -> Wide:
        """Return for each row how far two of its products with rows of `other` may be put in the wrong order.

        The error of a float32 dot product is at most lambda * sqrt(dim) * u * |q| * |b| but for a chance that vanishes
        with lambda (Higham and Mary 2019, A new approach to probabilistic rounding error analysis). That already takes
        every partial sum to be as large as it can be, so 3 leaves ample room; a larger one only makes more scores be
        computed again. 4 more roundings are those of the vectors and of the scores compared.
        """
        partial = self.length * other.longest + np.abs(self.off) + float(np.abs(other.off).max(initial=0))
        return np.asarray(2 * (3 * np.sqrt(self.vectors.shape[1]) + 4) * 2.0**-24 * partial)


def _scale(rows: Floats) -> float:
    """Return the power of two that brings the largest value to between 1/2 and 1: no square of it can overflow."""
    largest = max(float(rows.max(initial=0)), -float(rows.min(initial=0)))
    return float(2.0 ** -np.frexp(largest)[1]) if largest else 1.0


def _middle(rows: Floats) -> Narrow:
    if not len(rows):
        return np.zeros(rows.shape[1], dtype=np.float32)
    return np.asarray(rows[:: -(-len(rows) // _SAMPLE_ROWS)].mean(axis=0, dtype=np.float64), dtype=np.float32)


def _norm(vector: Narrow) -> float:
    return float(np.linalg.norm(vector))


# So many rows of 512 values, widened to float64, stay in the cache of a core.
_PAIR_CHUNK_ROWS = 256


def dots_of_pairs(left: Floats, right: Floats, pairs: tuple[Rows, Rows]) -> NDArray[np.float64]:
    """Return `left[i] . right[j]` for each pair (i, j), in their order.

    Products and sums run along one line, so equal lines get equal scores wherever they stand.

    Args:
        left: (n, dim).
        right: (m, dim).
        pairs: Rows of `left` and rows of `right`, both (p,).
    """
    scores = np.empty(len(pairs[0]))
    for start in range(0, len(scores), _PAIR_CHUNK_ROWS):
        chunk = slice(start, start + _PAIR_CHUNK_ROWS)
        one, other = left[pairs[0][chunk]].astype(np.float64), right[pairs[1][chunk]].astype(np.float64)
        scores[chunk] = np.einsum("ij,ij->i", one, other)
    return scores


def twins(vectors: Floats) -> Rows:
    """Return for each row a row that holds the same vector, the same one for all of them; mostly itself.

    Equal rows tie everywhere, so that needs no computing. Rows may be called unlike and still be equal, where another
    vector falls on the same point of the line that all are projected to: that costs time, never a rank.
    """
    rows = np.arange(len(vectors))
    line = np.random.default_rng(0).standard_normal((1, vectors.shape[1]))
    _, first, place = np.unique(
        dots_of_pairs(vectors, line, (rows, np.zeros_like(rows))), return_index=True, return_inverse=True
    )
    twin = np.asarray(first[place], dtype=np.int64)
    for row in np.flatnonzero(twin != rows):
        if not np.array_equal(vectors[row], vectors[twin[row]]):
            twin[row] = row
    return twin


Scores = NDArray[np.float32]
Marks = NDArray[np.bool_]
# Vectors, and the row that stands at each place of an axis of the scores.
Side = tuple[Floats, Rows]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One direction: the queries along one axis of the scores, what they rank along the other.

    Queries with most relevant items come first, so that for each j those with more than j of them are the first few.
    Pairs (query, relevant item) come in the order of their queries.

    Attributes:
        across: Whether queries are lines of the scores; else they are columns.
        queries: The vectors, and the row that stands at each place of that axis.
        base: The same of what is ranked.
        lines: (p,) which line of the relevance each pair is.
        ends: (nq + 1,) the pairs of the query at place x are those from ends[x] to ends[x + 1].
        asked: (p,) row of the query.
        item: (p,) row of the relevant item.
        exact: (p,) its score in float64.
        low: (p,) below this float32 score another item is surely behind it, and
        high: (p,) above this one surely before it.
        twin: For each row of the base one that stands for all equal ones.
        above: (p,) how many items are before it; filled in while counting.
    """

    across: bool
    queries: Side
    base: Side
    lines: Rows
    ends: Rows
    asked: Rows
    item: Rows
    exact: Wide
    low: Scores
    high: Scores
    twin: Rows
    above: Rows

    @classmethod
    def of(
        cls, relevance: Relevance, exact: Wide, shifted: Shifted, *, across: bool, sides: tuple[Side, Side]
    ) -> Asking:
        """Prepare a direction.

        Args:
            relevance: Which rows of the base answer which query.
            exact: The score of each of its lines in float64.
            shifted: Both sides as they are multiplied.
            across: Whether queries are its left side.
            sides: Queries and base, in the orders that it was given.
        """
        order = sides[0][1]
        place = np.empty(relevance.queries, dtype=np.int64)
        place[order] = np.arange(len(order))
        lines = np.argsort(place[relevance.query], kind="stable")
        at = place[relevance.query[lines]]
        own = exact[lines] * shifted.scale - shifted.constant
        slack = (shifted.left_slack if across else shifted.right_slack)[at]
        return cls(
            across=across,
            queries=sides[0],
            base=sides[1],
            lines=lines,
            ends=np.searchsorted(at, np.arange(len(order) + 1)),
            asked=relevance.query[lines],
            item=relevance.item[lines],
            exact=exact[lines],
            low=(own - slack).astype(np.float32),
            high=(own + slack).astype(np.float32),
            twin=twins(sides[1][0]),
            above=np.zeros(len(lines), dtype=np.int64),
        )

    def span(self, corner: tuple[int, int], shape: tuple[int, ...]) -> slice:
        """Return the pairs of the queries in the part of the scores with this first line and column."""
        axis = 1 - int(self.across)
        ends = self.ends[[corner[axis], corner[axis] + shape[axis]]]
        return slice(int(ends[0]), int(ends[1]))

    def add(self, scores: Scores, corner: tuple[int, int], tally: Rows, marks: tuple[Marks, Marks]) -> None:
        """Count in a part of the scores what is before each relevant item of its queries.

        Args:
            scores: The part.
            corner: Its first line and column.
            tally: One number for each pair of `span`, added to.
            marks: Two flat arrays to work in, of at least its size.
        """
        start, behind = corner if self.across else corner[::-1]
        ends = self.ends[start : start + len(scores if self.across else scores.T) + 1]
        many = np.diff(ends)
        for j in range(many.max(initial=0)):
            pairs = ends[: np.count_nonzero(many > j)] + j
            part = scores[: len(pairs)] if self.across else scores[:, : len(pairs)]
            surely, perhaps = (a[: part.size].reshape(part.shape) for a in marks)
            np.greater(part, self._along(self.high[pairs]), out=surely)
            np.greater_equal(part, self._along(self.low[pairs]), out=perhaps)
            before = _hits(surely, int(self.across))
            tally[pairs - ends[0]] += before
            near = _hits(perhaps, int(self.across)) - before
            if not self._only_twins(near, part.shape, pairs, behind):
                won = self._won(np.flatnonzero(near), (surely, perhaps), pairs, behind)
                np.add.at(tally, won - ends[0], 1)

    def ranks(self) -> Wide:
        """Return the rank of each line of the relevance, once all is counted."""
        ranks = np.empty(len(self.lines))
        ranks[self.lines] = 1 + self.above + _lower_twins(self.twin)[self.item]
        return ranks

    def _along(self, values: Scores) -> Scores:
        return values[:, None] if self.across else values[None]

    def _only_twins(self, near: NDArray[Any], shape: tuple[int, ...], pairs: Rows, behind: int) -> bool:
        """Whether all that is near is the relevant items themselves and their equals; looked at where it is much."""
        total = int(near.sum(dtype=np.int64))
        if total * 8 < shape[0] * shape[1]:
            return total == 0
        here = self.twin[self.base[1][behind : behind + shape[int(self.across)]]]
        many = np.bincount(here, minlength=len(self.twin))
        return total == int(many[self.twin[self.item[pairs]]].sum())

    def _won(self, doubtful: Rows, marks: tuple[Marks, Marks], pairs: Rows, behind: int) -> Rows:
        """Return a pair for each item in doubt that is before its relevant item after all, twins left aside.

        Args:
            doubtful: At which of `pairs` there is doubt.
            marks: Where items are surely before, and where perhaps.
            pairs: Those compared.
            behind: The place of the first item they are compared with.
        """
        surely, perhaps = (a[doubtful] if self.across else a[:, doubtful] for a in marks)
        # Of a flat array they are found several times as fast.
        line, column = np.divmod(np.flatnonzero(surely != perhaps), surely.shape[1])
        place, other = (line, column) if self.across else (column, line)
        pair, row = pairs[doubtful[place]], self.base[1][behind + other]
        unlike = self.twin[row] != self.twin[self.item[pair]]
        pair, row = pair[unlike], row[unlike]
        scores = dots_of_pairs(self.queries[0], self.base[0], (self.asked[pair], row))
        mine = self.exact[pair]
        return np.asarray(pair[(scores > mine) | ((scores == mine) & (row < self.item[pair]))])


def _hits(marks: Marks, axis: int) -> NDArray[Any]:
    """Count the marks along an axis, in the narrowest numbers that hold them."""
    return np.asarray(np.add.reduce(marks.view(np.uint8), axis=axis, dtype=np.uint16 if axis else np.uint8))


def _lower_twins(twin: Rows) -> Rows:
    """Return for each row how many equal ones have a lower number."""
    order = np.argsort(twin, kind="stable")
    first = np.searchsorted(twin[order], twin[order])
    lower = np.empty(len(twin), dtype=np.int64)
    lower[order] = np.arange(len(twin)) - first
    return lower


# A block is large enough for the product to run at full speed, a strip of it small enough for the cache of one core.
_BLOCK_VALUES = 1 << 22
_BLOCK_COLUMNS = 1 << 12
_STRIP_VALUES = 1 << 18
# Hits in a column are added up in bytes.
_STRIP_LINES = 255
_THREADS = min(8, os.cpu_count() or 1)
Ranks = NDArray[np.float64]


def ranks_by_counting(queries: Floats, base: Floats, relevance: Relevance) -> Ranks:
    """Rank each relevant item among all rows of `base` by dot product, equal scores by lower row.

    rank(i) = 1 + #{j: s_j > s_i} + #{j < i: s_j = s_i}, as open_clip's validation and every search here break ties.

    Args:
        queries: (nq, dim) finite floats; unit rows make the score a cosine.
        base: (n, dim).
        relevance: For each query the rows of `base` that answer it.

    Returns:
        The rank of each line of `relevance`, in its order.
    """
    order, many = _most_first(relevance)
    order = order[: np.count_nonzero(many)]
    shifted = Shifted.of(queries, base, order, np.arange(len(base)))
    exact = dots_of_pairs(queries, base, (relevance.query, relevance.item))
    asking = Asking.of(relevance, exact, shifted, across=True, sides=((queries, order), (base, np.arange(len(base)))))
    _count(shifted, [asking])
    return asking.ranks()


def ranks_both_ways(left: Floats, right: Floats, relevance: Relevance) -> tuple[Ranks, Ranks]:
    """Rank the relevant rows of `right` for those of `left` and the other way round, from one matrix product.

    Args:
        left: (n, dim) finite floats.
        right: (m, dim).
        relevance: For each row of `left` the rows of `right` that answer it; they are answered by it in turn.

    Returns:
        The rank of each line of `relevance`, and of each line of `relevance.flipped(m)`, as `ranks_by_counting` would.
    """
    back = relevance.flipped(len(right))
    one, other = (left, _most_first(relevance)[0]), (right, _most_first(back)[0])
    shifted = Shifted.of(left, right, one[1], other[1])
    exact = dots_of_pairs(left, right, (relevance.query, relevance.item))
    there = Asking.of(relevance, exact, shifted, across=True, sides=(one, other))
    exact = exact[np.lexsort((relevance.query, relevance.item))]
    here = Asking.of(back, exact, shifted, across=False, sides=(other, one))
    _count(shifted, [there, here])
    return there.ranks(), here.ranks()


def _count(shifted: Shifted, askings: Sequence[Asking]) -> None:
    """Go through all scores, block by block: the product is BLAS's to spread over the cores, the counting is ours."""
    lines, columns = len(shifted.left), len(shifted.right)
    width = max(1, min(columns, _BLOCK_COLUMNS))
    height = max(1, min(lines, _BLOCK_VALUES // width))
    work = np.empty(height * width, dtype=np.float32)
    with ThreadPoolExecutor(_THREADS) as pool:
        for top, side in product(range(0, lines, height), range(0, columns, width)):
            left, right = shifted.left[top : top + height], shifted.right[side : side + width]
            scores = work[: len(left) * len(right)].reshape(len(left), len(right))
            np.matmul(left, right.T, out=scores)
            step = -(-len(left) // _THREADS)
            shares = [
                pool.submit(_count_share, scores[at : at + step], (top + at, side), askings)
                for at in range(0, len(left), step)
            ]
            for share in shares:
                for asking, (span, tally) in zip(askings, share.result(), strict=True):
                    asking.above[span] += tally


def _count_share(scores: Scores, corner: tuple[int, int], askings: Sequence[Asking]) -> list[tuple[slice, Rows]]:
    """Return for each direction which pairs this part of the scores counts for, and what."""
    spans = [asking.span(corner, scores.shape) for asking in askings]
    tallies = [np.zeros(span.stop - span.start, dtype=np.int64) for span in spans]
    height, width = max(1, min(_STRIP_LINES, _STRIP_VALUES // scores.shape[1])), scores.shape[1]
    marks = np.empty(height * width, dtype=np.bool_), np.empty(height * width, dtype=np.bool_)
    for at in range(0, len(scores), height):
        strip, here = scores[at : at + height], (corner[0] + at, corner[1])
        for asking, span, tally in zip(askings, spans, tallies, strict=True):
            part = asking.span(here, strip.shape)
            asking.add(strip, here, tally[part.start - span.start : part.stop - span.start], marks)
    return list(zip(spans, tallies, strict=True))


def _most_first(relevance: Relevance) -> tuple[Rows, Rows]:
    """Return the queries, those with most relevant items first, and their numbers of them."""
    many = np.bincount(relevance.query, minlength=relevance.queries)
    order = np.argsort(-many, kind="stable")
    return order, many[order]
