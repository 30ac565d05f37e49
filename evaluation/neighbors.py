"""Exact nearest neighbours by comparing everything with everything: the ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_VALUES = 1 << 24


def exact_top_k(base: NDArray[Any], queries: NDArray[Any], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the `k` rows of `base` with the largest dot product for each query.

    Computed in float64, in blocks of queries, so the work space is about 128 MiB beyond a float64 copy of `base`: meant
    for tests and for reports on up to some hundred thousand vectors, not for serving.

    Args:
        base: (n, dim); unit rows make the dot product a cosine.
        queries: (nq, dim).
        k: How many to return; at most n come back.

    Returns:
        Row ids (nq, min(k, n)) and scores of the same shape; best first, equal scores by lower row id.

    Raises:
        ValueError: `k` is below 1, or the shapes do not fit.
    """
    if k < 1:
        raise ValueError(f"k is {k!r}; give 1 or more")
    if base.ndim != 2 or queries.ndim != 2 or base.shape[1] != queries.shape[1]:
        raise ValueError(f"base {base.shape} and queries {queries.shape} must be (n, dim) and (nq, dim)")
    k = min(k, len(base))
    wide = base.astype(np.float64)
    ids = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float64)
    step = max(1, _BLOCK_VALUES // max(1, len(base)))
    for start in range(0, len(queries), step):
        block = queries[start : start + step].astype(np.float64) @ wide.T
        # A stable sort of the whole line, not a partition: it alone keeps equal scores in the order of their rows.
        order = np.argsort(-block, axis=1, kind="stable")[:, :k]
        ids[start : start + step] = order
        scores[start : start + step] = np.take_along_axis(block, order, axis=1)
    return ids, scores
