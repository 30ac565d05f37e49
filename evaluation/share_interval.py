"""Confidence interval of a mean of shares, such as the `ann_recall` of queries: each the part found of a few hits."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import check_count


def share_interval(shares: NDArray[Any], trials: float, level: float = 0.95) -> tuple[float, float]:
    """Return the lower and upper end of the mean share.

    Wilson's score interval (1927) for the effective number of trials: the hits of one query are found or missed
    together, so that n queries of `trials` hits say less than n * trials independent ones. By how much is their design
    effect (Kish 1965), the variance among the shares over that of independent trials, kept between 1 and `trials`.
    Unlike a bootstrap it has a width where nothing was missed so far, and it stays within 0 and 1.

    Measured on simulated queries, the interval of level 0.95 holds the truth in 91 to 97 of 100 samples of 25 to 2,000
    queries; a test repeats a part of it.

    Args:
        shares: (n,) for each query the share that was found, 0 to 1.
        trials: Hits a query; their mean where they differ.
        level: The share of samples whose interval holds the truth.

    Raises:
        ValueError: There are no queries, a share is not between 0 and 1, or `trials` or `level` is out of range.
    """
    values = np.asarray(shares, dtype=np.float64)
    check_count("the number of shares", values.size)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("a share is not between 0 and 1; give the part of each query's hits that was found")
    if not trials >= 1:
        raise ValueError(f"trials is {trials!r}; give 1 or more hits a query")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; give a share between 0 and 1, such as 0.95")
    mean = float(values.mean())
    effective = len(values) * trials / _design_effect(values, mean, trials)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    weight = 1 / (1 + z * z / effective)
    middle = weight * (mean + z * z / (2 * effective))
    half = weight * z * math.sqrt(mean * (1 - mean) / effective + (z / (2 * effective)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def _design_effect(shares: NDArray[np.float64], mean: float, trials: float) -> float:
    independent = mean * (1 - mean) / trials
    if len(shares) < 2 or independent == 0:
        return trials  # nothing is known of how hits hang together: take each query for one trial
    return min(max(float(shares.var(ddof=1)) / independent, 1.0), trials)
