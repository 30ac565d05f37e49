"""Pages of a ranking: how deep to rank for one, and which of the ranked rows it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .operating_points import Choice
from .request import MAX_K, SearchRequest

# Pages after the first are cut from rankings of these depths, so that those of one depth fit together.
_DEPTHS = (100, 1_000, MAX_K)

Rows = tuple[NDArray[np.int64], NDArray[np.float32]]


class Ranking(NamedTuple):
    """Row ids (n, k) padded with -1, scores (n, k) padded with -inf, and how they were found."""

    row_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    choice: Choice


def depth(request: SearchRequest, *, own: bool = False) -> int:
    """Return how many hits are ranked for a page; the pages after the first are cut from rankings of few depths."""
    needed = min(request.offset + request.k + own, MAX_K)
    return next(one for one in _DEPTHS if one >= needed) if request.offset else needed


def page(ranking: Ranking, request: SearchRequest) -> Ranking:
    """Return the columns of a ranking that a page shows, without the scores below the floor."""
    shown = slice(request.offset, request.offset + request.k)
    ids, scores = ranking.row_ids[:, shown], ranking.scores[:, shown]
    if request.min_score is not None:
        low = scores < request.min_score
        ids, scores = np.where(low, -1, ids), np.where(low, np.float32(-np.inf), scores)
    return ranking._replace(row_ids=ids, scores=scores)


def shown_rows(ranking: Ranking, request: SearchRequest, own: Sequence[int | None]) -> Iterator[Rows]:
    """Yield row ids and scores, (k,) or fewer, that the page of each query shows.

    Args:
        ranking: Of all queries.
        request: Says which page it is, and which scores are too low for it.
        own: The row of each query that is an item itself, which is no hit of its own; None for others.
    """
    page = slice(request.offset, request.offset + request.k)
    for own_row, ids, scores in zip(own, ranking.row_ids, ranking.scores, strict=True):
        kept = ids >= 0 if own_row is None else (ids >= 0) & (ids != own_row)
        if request.min_score is not None:
            kept &= scores >= request.min_score
        yield ids[kept][page], scores[kept][page]
