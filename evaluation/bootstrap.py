"""Bootstrap confidence intervals of metrics: how far they could be off because the queries are a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import check_count


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Percentile bootstrap of means over queries (Efron 1979).

    Queries that hang together are drawn together: whole clusters with replacement (Davison and Hinkley 1997, section
    3.8), each as often as it falls. The captions of one image rise and fall with it; drawn one by one they would give
    text-to-image intervals that are too narrow.

    Attributes:
        resamples: More make the ends steadier, at a linear cost; 1000 is usual.
        level: The share of resamples inside the interval.
        seed: The same seed gives the same intervals.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("resamples", self.resamples)
        if not isinstance(self.seed, Integral) or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; give a whole number of 0 or more")
        if not isinstance(self.level, Real) or not 0 < self.level < 1:
            raise ValueError(f"level is {self.level!r}; give a share between 0 and 1, such as 0.95")

    def intervals(
        self, values: Mapping[str, NDArray[Any]], clusters: NDArray[Any] | None = None
    ) -> dict[str, tuple[float, float]]:
        """Return the lower and upper end of each mean; all names share their resamples.

        Args:
            values: For each name (n,) values, one a query; the same n >= 1 for all.
            clusters: (n,) labels; queries with the same one are drawn together. Left out, each query is its own.

        Raises:
            ValueError: The number of labels is not n.
        """
        return self.ends(list(values), self.means(values, clusters))

    def means(
        self, values: Mapping[str, NDArray[Any]], clusters: NDArray[Any] | None = None, stream: int = 0
    ) -> NDArray[np.float64]:
        """Return the resampled means, (resamples, names); another `stream` draws independently of the first.

        Raises:
            ValueError: The number of labels is not n.
        """
        table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
        sums, sizes = _by_cluster(table, clusters)
        n, rng = len(sums), np.random.default_rng([self.seed, stream] if stream else self.seed)
        drawn = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(self.resamples))
        return np.array([times @ sums / (times @ sizes) for times in drawn])

    def ends(self, names: Sequence[str], means: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
        """Return the lower and upper end of each column of resampled means."""
        tail = (1 - self.level) / 2
        low, high = np.quantile(means, [tail, 1 - tail], axis=0)
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _by_cluster(
    table: NDArray[np.float64], clusters: NDArray[Any] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of each column over each cluster, and how many queries each has."""
    if clusters is None:
        return table, np.ones(len(table))
    if np.shape(clusters) != (len(table),):
        raise ValueError(f"{np.size(clusters)} cluster labels for {len(table)} queries; give one for each query")
    _, label, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), table.shape[1]))
    np.add.at(sums, label, table)
    return sums, sizes.astype(np.float64)
