"""Hub correction: items that lie near every query (hubs) are held back by a bias measured on reference queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import Pairs, check_sides, pair_rows
from .exact_ranks import ranks_by_counting
from .metrics import hit_rate
from .ranks import Ranks, Relevance

_BLOCK_VALUES = 1 << 22
_KS = (1, 4, 16, 64, 256)
_ALPHAS = (0.25, 0.5, 0.75, 1.0, 1.25)
_NAMES = ("collection", "reference query")
Floats = NDArray[Any]


@dataclass(frozen=True)
class HubCorrection:
    """Nearest-neighbour normalisation: what each item of a collection scores too high, and is to be taken off.

    bias_i = alpha * the mean of the `k` largest scores of item i with reference queries; a query then ranks by
    s(q, i) - bias_i (Chowdhury et al. 2024, Nearest Neighbor Normalization Improves Multimodal Retrieval, EMNLP). The
    reference queries must not be those that are measured, or the measured figures know their own answers. One number an
    item; figures with and without it are not comparable with each other's, so they are reported apart.

    Attributes:
        bias: (n,) float32, one for each row of the collection, in units of the score.
        k: How many queries a mean is taken of. Few follow the item closely but noisily, many only tell how central it
            is; usual are 1 to 512. The authors' code takes 256 where nothing else is said.
        alpha: How much of that mean is taken off: 0 nothing, usual are 0.25 to 1.5. The authors' code takes 0.5.
    """

    bias: NDArray[np.float32]
    k: int
    alpha: float

    @classmethod
    def fit(cls, base: Floats, reference_queries: Floats, *, k: int = 256, alpha: float = 0.5) -> HubCorrection:
        """Measure the bias of each row of `base`.

        Args:
            base: (n, dim), the collection that is ranked.
            reference_queries: (m, dim), queries like those to come, but others: of images captions, of texts images.
            k: How many of them a mean is taken of, 1 to m.
            alpha: How much of it is taken off.

        Raises:
            ValueError: Shapes do not fit, a vector is not finite, k is below 1 or above m, or alpha is below 0.
        """
        check_sides(base, reference_queries, _NAMES)
        if not 1 <= k <= len(reference_queries):
            raise ValueError(f"k={k!r} does not lie between 1 and the {len(reference_queries)} reference queries")
        if not 0 <= alpha < np.inf:
            raise ValueError(f"alpha is {alpha!r}; give 0 or more, such as 0.5")
        return cls((alpha * _nearest_means(base, reference_queries, (k,))[0]).astype(np.float32), k, alpha)

    @classmethod
    def fit_best(cls, base: Floats, reference_queries: Floats, reference_base: Floats, pairs: Pairs) -> HubCorrection:
        """Choose `k` and `alpha` without the collection that is measured, then fit it.

        Half of the reference split becomes a collection and is searched with its queries, and the queries of the other
        half are the reference; an image and its captions are in one half. Tried are k of 1, 4, ... 256 and alpha of
        0.25 to 1.25; the best mean of R@1, R@5 and R@10 wins, of equals the smaller alpha, then the smaller k. Where
        it is not two standard errors above no correction, as on a small split, alpha is 0. The split must be like what
        is measured: captions of one kind of image push that kind down among others.

        Args:
            base: (n, dim), the collection that is ranked and measured.
            reference_queries: (m, dim), all queries of another split.
            reference_base: (r, dim), the items of that split.
            pairs: (p, 2) rows (reference_base, reference_queries) that belong together.

        Raises:
            ValueError: Shapes do not fit, a vector is not finite, a pair names an unknown row, or a half has no query.
        """
        check_sides(reference_base, reference_queries, _NAMES)
        rows = pair_rows(pairs, len(reference_base), len(reference_queries), ("reference item", "query vector"))
        k, alpha = _Trial.of(reference_base, reference_queries, rows).best()
        return cls.fit(base, reference_queries, k=k, alpha=alpha)

    @property
    def settings(self) -> dict[str, float]:
        """`k` and `alpha`, to be printed with every figure."""
        return {"k": self.k, "alpha": self.alpha}

    def extend_base(self, base: Floats) -> Floats:
        """Return (n, dim + 1) vectors whose product with extended queries is the corrected score.

        Raises:
            ValueError: The collection is not as long as the one the bias was measured for.
        """
        if len(base) != len(self.bias):
            raise ValueError(f"a bias of {len(self.bias)} items does not fit a collection of {len(base)}; fit it again")
        return np.column_stack([base, -self.bias])

    @staticmethod
    def extend_queries(queries: Floats) -> Floats:
        """Return (nq, dim + 1) queries to ask an extended collection with."""
        return np.column_stack([queries, np.ones(len(queries), dtype=np.float32)])


@dataclass(frozen=True)
class _Trial:
    """Half of a split searched in itself, with the queries of the other half as reference."""

    base: Floats
    queries: Floats
    reference: Floats
    relevance: Relevance

    @classmethod
    def of(cls, base: Floats, queries: Floats, rows: NDArray[np.int64]) -> _Trial:
        half = _first_half(rows, len(base))
        inside = rows[half[rows[:, 0]]]
        text_rows = np.unique(inside[:, 1])
        reference = np.setdiff1d(rows[:, 1], text_rows)
        if not len(text_rows) or not len(reference):
            raise ValueError(
                "the items of the reference split have too few queries to choose k and alpha; give more pairs"
            )
        new_row = np.cumsum(half) - 1
        relevance = Relevance.from_rows(np.searchsorted(text_rows, inside[:, 1]), new_row[inside[:, 0]], len(text_rows))
        return cls(base[half], queries[text_rows], queries[reference], relevance)

    def best(self) -> tuple[int, float]:
        ks = [k for k in _KS if k <= len(self.reference)]
        means = _nearest_means(self.base, self.reference, ks)
        tried = [
            (alpha, k, self.hit_rates(alpha * mean)) for alpha in _ALPHAS for k, mean in zip(ks, means, strict=True)
        ]
        alpha, k, best_hits = max(tried, key=lambda one: float(one[2].mean()))
        # It takes more than chance to be worth correcting.
        return (k, alpha) if _surely_more(best_hits, self.hit_rates(np.zeros(len(self.base)))) else (k, 0.0)

    def hit_rates(self, bias: Floats) -> NDArray[np.float64]:
        """Return for each query the mean of its hits among the first 1, 5 and 10."""
        hubs = HubCorrection(bias.astype(np.float32), 0, 0)
        ranks = ranks_by_counting(hubs.extend_queries(self.queries), hubs.extend_base(self.base), self.relevance)
        ranking = Ranks.of(self.relevance, ranks, len(self.base))
        return np.asarray(np.mean([hit_rate(ranking, depth) for depth in (1, 5, 10)], axis=0))


def _surely_more(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether the means of paired values differ by more than two standard errors of their difference."""
    gain = one - other
    return bool(gain.mean() > 2 * gain.std() / np.sqrt(len(gain)))


def _first_half(rows: NDArray[np.int64], items: int) -> NDArray[np.bool_]:
    """Mark every other group of items that share queries (the captions of one image): no query asks both halves."""
    group, before = np.arange(items), np.full(items, -1)
    while np.any(group != before):
        before = group.copy()
        lowest = np.full(int(rows[:, 1].max()) + 1, items)
        np.minimum.at(lowest, rows[:, 1], group[rows[:, 0]])
        np.minimum.at(group, rows[:, 0], lowest[rows[:, 1]])
    return np.asarray(np.unique(group, return_inverse=True)[1] % 2 == 0)


def _nearest_means(base: Floats, queries: Floats, ks: Sequence[int]) -> list[NDArray[np.float64]]:
    """Return for each k the mean of the k largest scores of each row of `base` with `queries`; (n,) each."""
    means = np.empty((len(ks), len(base)))
    narrow, step = queries.astype(np.float32, copy=False), max(1, _BLOCK_VALUES // len(queries))
    for start in range(0, len(base), step):
        scores = base[start : start + step].astype(np.float32, copy=False) @ narrow.T
        nearest = -np.sort(np.partition(-scores, max(ks) - 1, axis=1)[:, : max(ks)], axis=1)
        sums = np.cumsum(nearest, axis=1, dtype=np.float64)
        for line, k in zip(means, ks, strict=True):
            line[start : start + step] = sums[:, k - 1] / k
    return list(means)
