"""Exact nearest neighbors by comparing everything with everything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import check_count
from .exact_scores import Floats, Narrow, Rows, Wide, dots_of_pairs, float32_slack, power_of_two_scale

# The k-th best of the maxima of so many groups a hit bounds the k-th best score from below; more groups bound it
# closer, at more work.
_GROUPS_A_HIT = 8
_BLOCK_VALUES = 1 << 22


def exact_top_k(
    base: NDArray[Any], queries: NDArray[Any], k: int, *, query_block: int = 512, base_block: int = 500_000
) -> tuple[Rows, Wide]:
    """Return the `k` rows of `base` with the largest dot product for each query.

    Blocks of float32 products propose every row that could be among the best; those few are scored again in float64,
    the same way wherever they stand, so that equal vectors have equal scores and the result does not depend on the
    sizes of the blocks.

    Args:
        base: (n, dim) finite floats; unit rows make the dot product a cosine.
        queries: (nq, dim) finite floats.
        k: How many to return; at most n come back.
        query_block: Queries compared at a time, fewer where blocks of the base are long. The work space is this times
            `base_block` times 4 bytes, at most 16 MiB, or one row of scores where that is longer.
        base_block: Rows of the base compared at a time.

    Returns:
        Row ids (nq, min(k, n)) and scores of the same shape; best first, equal scores by lower row id.

    Raises:
        ValueError: `k` or a block is below 1, or the shapes do not fit.
    """
    for name, value in (("k", k), ("query_block", query_block), ("base_block", base_block)):
        check_count(name, value)
    base, queries = np.asarray(base), np.asarray(queries)
    if base.ndim != 2 or queries.ndim != 2 or base.shape[1] != queries.shape[1]:
        raise ValueError(f"base {base.shape} and queries {queries.shape} must be (n, dim) and (nq, dim)")
    k = min(k, len(base))
    ids = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float64)
    if not ids.size:
        return ids, scores
    near, far = _float32(queries), _float32(base)
    slack = float32_slack(base.shape[1], _lengths(near) * _lengths(far).max())
    width = min(base_block, len(base))
    step = max(1, min(query_block, _BLOCK_VALUES // width))
    for top in range(0, len(queries), step):
        block = slice(top, top + step)
        proposed = [
            _propose(near[block], far[left : left + width], k, slack[block], left) for left in range(0, len(far), width)
        ]
        query, row = (np.concatenate(parts) for parts in zip(*proposed, strict=True))
        ids[block], scores[block] = _best(queries[block], base, query, row, k)
    return ids, scores


def _float32(rows: Floats) -> Narrow:
    """Return rows as float32, scaled by a power of two where they are wider, so that nothing overflows."""
    if rows.dtype in (np.float16, np.float32):
        return np.ascontiguousarray(rows, dtype=np.float32)
    return np.ascontiguousarray(rows * power_of_two_scale(rows), dtype=np.float32)


def _lengths(rows: Narrow) -> Wide:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)))


def _propose(queries: Narrow, base: Narrow, k: int, slack: Wide, first: int) -> tuple[Rows, Rows]:
    """Return (query, base) rows of all that may be among the best k of a block."""
    scores = queries @ base.T
    query, row = np.nonzero(scores >= (_bound(scores, k) - slack)[:, None])
    return query, row + first


def _bound(scores: Narrow, k: int) -> Narrow:
    """Return for each query a score that at least k rows reach: the k-th best of the maxima of groups."""
    count = scores.shape[1]
    if count <= k:
        return np.asarray(scores.min(axis=1))
    width = max(1, count // min(count, _GROUPS_A_HIT * k))
    whole = count // width * width
    # Groups of entries that lie apart, so that each step of the maximum runs along whole rows.
    best = scores[:, :whole].reshape(len(scores), width, -1).max(axis=1)
    return np.asarray(np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k])


def _best(queries: Floats, base: Floats, query: Rows, row: Rows, k: int) -> tuple[Rows, Wide]:
    """Score what was proposed in float64, and return the best k of each query."""
    score = dots_of_pairs(queries, base, (query, row))
    order = np.lexsort((row, -score, query))
    starts = np.searchsorted(query[order], np.arange(len(queries)))
    kept = order[starts[:, None] + np.arange(k)]
    return row[kept], score[kept]
