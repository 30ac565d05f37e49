"""The formulas: one value for each measured query, from the ranks of its relevant items.

r_1 < r_2 < ... are the ranks of the relevant items of a query, R is their number, found or not. All values lie in
[0, 1], and a figure is the mean over the queries that have a relevant item.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .ranks import Ranks

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
    return ranks.add_up(np.where(ranks.rank <= k, ranks.place / ranks.rank, 0)) / np.minimum(k, ranks.totals)


def ndcg(ranks: Ranks, k: int) -> Values:
    """ndcg@k with gain 1 for each relevant item: sum over r_i <= k of 1 / log2(r_i + 1), divided by its best value."""
    return _ndcg(ranks, np.ones(len(ranks.gain)), k)


def graded_ndcg(ranks: Ranks, k: int) -> Values:
    """graded_ndcg@k with g_i for 1: the gain itself, not 2^g - 1 (Jarvelin and Kekalainen 2002; as in trec_eval)."""
    return _ndcg(ranks, ranks.gain, k)


def average_precision_at_r(ranks: Ranks) -> Values:
    """map@R = sum over r_i <= R of i / r_i, divided by R (Musgrave 2020; ECCV Caption, Chun 2022)."""
    deep = ranks.rank <= ranks.totals[ranks.query]
    return ranks.add_up(np.where(deep, ranks.place / ranks.rank, 0)) / ranks.totals


def r_precision(ranks: Ranks) -> Values:
    """r_precision = #{r_i <= R} / R."""
    return ranks.add_up(ranks.rank <= ranks.totals[ranks.query]) / ranks.totals


def median_rank(first: Values) -> float:
    """Return medR = floor(median(r_1 - 1)) + 1, as VSE++ prints it; inf where the median query found nothing."""
    # The two middle values, not their mean by way of np.median: it warns of the difference of two infinities.
    low, high = (np.partition(first, at)[at] for at in ((len(first) - 1) // 2, len(first) // 2))
    return float(np.floor((low + high) / 2 - 1) + 1)


def _ndcg(ranks: Ranks, gain: Values, k: int) -> Values:
    order = np.lexsort((-gain, ranks.query))
    got = ranks.add_up(np.where(ranks.rank <= k, gain / np.log2(ranks.rank + 1), 0))
    return got / ranks.add_up(np.where(ranks.place <= k, gain[order] / np.log2(ranks.place + 1), 0))
