"""Exact scores from fast ones: centered float32 products with error bounds, and float64 dot products of pairs.

float32 matrix products are fast and wrong in the last digits. The bound on their error says which scores are surely in
the right order; the few others are computed again in float64, pair by pair and without BLAS, so that results depend
neither on the sizes of blocks nor on the BLAS in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK_ROWS = 1024
# So many rows of 512 values, widened to float64, stay in the cache of a core.
_PAIR_CHUNK_ROWS = 256
# Any point near the mean will do, so it is taken of so many rows.
_SAMPLE_ROWS = 4096
Floats = NDArray[Any]
Narrow = NDArray[np.float32]
Wide = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CenteredScores:
    """Two sets of vectors, each less its mean, so that float32 spends its digits on what differs.

    With l' = l - c and r' = r - d, l'.r' + l'.d + c.r' = l.r - c.d: with two more columns one product gives all scores
    less one constant. The vectors of an encoder lie in a cone, so centered ones are short and lose less to rounding.

    Attributes:
        left: (n, dim + 2) float32, in the order given.
        right: (m, dim + 2) float32, in the order given.
        left_slack: (n,) how far two scores in one row of `left @ right.T` must differ to be surely in that order.
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
    def of(cls, left: Floats, right: Floats, left_order: Rows, right_order: Rows) -> CenteredScores:
        """Center and reorder; takes a float32 copy of both sets."""
        scales = power_of_two_scale(left), power_of_two_scale(right)
        c, d = _mean(left) * scales[0], _mean(right) * scales[1]
        one, other = (
            _Centered.of(left, left_order, scales[0], (c, d)),
            _Centered.of(right, right_order, scales[1], (d, c)),
        )
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
class _Centered:
    """Centered vectors with room for two columns, their lengths, and their products with the mean of the other set."""

    vectors: Narrow
    length: Narrow
    off: Wide

    @classmethod
    def of(cls, rows: Floats, order: Rows, scale: float, means: tuple[Narrow, Narrow]) -> _Centered:
        mean, other = means[0], means[1].astype(np.float64)
        vectors = np.empty((len(order), rows.shape[1] + 2), dtype=np.float32)
        length, off = np.empty(len(order), dtype=np.float32), np.empty(len(order))
        for start in range(0, len(order), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            part = rows[order[chunk]]
            wide = part if part.dtype == np.float64 else part.astype(np.float32)
            centered = (wide * np.float32(scale) - mean).astype(np.float32, copy=False)
            vectors[chunk, :-2] = centered
            length[chunk], off[chunk] = np.linalg.norm(centered, axis=1), centered.astype(np.float64) @ other
        return cls(vectors, length, off)

    @property
    def longest(self) -> float:
        return float(self.length.max(initial=0))

    def slack(self, other: _Centered) -> Wide:
        """Return for each row how far two of its products with rows of `other` may be put in the wrong order."""
        largest = self.length * other.longest + np.abs(self.off) + float(np.abs(other.off).max(initial=0))
        return float32_slack(self.vectors.shape[1], largest)


def power_of_two_scale(rows: Floats) -> float:
    """Return the power of two that brings the largest value to between 1/2 and 1: no square of it can overflow."""
    largest = max(float(rows.max(initial=0)), -float(rows.min(initial=0)))
    return float(2.0 ** -np.frexp(largest)[1]) if largest else 1.0


def _mean(rows: Floats) -> Narrow:
    if not len(rows):
        return np.zeros(rows.shape[1], dtype=np.float32)
    return np.asarray(rows[:: -(-len(rows) // _SAMPLE_ROWS)].mean(axis=0, dtype=np.float64), dtype=np.float32)


def _norm(vector: Narrow) -> float:
    return float(np.linalg.norm(vector))


def float32_slack(dim: int, largest: NDArray[Any]) -> Wide:
    """Return how far two float32 dot products must differ to be surely in that order.

    The error of one is at most lambda * sqrt(dim) * u * |q| * |b|, but for a chance that vanishes with lambda (Higham
    and Mary 2019, A new approach to probabilistic rounding error analysis), with u = 2**-24. That already takes every
    partial sum to be as large as it can be, so lambda = 3 leaves ample room; a larger one only makes more scores be
    computed again. 4 more roundings are those of the vectors and of the scores compared.

    Args:
        dim: Terms of a product.
        largest: The largest |q| * |b| that a product may have.
    """
    return np.asarray(2 * (3 * np.sqrt(dim) + 4) * 2.0**-24 * largest, dtype=np.float64)


def dots_of_pairs(left: Floats, right: Floats, pairs: tuple[Rows, Rows]) -> NDArray[np.float64]:
    """Return the float64 dot product `left[i] . right[j]` of each pair (i, j), in their order.

    Products and sums run along one row, so equal rows get equal scores wherever they stand.

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


def duplicates_of(vectors: Floats) -> Rows:
    """Return for each row a row that holds the same vector, the same one for all duplicates; mostly the row itself.

    Duplicates tie everywhere, so their scores need no second computation. Two equal rows may still be given different
    numbers, where another vector has the same projection as they: that costs time, never a rank.
    """
    rows = np.arange(len(vectors))
    axis = np.random.default_rng(0).standard_normal((1, vectors.shape[1]))
    projections = dots_of_pairs(vectors, axis, (rows, np.zeros_like(rows)))
    _, first, group = np.unique(projections, return_index=True, return_inverse=True)
    duplicate = np.asarray(first[group], dtype=np.int64)
    for row in np.flatnonzero(duplicate != rows):
        if not np.array_equal(vectors[row], vectors[duplicate[row]]):
            duplicate[row] = row
    return duplicate
