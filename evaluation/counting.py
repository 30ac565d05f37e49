"""Ranks of relevant items straight from embeddings, by counting what scores higher instead of sorting.

Scores come in blocks from float32 matrix products. One block serves both directions: texts rank images in its lines,
images rank texts in its columns. Scores so close that float32 cannot tell them apart are computed again in float64, so
the ranks depend neither on the blocks nor on the BLAS in use.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .asking import Asking
from .dots import dots_of_pairs
from .relevance import Relevance
from .shifted import Shifted

# A block is large enough for the product to run at full speed, a strip of it small enough for the cache of one core.
_BLOCK_VALUES = 1 << 22
_BLOCK_COLUMNS = 1 << 12
_STRIP_VALUES = 1 << 18
# Hits in a column are added up in bytes.
_STRIP_LINES = 255
_THREADS = min(8, os.cpu_count() or 1)
Floats = NDArray[Any]
Rows = NDArray[np.int64]
Ranks = NDArray[np.float64]
Scores = NDArray[np.float32]


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
