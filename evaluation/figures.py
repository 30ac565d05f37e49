"""All figures of known ranks, under their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import measures
from .bootstrap import Bootstrap
from .ranks import Ranks

_AT_K = {
    "R": measures.hit_rate,
    "recall": measures.recall,
    "precision": measures.precision,
    "mrr": measures.reciprocal_rank,
    "map": measures.average_precision,
    "ndcg": measures.ndcg,
}


def figures_of(
    ranks: Ranks, k: Sequence[int], bootstrap: Bootstrap | None = None, clusters: NDArray[Any] | None = None
) -> dict[str, Any]:
    """Return every figure of one direction, as `evaluate_ranking` describes it.

    Args:
        ranks: Where the relevant items came.
        k: How deep to look, checked before.
        bootstrap: Give one to get intervals.
        clusters: For each of all queries which cluster it is drawn with; left out, each is its own.
    """
    columns = columns_of(ranks, k)
    figures: dict[str, Any] = {name: float(values.mean()) for name, values in columns.items()}
    median = measures.median_rank(ranks.first)
    if np.isfinite(median):
        figures["medR"] = median
    figures |= {"queries": len(ranks.totals), "left_out": ranks.left_out}
    if bootstrap is not None:
        figures["intervals"] = bootstrap.intervals(columns, None if clusters is None else clusters[ranks.asked])
    return figures


def sum_of_recalls(*directions: Ranks) -> float:
    """Return rsum: 100 times the sum of R@1, R@5 and R@10 of all directions given."""
    return 100 * sum(float(measures.hit_rate(ranks, depth).mean()) for ranks in directions for depth in (1, 5, 10))


def columns_of(ranks: Ranks, k: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Return one value for each measured query, of all metrics that are means over queries."""
    at_k = _AT_K | ({"graded_ndcg": measures.graded_ndcg} if ranks.graded else {})
    columns = {f"{name}@{depth}": metric(ranks, depth) for name, metric in at_k.items() for depth in k}
    if ranks.depth >= ranks.totals.max():
        columns |= {"map@R": measures.average_precision_at_r(ranks), "r_precision": measures.r_precision(ranks)}
    if np.all(np.isfinite(ranks.first)):
        columns["meanR"] = ranks.first
    return columns
