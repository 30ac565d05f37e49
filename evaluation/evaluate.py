"""All metrics of a ranking or of two sets of embeddings at once; in folds; within one collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap
from .checks import Pairs, check_finite, check_k, check_sides, check_type, pair_rows
from .exact_ranks import ranks_both_ways, ranks_by_counting
from .exact_scores import dots_of_pairs
from .hubs import HubCorrection
from .item_ids import as_rows
from .metrics import columns_of, figures_of, sum_of_recalls
from .ranks import Ranks, Relevance, Relevant, check_relevant, ranks_in


def evaluate_ranking(
    ranked_ids: NDArray[Any] | Sequence[Sequence[Any]],
    relevant: Relevant,
    k: Sequence[int] = (1, 5, 10),
    bootstrap: Bootstrap | None = None,
    *,
    clusters: Sequence[int] | NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Return every metric of given rankings.

    Args:
        ranked_ids: (nq, m) item ids, best first: whole numbers padded with -1, or texts, tuples and whatever else is
            hashable, padded with None; or a list of ids for each query, of any lengths. Ties count in the order given;
            an item that comes twice counts at its first position.
        relevant: For each query the ids that answer it, any number, or a mapping from id to gain above 0. Queries
            without any are left out of every figure and counted.
        k: Cutoffs; each at most m.
        bootstrap: Give one to get intervals.
        clusters: (nq,) labels: queries with the same one, such as the captions of one image, are resampled together.

    Returns:
        For each k `R@k` (any hit), `recall@k`, `precision@k`, `mrr@k`, `map@k`, `ndcg@k`, and `graded_ndcg@k` where
        gains are given, all in [0, 1]. `map@R` and `r_precision` where m is not below the largest number of relevant
        items; `medR` and `meanR` (of the first relevant item, from 1) where the rankings are long enough to know them.
        `queries` and `left_out`: how many were measured and not. With a bootstrap `intervals`: (low, high).

    Raises:
        ValueError: Shapes do not fit, a k is below 1 or above m, an id cannot be compared, relevant and ranked ids are
            of different types, or no query has a relevant item.
    """
    check_relevant(relevant)
    ranked, rows = as_rows(ranked_ids, relevant)
    ranks = ranks_in(ranked, Relevance.from_lists(rows))
    check_k(k, ranks.depth, "ranks given")
    labels = None if clusters is None else np.asarray(clusters)
    if labels is not None and labels.shape != (len(ranked),):
        raise ValueError(f"clusters of shape {labels.shape} for {len(ranked)} queries; give one label for each query")
    return figures_of(ranks, k, bootstrap, labels)


def evaluate_embeddings(
    image_vectors: NDArray[Any],
    text_vectors: NDArray[Any],
    pairs: Pairs,
    k: Sequence[int] = (1, 5, 10),
    *,
    bootstrap: Bootstrap | None = None,
    image_hubs: HubCorrection | None = None,
    text_hubs: HubCorrection | None = None,
) -> dict[str, Any]:
    """Return every metric of exact search in both directions.

    Scores are dot products, equal ones ranked by lower row. It takes a float32 copy of the vectors and about 100 MiB.

    Args:
        image_vectors: (n, dim), unit rows.
        text_vectors: (m, dim), unit rows.
        pairs: (p, 2) rows (image, text) that belong together; any number for an image or a text, including none.
        k: Cutoffs; each at most n and m.
        bootstrap: Give one to get intervals. Where no text has two images, the texts of one image are resampled
            together; otherwise queries count as independent.
        image_hubs: Correct the scores of images when texts ask. Left out, they are plain cosines.
        text_hubs: Correct the scores of texts when images ask.

    Returns:
        `text_to_image` and `image_to_text`, each as `evaluate_ranking` returns it, and `rsum`: 100 times the sum of
        R@1, R@5 and R@10 of both, at most 600, whatever `k` is. With a correction also `hub_correction`, its `k` and
        `alpha` for `images` and for `texts`: such figures are not to be set beside plain ones without saying so.

    Raises:
        ValueError: Shapes do not fit, a vector is not finite, a pair names an unknown row, there is no pair, a k is
            below 1 or above the size of a collection, or a correction belongs to a collection of another size.
    """
    images, texts = np.asarray(image_vectors), np.asarray(text_vectors)
    check_sides(images, texts)
    rows = pair_rows(pairs, len(images), len(texts))
    check_k(k, len(images), "images")
    check_k(k, len(texts), "texts")
    check_type("image_hubs", image_hubs, HubCorrection)
    check_type("text_hubs", text_hubs, HubCorrection)
    hubs = {name: given for name, given in (("images", image_hubs), ("texts", text_hubs)) if given is not None}
    both = BothWays.of(images, texts, rows, hubs)
    figures = both.figures(k, bootstrap)
    return figures | ({"hub_correction": {name: given.settings for name, given in hubs.items()}} if hubs else {})


@dataclass(frozen=True)
class BothWays:
    """The ranks of images for texts and of texts for images.

    `images` is the one image of each text, -1 where it has none; None where a text has two.
    """

    text_to_image: Ranks
    image_to_text: Ranks
    images: NDArray[np.int64] | None

    @classmethod
    def of(
        cls, images: NDArray[Any], texts: NDArray[Any], rows: NDArray[np.int64], hubs: Mapping[str, HubCorrection]
    ) -> BothWays:
        """Rank by exact search; (image, text) rows belong together, `hubs` may correct `images` and `texts`.

        Raises:
            ValueError: There is no pair, or a correction belongs to a collection of another size.
        """
        images_of = Relevance.from_rows(rows[:, 1], rows[:, 0], len(texts))
        texts_of = images_of.flipped(len(images))
        if hubs:
            t2i = ranks_by_counting(*_corrected(texts, images, hubs.get("images")), images_of)
            i2t = ranks_by_counting(*_corrected(images, texts, hubs.get("texts")), texts_of)
        else:
            t2i, i2t = ranks_both_ways(texts, images, images_of)
        ranks = Ranks.of(images_of, t2i, len(images)), Ranks.of(texts_of, i2t, len(texts))
        return cls(*ranks, images_of.only_items)

    def figures(self, k: Sequence[int], bootstrap: Bootstrap | None = None) -> dict[str, Any]:
        """Return the figures of both directions and rsum."""
        return {
            "text_to_image": figures_of(self.text_to_image, k, bootstrap, self.images),
            "image_to_text": figures_of(self.image_to_text, k, bootstrap),
            "rsum": sum_of_recalls(self.text_to_image, self.image_to_text),
        }


def _corrected(
    queries: NDArray[Any], base: NDArray[Any], hubs: HubCorrection | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    return (queries, base) if hubs is None else (hubs.extend_queries(queries), hubs.extend_base(base))


def evaluate_within(
    vectors: NDArray[Any],
    groups: NDArray[Any] | Sequence[int],
    k: Sequence[int] = (1, 5, 10),
    *,
    queries: NDArray[Any] | Sequence[int] | None = None,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """Return every metric of exact search of a collection in itself, each row itself left out of its ranking.

    Relevant are the other rows of the same group: for texts, those of the same image. A row that is alone in its group
    is left out of every figure and counted. Scores are dot products, equal ones ranked by lower row.

    Args:
        vectors: (n, dim), unit rows.
        groups: (n,) integers; rows with the same one belong together.
        k: Cutoffs; each at most n - 1.
        queries: Query rows, each at most once; left out, all rows. They always search all n rows, so a sample costs its
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
    query_rows = np.arange(len(rows)) if queries is None else _checked_queries(np.asarray(queries), len(rows))
    relevance = _others(labels, query_rows)
    ranks = _rank_without_own(
        ranks_by_counting(rows if queries is None else rows[query_rows], rows, relevance), relevance, rows, query_rows
    )
    return figures_of(Ranks.of(relevance, ranks, len(rows) - 1), k, bootstrap, labels[query_rows])


def _check(rows: NDArray[Any], labels: NDArray[Any]) -> None:
    if rows.ndim != 2:
        raise ValueError(f"vectors of shape {rows.shape} must be (n, dim)")
    if labels.shape != (len(rows),) or labels.dtype.kind not in "iu":
        raise ValueError(f"groups of shape {labels.shape}, {labels.dtype}, must be {len(rows)} integers, one a vector")
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} vectors have no other to find; give two or more")
    check_finite(rows, "row")


def _checked_queries(queries: NDArray[Any], n: int) -> NDArray[np.int64]:
    if queries.ndim != 1 or queries.dtype.kind not in "iu":
        raise ValueError(f"queries of shape {queries.shape}, {queries.dtype}, must be row numbers")
    wrong = queries[(queries < 0) | (queries >= n)]
    if len(wrong):
        raise ValueError(f"query {int(wrong[0])} is no row; the rows are 0 to {n - 1}")
    if len(np.unique(queries)) < len(queries):
        raise ValueError("a query comes twice; give each row at most once")
    return queries.astype(np.int64)


def _others(labels: NDArray[Any], query_rows: NDArray[np.int64]) -> Relevance:
    """Return for each query row the others of its group."""
    order = np.argsort(labels, kind="stable")
    starts, stops = (np.searchsorted(labels[order], labels[query_rows], side) for side in ("left", "right"))
    sizes = stops - starts
    query = np.repeat(np.arange(len(query_rows)), sizes)
    rank = np.arange(len(query)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    item = order[np.repeat(starts, sizes) + rank]
    other = item != query_rows[query]
    return Relevance.from_rows(query[other], item[other], len(query_rows))


def _rank_without_own(
    ranks: NDArray[np.float64], relevance: Relevance, rows: NDArray[Any], query_rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Decrease by one the ranks of items that the query itself ranks before."""
    query_row = query_rows[relevance.query]
    item = dots_of_pairs(rows, rows, (query_row, relevance.item))
    query_score = dots_of_pairs(rows, rows, (query_rows, query_rows))[relevance.query]
    ahead = (query_score > item) | ((query_score == item) & (query_row < relevance.item))
    return np.asarray(ranks - ahead)


_DIRECTIONS = ("text_to_image", "image_to_text")
_COUNTS = ("queries", "left_out")


def evaluate_folds(
    image_vectors: NDArray[Any],
    text_vectors: NDArray[Any],
    pairs: Pairs,
    k: Sequence[int] = (1, 5, 10),
    *,
    folds: int = 5,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """Return every metric of exact search in both directions, each fold by itself, averaged over folds.

    COCO 1K (VSE++, Faghri et al. 2018) takes five folds of 1,000 images, in their order, with their 5,000 captions. A
    fold is a smaller collection, so its figures are higher than those of the whole: never set the two side by side.
    Images that do not divide evenly give folds that differ by one. A text without an image is in no fold; one whose
    images lie in two folds is in both.

    Args:
        image_vectors: (n, dim), unit rows.
        text_vectors: (m, dim), unit rows.
        pairs: (p, 2) rows (image, text) that belong together; any number for an image or a text.
        k: Cutoffs; each at most the images and the texts of the smallest fold.
        folds: How many contiguous parts the images are cut into.
        bootstrap: Give one to get intervals of the averages; queries are resampled within their fold.

    Returns:
        What `evaluate_embeddings` returns, and `folds`. Every figure is the mean over folds, medR too, so it may lie
        between two ranks; a figure that some fold lacks is left out; `queries` and `left_out` are sums.

    Raises:
        ValueError: As for `evaluate_embeddings`, folds is below 1 or above n, or a fold has no pair.
    """
    images, texts = np.asarray(image_vectors), np.asarray(text_vectors)
    check_sides(images, texts)
    rows = pair_rows(pairs, len(images), len(texts))
    if not 1 <= folds <= len(images):
        raise ValueError(f"folds={folds!r} does not lie between 1 and the {len(images)} images; 5 is usual")
    parts = [_measured(part, k, number) for number, part in enumerate(_cut(images, texts, rows, folds))]
    figures = [part.figures(k) for part in parts]
    result: dict[str, Any] = {name: _average([fold[name] for fold in figures]) for name in _DIRECTIONS}
    if bootstrap is not None:
        for name in _DIRECTIONS:
            result[name]["intervals"] = _intervals(parts, name, k, bootstrap)
    return result | {"rsum": float(np.mean([fold["rsum"] for fold in figures])), "folds": folds}


def _cut(
    images: NDArray[Any], texts: NDArray[Any], rows: NDArray[np.int64], folds: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
    """Yield the images, texts and pairs of each fold, all numbered within it."""
    for members in np.array_split(np.arange(len(images)), folds):
        start, stop = int(members[0]), int(members[-1]) + 1
        inside = rows[(rows[:, 0] >= start) & (rows[:, 0] < stop)]
        text_rows, text = np.unique(inside[:, 1], return_inverse=True)
        yield images[start:stop], texts[text_rows], np.stack([inside[:, 0] - start, text], axis=1)


def _measured(part: tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]], k: Sequence[int], fold: int) -> BothWays:
    images, texts, rows = part
    if not len(rows):
        raise ValueError(f"fold {fold} of {len(images)} images has no pair; take fewer folds")
    check_k(k, len(images), f"images of fold {fold}")
    check_k(k, len(texts), f"texts of fold {fold}")
    return BothWays.of(images, texts, rows, {})


def _average(folds: list[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name in folds[0] if all(name in fold for fold in folds)]
    return {
        name: sum(fold[name] for fold in folds) if name in _COUNTS else float(np.mean([fold[name] for fold in folds]))
        for name in names
    }


def _intervals(
    parts: Sequence[BothWays], direction: str, k: Sequence[int], bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    columns = [columns_of(getattr(part, direction), k) for part in parts]
    names = [name for name in columns[0] if all(name in fold for fold in columns)]
    labels = [
        part.images[part.text_to_image.query_rows] if part.images is not None and direction == "text_to_image" else None
        for part in parts
    ]
    means = [
        bootstrap.means({name: fold[name] for name in names}, clusters, stream)
        for stream, (clusters, fold) in enumerate(zip(labels, columns, strict=True))
    ]
    return bootstrap.ends(names, np.mean(means, axis=0))
