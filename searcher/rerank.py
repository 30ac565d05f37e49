"""Re-ranking by a function of the caller's own, such as a cross-encoder that reads query and caption together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import plain_array

from .errors import ParameterError
from .hits import Hits
from .pages import page_depth
from .query import shown_value
from .request import SearchRequest

# The query as it was given, or its parts, and its hits, best first, to a score for each hit (n,): higher is better.
Rerank = Callable[[Any, Hits], Any]


def candidates_of(request: SearchRequest) -> SearchRequest:
    """Return the request for the hits that are ranked again: the best hundred, of deeper pages thousand or all.

    Raises:
        ParameterError: The request is for diverse hits, whose order would be lost.
    """
    if request.diversity:
        raise ParameterError(
            f"rerank orders hits by its own scores, and diversity={request.diversity:g} by how unlike they are; "
            "leave one of them out"
        )
    return replace(request, k=page_depth(request.offset + request.k), offset=0)


def check_rerank(rerank: Any) -> None:
    """Refuse what is no function.

    Raises:
        ParameterError: It is none.
    """
    if not callable(rerank):
        raise ParameterError(
            f"rerank={shown_value(rerank)} is of type {type(rerank).__name__}; give a function of the query and its "
            "hits that returns a score for each hit"
        )


def reranked(hits: Hits, request: SearchRequest, rerank: Rerank) -> Hits:
    """Return the page that a request asks for of hits in the order of the caller's scores; equal ones stay in order.

    Args:
        hits: The candidates.
        request: Says which page it is.
        rerank: Called once, unless there are no hits; what it raises is not caught.

    Raises:
        ParameterError: It does not return a finite number for each hit.
    """
    scores = _checked(rerank(hits.query.content, hits), len(hits)) if len(hits) else np.zeros(0)
    order = np.argsort(-scores, kind="stable")[request.offset : request.offset + request.k]
    return replace(
        hits,
        row_ids=hits.row_ids[order],
        scores=hits.scores[order],
        offset=request.offset,
        hits=tuple(
            replace(hits[at], rank=request.offset + number, rerank_score=float(scores[at]))
            for number, at in enumerate(order.tolist(), start=1)
        ),
    )


def _checked(given: Any, count: int) -> NDArray[np.float64]:
    must = f"return {count} finite numbers, one for each hit in their order"
    try:
        scores = np.asarray(plain_array(given), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"rerank returned {shown_value(given)}, which are no numbers; {must}") from error
    if scores.shape != (count,):
        raise ParameterError(f"rerank returned scores of shape {scores.shape} for {count} hits; {must}")
    if not np.isfinite(scores).all():
        wrong = int(np.argmin(np.isfinite(scores)))
        raise ParameterError(f"rerank returned {scores[wrong]} for hit {wrong + 1}; {must}")
    return scores
