"""Retrieval metrics, among them the three that are all called recall somewhere; here each has its own name.

All take ranked row ids, best first, padded with -1 where a query has fewer hits. They look at ids, never at scores:
items with equal scores count in the order in which they were ranked, so a ranking that breaks ties by lower row id, as
every search of this project does, has one figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap
from .checks import as_ids, check_count, check_type
from .ranks import Ranks, Relevance, Relevant, ranks_in

Ids = NDArray[np.int64]


def ann_recall(found: Ids, exact: Ids) -> float:
    """Return the share of the exact hits that were found: mean over queries of |found & exact| / |exact|.

    Args:
        found: (nq, k) row ids that the index gave.
        exact: (nq, k) row ids of the exact search for the same k. Queries without any (all -1) are left out.

    Returns:
        A number in [0, 1]. Where an item ties with the k-th exact hit, finding it instead counts as a miss.

    Raises:
        ValueError: The two do not have the same shape, or no query has an exact hit.
    """
    found, exact = as_ids("found", found), as_ids("exact", exact)
    if found.shape != exact.shape or found.ndim != 2:
        raise ValueError(f"found {found.shape} and exact {exact.shape} must have the same shape (nq, k)")
    truths = [set(line[line >= 0].tolist()) for line in exact]
    shares = [len(truth & set(line.tolist())) / len(truth) for line, truth in zip(found, truths, strict=True) if truth]
    return _mean(shares)


def hit_rate_at_k(ranked: Ids, relevant: Relevant, k: int) -> float:
    """Return R@k, what papers on CLIP report: the share of queries with any relevant item among the first `k`.

    Args:
        ranked: (nq, m) row ids, best first, m >= k unless the collection is smaller.
        relevant: For each query the row ids that belong to it; queries without any are left out.
        k: How deep to look.

    Raises:
        ValueError: Lengths differ, `k` is below 1, or no query has a relevant item.
    """
    return float(hit_rate(_ranks(ranked, relevant, k), k).mean())


def recall_at_k(ranked: Ids, relevant: Relevant, k: int) -> float:
    """Return recall@k: mean over queries of |relevant among the first k| / |relevant|.

    With one relevant item a query it equals `hit_rate_at_k`. With five captions an image, recall@1 is at most 0.2.

    Args:
        ranked: As for `hit_rate_at_k`.
        relevant: As for `hit_rate_at_k`.
        k: How deep to look.

    Raises:
        ValueError: Lengths differ, `k` is below 1, or no query has a relevant item.
    """
    return float(recall(_ranks(ranked, relevant, k), k).mean())


def _ranks(ranked: Ids, relevant: Relevant, k: int) -> Ranks:
    check_count("k", k)
    return ranks_in(as_ids("ranked", ranked), Relevance.from_lists(relevant))


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("no query has a relevant item, so there is nothing to measure")
    return float(np.mean(values))


Values = NDArray[np.float64]


def hit_rate(ranks: Ranks, k: int) -> Values:
    """R@k = [r_1 <= k]: the "recall" of papers on CLIP, VSE++ and HREM."""
    return (ranks.first <= k).astype(np.float64)


def recall(ranks: Ranks, k: int) -> Values:
    """recall@k = #{r_i <= k} / R."""
    return ranks.add_up(ranks.rank <= k) / ranks.totals


def precision(ranks: Ranks, k: int) -> Values:
    """precision@k = #{r_i <= k} / k, by k also where fewer items were ranked (as in trec_eval)."""
    return ranks.add_up(ranks.rank <= k) / k


def reciprocal_rank(ranks: Ranks, k: int) -> Values:
    """mrr@k = 1 / r_1 if r_1 <= k, else 0 (Voorhees 1999, TREC-8 question answering)."""
    return np.where(ranks.first <= k, 1 / ranks.first, 0)


def average_precision(ranks: Ranks, k: int) -> Values:
    """map@k = sum over r_i <= k of i / r_i, divided by min(k, R)."""
    return ranks.add_up(np.where(ranks.rank <= k, ranks.position / ranks.rank, 0)) / np.minimum(k, ranks.totals)


def ndcg(ranks: Ranks, k: int) -> Values:
    """ndcg@k with gain 1 for each relevant item: sum over r_i <= k of 1 / log2(r_i + 1), divided by its best value."""
    return _ndcg(ranks, np.ones(len(ranks.gain)), k)


def graded_ndcg(ranks: Ranks, k: int) -> Values:
    """graded_ndcg@k with g_i for 1: the gain itself, not 2^g - 1 (Jarvelin and Kekalainen 2002; as in trec_eval)."""
    return _ndcg(ranks, ranks.gain, k)


def average_precision_at_r(ranks: Ranks) -> Values:
    """map@R = sum over r_i <= R of i / r_i, divided by R (Musgrave 2020; ECCV Caption, Chun 2022)."""
    deep = ranks.rank <= ranks.totals[ranks.query]
    return ranks.add_up(np.where(deep, ranks.position / ranks.rank, 0)) / ranks.totals


def r_precision(ranks: Ranks) -> Values:
    """r_precision = #{r_i <= R} / R."""
    return ranks.add_up(ranks.rank <= ranks.totals[ranks.query]) / ranks.totals


def median_rank(first: Values) -> float:
    """Return medR = floor(median(r_1 - 1)) + 1, as VSE++ prints it; inf where the median query has no hit."""
    # The two middle values, not their mean by way of np.median: it warns of the difference of two infinities.
    low, high = (np.partition(first, at)[at] for at in ((len(first) - 1) // 2, len(first) // 2))
    return float(np.floor((low + high) / 2 - 1) + 1)


def _ndcg(ranks: Ranks, gain: Values, k: int) -> Values:
    order = np.lexsort((-gain, ranks.query))
    got = ranks.add_up(np.where(ranks.rank <= k, gain / np.log2(ranks.rank + 1), 0))
    return got / ranks.add_up(np.where(ranks.position <= k, gain[order] / np.log2(ranks.position + 1), 0))


_AT_K = {
    "R": hit_rate,
    "recall": recall,
    "precision": precision,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "ndcg": ndcg,
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
    median = median_rank(ranks.first)
    if np.isfinite(median):
        figures["medR"] = median
    figures |= {"queries": len(ranks.totals), "left_out": ranks.left_out}
    check_type("bootstrap", bootstrap, Bootstrap)
    if bootstrap is not None:
        figures["intervals"] = bootstrap.intervals(columns, None if clusters is None else clusters[ranks.query_rows])
    return figures


def sum_of_recalls(*directions: Ranks) -> float:
    """Return rsum: 100 times the sum of R@1, R@5 and R@10 of all directions given."""
    return 100 * sum(float(hit_rate(ranks, depth).mean()) for ranks in directions for depth in (1, 5, 10))


def columns_of(ranks: Ranks, k: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Return one value for each measured query, of all metrics that are means over queries."""
    at_k = _AT_K | ({"graded_ndcg": graded_ndcg} if ranks.graded else {})
    columns = {f"{name}@{depth}": metric(ranks, depth) for name, metric in at_k.items() for depth in k}
    if ranks.depth >= ranks.totals.max():
        columns |= {"map@R": average_precision_at_r(ranks), "r_precision": r_precision(ranks)}
    if np.all(np.isfinite(ranks.first)):
        columns["meanR"] = ranks.first
    return columns
