"""All figures of a ranking or of two sets of embeddings at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import measures
from .bootstrap import Bootstrap
from .counting import ranks_by_counting
from .ranks import Ranks, ranks_in
from .relevance import Relevance, Relevant

_AT_K = {
    "R": measures.hit_rate,
    "recall": measures.recall,
    "precision": measures.precision,
    "mrr": measures.reciprocal_rank,
    "map": measures.average_precision,
    "ndcg": measures.ndcg,
}


def evaluate_ranking(
    ranked_ids: NDArray[Any], relevant: Relevant, k: Sequence[int] = (1, 5, 10), bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """Return every metric of given rankings.

    Args:
        ranked_ids: (nq, m) row ids, best first, padded with -1. Ties count in the order given; an item that comes twice
            counts at its first place.
        relevant: For each query the ids that answer it, any number, or a mapping from id to gain above 0. Queries
            without any are left out of every figure and counted.
        k: How deep to look; each at most m.
        bootstrap: Give one to get intervals.

    Returns:
        For each k `R@k` (any hit), `recall@k`, `precision@k`, `mrr@k`, `map@k`, `ndcg@k`, and `graded_ndcg@k` where
        gains are given, all in [0, 1]. `map@R` and `r_precision` where m is not below the largest number of relevant
        items; `medR` and `meanR` (of the first relevant item, from 1) where the rankings are long enough to know them.
        `queries` and `left_out`: how many were measured and not. With a bootstrap `intervals`: (low, high).

    Raises:
        ValueError: Shapes do not fit, a k is below 1 or above m, ids are no integers, or no query has a relevant item.
    """
    ranked = np.asarray(ranked_ids)
    if ranked.dtype.kind not in "iu":
        raise ValueError(f"ranked_ids has dtype {ranked.dtype}; give integer row ids, padded with -1")
    ranks = ranks_in(ranked.astype(np.int64, copy=False), Relevance.from_lists(relevant))
    _check_k(k, ranks.depth, "ranks given")
    return _figures(ranks, k, bootstrap)


def evaluate_embeddings(
    image_vectors: NDArray[Any],
    text_vectors: NDArray[Any],
    pairs: NDArray[Any] | Sequence[tuple[int, int]],
    k: Sequence[int] = (1, 5, 10),
    *,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """Return every metric of exact search in both directions.

    Scores are dot products, equal ones ranked by lower row. Beyond the vectors (and a float32 copy of those that are
    not float32) it takes about 100 MiB.

    Args:
        image_vectors: (n, dim), unit rows.
        text_vectors: (m, dim), unit rows.
        pairs: (p, 2) rows (image, text) that belong together; any number for an image or a text, including none.
        k: How deep to look; each at most n and m.
        bootstrap: Give one to get intervals.

    Returns:
        `text_to_image` and `image_to_text`, each as `evaluate_ranking` returns it, and `rsum`: 100 times the sum of
        R@1, R@5 and R@10 of both, at most 600, whatever `k` is.

    Raises:
        ValueError: Shapes do not fit, a vector is not finite, a pair names an unknown row, there is no pair, or a k is
            below 1 or above the size of a collection.
    """
    images, texts = np.asarray(image_vectors), np.asarray(text_vectors)
    _check_vectors(images, texts)
    rows = _pair_rows(pairs, len(images), len(texts))
    _check_k(k, len(images), "images")
    _check_k(k, len(texts), "texts")
    t2i = ranks_by_counting(texts, images, Relevance.from_rows(rows[:, 1], rows[:, 0], len(texts)))
    i2t = ranks_by_counting(images, texts, Relevance.from_rows(rows[:, 0], rows[:, 1], len(images)))
    rsum = 100 * sum(float(measures.hit_rate(ranks, depth).mean()) for ranks in (t2i, i2t) for depth in (1, 5, 10))
    return {
        "text_to_image": _figures(t2i, k, bootstrap),
        "image_to_text": _figures(i2t, k, bootstrap),
        "rsum": rsum,
    }


def _figures(ranks: Ranks, k: Sequence[int], bootstrap: Bootstrap | None) -> dict[str, Any]:
    columns = _columns(ranks, k)
    figures: dict[str, Any] = {name: float(values.mean()) for name, values in columns.items()}
    median = measures.median_rank(ranks.first)
    if np.isfinite(median):
        figures["medR"] = median
    figures |= {"queries": len(ranks.totals), "left_out": ranks.left_out}
    if bootstrap is not None:
        figures["intervals"] = bootstrap.intervals(columns)
    return figures


def _columns(ranks: Ranks, k: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """One value for each measured query, of all metrics that are means over queries."""
    at_k = _AT_K | ({"graded_ndcg": measures.graded_ndcg} if ranks.graded else {})
    columns = {f"{name}@{depth}": metric(ranks, depth) for name, metric in at_k.items() for depth in k}
    if ranks.depth >= ranks.totals.max():
        columns |= {"map@R": measures.average_precision_at_r(ranks), "r_precision": measures.r_precision(ranks)}
    if np.all(np.isfinite(ranks.first)):
        columns["meanR"] = ranks.first
    return columns


def _check_k(k: Sequence[int], limit: int, what: str) -> None:
    if not k:
        raise ValueError("k is empty; give at least one depth, such as (1, 5, 10)")
    for depth in k:
        if not 1 <= depth <= limit:
            raise ValueError(f"k={depth!r} does not lie between 1 and the {limit} {what}; give other values of k")


def _check_vectors(images: NDArray[Any], texts: NDArray[Any]) -> None:
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(f"image vectors {images.shape} and text vectors {texts.shape} must be (n, dim) and (m, dim)")
    for name, vectors in (("image", images), ("text", texts)):
        # The sum of a line is not finite where any of its values is not; it needs no array of the whole size.
        with np.errstate(invalid="ignore", over="ignore"):
            wrong = ~np.isfinite(vectors.sum(axis=1, dtype=np.float32))
        if np.any(wrong):
            raise ValueError(f"{name} vector {int(np.argmax(wrong))} holds NaN or infinite values; encode it again")


def _pair_rows(pairs: NDArray[Any] | Sequence[tuple[int, int]], images: int, texts: int) -> NDArray[np.int64]:
    rows = np.asarray(pairs)
    if not rows.size:
        raise ValueError("there are no pairs, so there is nothing to measure; give (image row, text row) pairs")
    if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "iu":
        raise ValueError(f"pairs of shape {rows.shape}, {rows.dtype}, must be (p, 2) integers: image row, text row")
    unknown = np.any((rows < 0) | (rows >= [images, texts]), axis=1)
    if np.any(unknown):
        place = int(np.argmax(unknown))
        image, text = rows[place].tolist()
        raise ValueError(f"pair {place} is image {image} and text {text}; there are {images} images and {texts} texts")
    return rows.astype(np.int64)
