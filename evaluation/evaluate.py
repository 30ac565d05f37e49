"""All figures of a ranking or of two sets of embeddings at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap
from .checks import Pairs, check_k, check_sides, pair_rows
from .counting import ranks_both_ways, ranks_by_counting
from .figures import figures_of, sum_of_recalls
from .hubs import HubCorrection
from .ranks import Ranks, ranks_in
from .relevance import Relevance, Relevant


def evaluate_ranking(
    ranked_ids: NDArray[Any],
    relevant: Relevant,
    k: Sequence[int] = (1, 5, 10),
    bootstrap: Bootstrap | None = None,
    *,
    clusters: Sequence[int] | NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Return every metric of given rankings.

    Args:
        ranked_ids: (nq, m) row ids, best first, padded with -1. Ties count in the order given; an item that comes twice
            counts at its first place.
        relevant: For each query the ids that answer it, any number, or a mapping from id to gain above 0. Queries
            without any are left out of every figure and counted.
        k: How deep to look; each at most m.
        bootstrap: Give one to get intervals.
        clusters: (nq,) labels: queries with the same one, such as the captions of one image, are resampled together.

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
        k: How deep to look; each at most n and m.
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
