"""Three figures that are all called recall somewhere; here each has its own name.

All take ranked row ids, best first, padded with -1 where a query has fewer hits. They look at ids, never at scores:
items with equal scores count in the order in which they were ranked, so a ranking that breaks ties by lower row id, as
every search of this project does, has one figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import measures
from .ranks import Ranks, ranks_in
from .relevance import Relevance, Relevant

Ids = NDArray[np.int64]


def ann_recall(found: Ids, exact: Ids) -> float:
    """Return the share of the exact hits that were found: mean over queries of |found & exact| / |exact|.

    Args:
        found: (nq, k) row ids that the index gave.
        exact: (nq, k) row ids of the exact search for the same k. Queries without any (all -1) are left out.

    Returns:
        A number in [0, 1]. Where an item ties with the k-th exact hit, finding it in its place counts as a miss.

    Raises:
        ValueError: The two do not have the same shape, or no query has an exact hit.
    """
    if found.shape != exact.shape:
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
    return float(measures.hit_rate(_ranks(ranked, relevant, k), k).mean())


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
    return float(measures.recall(_ranks(ranked, relevant, k), k).mean())


def _ranks(ranked: Ids, relevant: Relevant, k: int) -> Ranks:
    if k < 1:
        raise ValueError(f"k is {k!r}; give 1 or more")
    return ranks_in(np.asarray(ranked, dtype=np.int64), Relevance.from_lists(relevant))


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("no query has a relevant item, so there is nothing to measure")
    return float(np.mean(values))
