"""One collection asked about itself: do the captions of one image find each other?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap
from .checks import check_finite, check_k
from .counting import ranks_by_counting
from .dots import dots_of_pairs
from .figures import figures_of
from .ranks import Ranks
from .relevance import Relevance


def evaluate_within(
    vectors: NDArray[Any],
    groups: NDArray[Any] | Sequence[int],
    k: Sequence[int] = (1, 5, 10),
    *,
    queries: NDArray[Any] | Sequence[int] | None = None,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """Return every metric of exact search of a collection in itself, each row's own place left out of its ranking.

    Relevant are the other rows of the same group: for texts, those of the same image. A row that is alone in its group
    is left out of every figure and counted. Scores are dot products, equal ones ranked by lower row.

    Args:
        vectors: (n, dim), unit rows.
        groups: (n,) integers; rows with the same one belong together.
        k: How deep to look; each at most n - 1.
        queries: Rows that ask, each at most once; left out, all do. They always ask all n rows, so a sample costs its
            share of the time.
        bootstrap: Give one to get intervals; the queries of one group are resampled together.

    Returns:
        The same names as `evaluate_ranking` gives, without gains.

    Raises:
        ValueError: Shapes do not fit, a vector is not finite, a query does not exist or comes twice, a k is below 1 or
            above n - 1, or no query shares its group with another row.
    """
    rows, labels = np.asarray(vectors), np.asarray(groups)
    _check(rows, labels)
    check_k(k, len(rows) - 1, "other rows")
    asked = np.arange(len(rows)) if queries is None else _asked(np.asarray(queries), len(rows))
    relevance = _others(labels, asked)
    ranks = _rank_without_own(
        ranks_by_counting(rows if queries is None else rows[asked], rows, relevance), relevance, rows, asked
    )
    return figures_of(Ranks.of(relevance, ranks, len(rows) - 1), k, bootstrap, labels[asked])


def _check(rows: NDArray[Any], labels: NDArray[Any]) -> None:
    if rows.ndim != 2:
        raise ValueError(f"vectors of shape {rows.shape} must be (n, dim)")
    if labels.shape != (len(rows),) or labels.dtype.kind not in "iu":
        raise ValueError(f"groups of shape {labels.shape}, {labels.dtype}, must be {len(rows)} integers, one a vector")
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} vectors have no other to find; give two or more")
    check_finite(rows, "row")


def _asked(queries: NDArray[Any], n: int) -> NDArray[np.int64]:
    if queries.ndim != 1 or queries.dtype.kind not in "iu":
        raise ValueError(f"queries of shape {queries.shape}, {queries.dtype}, must be row numbers")
    wrong = queries[(queries < 0) | (queries >= n)]
    if len(wrong):
        raise ValueError(f"query {int(wrong[0])} is no row; the rows are 0 to {n - 1}")
    if len(np.unique(queries)) < len(queries):
        raise ValueError("a query comes twice; give each row at most once")
    return queries.astype(np.int64)


def _others(labels: NDArray[Any], asked: NDArray[np.int64]) -> Relevance:
    """Return for each asked row the others of its group."""
    order = np.argsort(labels, kind="stable")
    starts, stops = (np.searchsorted(labels[order], labels[asked], side) for side in ("left", "right"))
    sizes = stops - starts
    query = np.repeat(np.arange(len(asked)), sizes)
    place = np.arange(len(query)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    item = order[np.repeat(starts, sizes) + place]
    other = item != asked[query]
    return Relevance.from_rows(query[other], item[other], len(asked))


def _rank_without_own(
    ranks: NDArray[np.float64], relevance: Relevance, rows: NDArray[Any], asked: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Move up by one what the query's own row stands before."""
    own_row = asked[relevance.query]
    item = dots_of_pairs(rows, rows, (own_row, relevance.item))
    own = dots_of_pairs(rows, rows, (asked, asked))[relevance.query]
    ahead = (own > item) | ((own == item) & (own_row < relevance.item))
    return np.asarray(ranks - ahead)
