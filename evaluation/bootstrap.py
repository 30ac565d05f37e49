"""How far a figure could be off because the queries are a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Percentile bootstrap of means over queries (Efron 1979).

    Queries count as independent. The captions of one image are not quite: text-to-image intervals are a little narrow.

    Attributes:
        resamples: More make the ends steadier, at a linear cost; 1000 is usual.
        level: The share of resamples inside the interval.
        seed: The same seed gives the same intervals.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"resamples is {self.resamples!r}; give 1 or more")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level!r}; give a share between 0 and 1, such as 0.95")

    def intervals(self, values: Mapping[str, NDArray[Any]]) -> dict[str, tuple[float, float]]:
        """Return the lower and upper end of each mean; all names share their resamples.

        Args:
            values: For each name (n,) values, one a query; the same n >= 1 for all.
        """
        table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
        n, rng = len(table), np.random.default_rng(self.seed)
        means = [np.bincount(rng.integers(0, n, n), minlength=n) @ table / n for _ in range(self.resamples)]
        tail = (1 - self.level) / 2
        low, high = np.quantile(means, [tail, 1 - tail], axis=0)
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(values)}
