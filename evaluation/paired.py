"""Systems compared on the same queries: recall of each with intervals, and paired differences to the best one.

Every resample draws the same images for all systems, so that what makes a query easy or hard for all of them cancels
in the difference (paired bootstrap, Efron and Tibshirani 1993, chapter 16). Two systems whose intervals overlap may
differ by more than chance all the same: the interval of the difference tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap
from .checks import Pairs, check_sides, pair_rows
from .evaluate import BothWays

DIRECTIONS = ("text_to_image", "image_to_text")
RSUM_DEPTHS = (1, 5, 10)
Draws = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstRanks:
    """The rank of the first relevant item of each measured query, by one system.

    Attributes:
        ranks: By direction (n,) float64, from 1.
        query_rows: By direction (n,) which text or image each measured query is, ascending.
        clusters: By direction (n,) what each query is resampled with: its image. None where a text has two images, so
            that queries count as independent.
        left_out: By direction how many queries have no relevant item.
    """

    ranks: dict[str, NDArray[np.float64]]
    query_rows: dict[str, NDArray[np.int64]]
    clusters: dict[str, NDArray[np.int64] | None]
    left_out: dict[str, int]

    @classmethod
    def of(cls, image_vectors: NDArray[Any], text_vectors: NDArray[Any], pairs: Pairs) -> FirstRanks:
        """Rank by exact search in both directions.

        Args:
            image_vectors: (n, dim), unit rows.
            text_vectors: (m, dim), unit rows.
            pairs: (p, 2) rows (image, text) that belong together.

        Raises:
            ValueError: Shapes do not fit, a vector is not finite, a pair names an unknown row, or there is no pair.
        """
        images, texts = np.asarray(image_vectors), np.asarray(text_vectors)
        check_sides(images, texts)
        both = BothWays.of(images, texts, pair_rows(pairs, len(images), len(texts)), {})
        sides = {"text_to_image": both.text_to_image, "image_to_text": both.image_to_text}
        rows = {name: ranks.query_rows for name, ranks in sides.items()}
        image_of = both.images
        return cls(
            ranks={name: ranks.first for name, ranks in sides.items()},
            query_rows=rows,
            clusters={
                "text_to_image": None if image_of is None else image_of[rows["text_to_image"]],
                "image_to_text": None if image_of is None else rows["image_to_text"],
            },
            left_out={name: ranks.left_out for name, ranks in sides.items()},
        )

    @property
    def drawn_together(self) -> bool:
        """Whether a resample of images is one of both directions: every measured text has one image that is a query."""
        texts, images = (self.clusters[name] for name in DIRECTIONS)
        return texts is not None and images is not None and np.array_equal(np.unique(texts), images)


def compare_systems(
    systems: Sequence[FirstRanks], k: Sequence[int] = RSUM_DEPTHS, bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """Return the recall of systems that answered the same queries, and how far each is behind the best.

    Args:
        systems: One or more, ranked over the same items and pairs in the same order.
        k: Depths of R@k.
        bootstrap: Of the intervals; left out, 1000 resamples of images at 95 %.

    Returns:
        JSON's own types. `best`: position of the one with the highest rsum, the first of equal ones. `systems`: for
        each, by direction, `R@k` for each k in [0, 1], `intervals` with (low, high) of each, `queries` and `left_out`;
        `rsum`, at most 600, and `rsum_interval`. `differences`: for each the same names, system minus best, each with
        `difference`, `interval` and `tie_excluded`, whether 0 is outside the interval; and `above`: the position of
        the next better `system`, and the difference of `rsum` to it. None for the best itself.

    Raises:
        ValueError: There is no system, or two were not asked the same queries.
    """
    _check_same_queries(systems)
    chosen = bootstrap or Bootstrap()
    depths = tuple(dict.fromkeys((*k, *RSUM_DEPTHS)))
    observed, draws = {}, {}
    for number, name in enumerate(DIRECTIONS):
        columns = [(one.ranks[name] <= depth) for one in systems for depth in depths]
        stream = 0 if systems[0].drawn_together else number
        means = chosen.means(dict(enumerate(columns)), systems[0].clusters[name], stream)  # type: ignore[arg-type]
        shape = (len(systems), len(depths))
        draws[name] = means.reshape(len(means), *shape)
        observed[name] = np.array([column.mean() for column in columns]).reshape(shape)
    summed = [depths.index(depth) for depth in RSUM_DEPTHS]
    rsum: NDArray[np.float64] = 100 * sum(observed[name][:, summed].sum(axis=1) for name in DIRECTIONS)
    rsum_draws: Draws = 100 * sum(draws[name][:, :, summed].sum(axis=2) for name in DIRECTIONS)
    table = _Table(bootstrap=chosen, depths=tuple(k), observed=observed, draws=draws, rsum=rsum, rsum_draws=rsum_draws)
    order = np.argsort(-rsum, kind="stable").tolist()
    differences: list[dict[str, Any] | None] = [None] * len(systems)
    for above, number in pairwise(order):
        told = {"system": above, "rsum": table.rsum_difference(number, above)}
        differences[number] = {**table.differences(number, order[0]), "above": told}
    return {
        "best": order[0],
        "systems": [table.figures(number, one) for number, one in enumerate(systems)],
        "differences": differences,
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """R@k of all systems: as observed (systems, depths) and of each resample (resamples, systems, depths)."""

    bootstrap: Bootstrap
    depths: tuple[int, ...]
    observed: dict[str, NDArray[np.float64]]
    draws: dict[str, Draws]
    rsum: NDArray[np.float64]
    rsum_draws: Draws

    @property
    def names(self) -> list[str]:
        """The figures of a direction; the depths of rsum that were not asked for stand behind them, unnamed."""
        return [f"R@{depth}" for depth in self.depths]

    def figures(self, system: int, ranks: FirstRanks) -> dict[str, Any]:
        """Return the figures of one system."""
        found: dict[str, Any] = {}
        for name in DIRECTIONS:
            shares = self.observed[name][system]
            found[name] = dict(zip(self.names, map(float, shares), strict=False))
            found[name] |= {"queries": len(ranks.ranks[name]), "left_out": ranks.left_out[name]}
            found[name]["intervals"] = self._ends(self.draws[name][:, system])
        low_high = self._ends_of(self.rsum_draws[:, system])
        return {**found, "rsum": float(self.rsum[system]), "rsum_interval": low_high}

    def differences(self, system: int, best: int) -> dict[str, Any]:
        """Return how far one system is from the best."""
        found: dict[str, Any] = {}
        for name in DIRECTIONS:
            shares = self.observed[name][system] - self.observed[name][best]
            ends = self._ends(self.draws[name][:, system] - self.draws[name][:, best])
            found[name] = {key: _told(share, ends[key]) for key, share in zip(self.names, shares, strict=False)}
        return {**found, "rsum": self.rsum_difference(system, best)}

    def rsum_difference(self, system: int, other: int) -> dict[str, Any]:
        """Return how far the rsum of one system is from that of another."""
        ends = self._ends_of(self.rsum_draws[:, system] - self.rsum_draws[:, other])
        return _told(self.rsum[system] - self.rsum[other], ends)

    def _ends(self, draws: Draws) -> dict[str, tuple[float, float]]:
        return self.bootstrap.ends(self.names, draws)

    def _ends_of(self, draws: Draws) -> tuple[float, float]:
        return self.bootstrap.ends(["rsum"], draws[:, None])["rsum"]


def _told(difference: float, interval: tuple[float, float]) -> dict[str, Any]:
    low, high = interval
    return {"difference": float(difference), "interval": interval, "tie_excluded": not low <= 0 <= high}


def _check_same_queries(systems: Sequence[FirstRanks]) -> None:
    if not systems:
        raise ValueError("there is no system to compare; give one or more")
    for number, one in enumerate(systems[1:], 1):
        for name in DIRECTIONS:
            if not np.array_equal(one.query_rows[name], systems[0].query_rows[name]):
                raise ValueError(f"system {number} was not asked the same queries {name} as system 0")
