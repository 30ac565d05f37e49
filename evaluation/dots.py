"""Scores that do not depend on how they are computed: float64, pair by pair, without BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# So many rows of 512 values, widened to float64, stay in the cache of a core.
_CHUNK_ROWS = 256
Floats = NDArray[Any]
Rows = NDArray[np.int64]


def dots_of_pairs(left: Floats, right: Floats, pairs: tuple[Rows, Rows]) -> NDArray[np.float64]:
    """Return `left[i] . right[j]` for each pair (i, j), in their order.

    Products and sums run along one line, so equal lines get equal scores wherever they stand.

    Args:
        left: (n, dim).
        right: (m, dim).
        pairs: Rows of `left` and rows of `right`, both (p,).
    """
    scores = np.empty(len(pairs[0]))
    for start in range(0, len(scores), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
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
