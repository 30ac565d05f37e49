"""Scores of two sets of vectors, but for a constant, in float32, with a bound on how far off they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
