"""One direction of asking: what its relevant items are compared with, and how many come before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dots import dots_of_pairs, twins
from .relevance import Relevance
from .shifted import Shifted

Floats = NDArray[Any]
Rows = NDArray[np.int64]
Wide = NDArray[np.float64]
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
