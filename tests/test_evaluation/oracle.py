"""A slow second opinion on every metric: plain Python, one query at a time, written from the definitions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def oracle(ranking: Sequence[int], gains: Mapping[int, float], k: int) -> dict[str, float]:
    """All figures of one query with at least one relevant item; `ranking` holds each item at most once."""
    total = len(gains)
    top = [item for item in ranking[:k] if item >= 0]
    hits = [item in gains for item in top]
    return {
        f"R@{k}": float(any(hits)),
        f"recall@{k}": len(set(top) & set(gains)) / total,
        f"precision@{k}": len(set(top) & set(gains)) / k,
        f"mrr@{k}": next((1 / place for place, hit in enumerate(hits, 1) if hit), 0.0),
        f"map@{k}": _precisions(ranking, gains, k) / min(k, total),
        f"ndcg@{k}": _dcg([float(hit) for hit in hits]) / _dcg([1.0] * min(k, total)),
        f"graded_ndcg@{k}": _dcg([gains.get(item, 0) for item in top]) / _dcg(sorted(gains.values())[::-1][:k]),
        "map@R": _precisions(ranking, gains, total) / total,
        "r_precision": sum(item in gains for item in ranking[:total]) / total,
    }


def _precisions(ranking: Sequence[int], gains: Mapping[int, float], depth: int) -> float:
    found = [sum(item in gains for item in ranking[:place]) / place for place in range(1, len(ranking) + 1)]
    return sum(value for item, value in list(zip(ranking, found, strict=True))[:depth] if item in gains)


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
