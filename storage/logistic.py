"""Logistic regression of a few features, by Newton's method: what calibrations are fitted with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_NEWTON_STEPS = 100
_SMALLEST_STEP = 1e-10


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-logits)), without overflow; NaN for NaN."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), dtype=np.float64)


def fit_logistic(
    features: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any] | None = None, *, ridge: float = 0.0
) -> tuple[NDArray[np.float64], float]:
    """Return the slopes (d,) and the intercept of maximum likelihood.

    Newton's steps with backtracking are those of Lin, Lin and Weng 2007, A note on Platt's probabilistic outputs for
    support vector machines.

    Args:
        features: (n, d), finite.
        targets: (n,) in [0, 1].
        weights: (n,) of the examples, not negative; None for 1 each.
        ridge: What the sum of squared slopes, in units of each feature's spread, costs beside the mean loss. 0 where
            the targets are softened; else a small one keeps separable examples from steep curves.
    """
    wide = np.asarray(features, dtype=np.float64)
    shares = np.ones(len(wide)) if weights is None else np.asarray(weights, dtype=np.float64)
    # In units of their spread, so that Newton's steps do not depend on how narrow an encoder's cosines are.
    center, spread = wide.mean(axis=0), wide.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.concatenate([(wide - center) / spread, np.ones((len(wide), 1))], axis=1)
    penalty = ridge * float(shares.sum()) * np.append(np.ones(wide.shape[1]), 0.0)
    positive = float(shares @ targets)
    slopes = np.zeros(design.shape[1])
    slopes[-1] = np.log((positive + 1) / (float(shares.sum()) - positive + 1))
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(design @ slopes)
        gradient = design.T @ (shares * (p - targets)) + penalty * slopes
        hessian = (design * (shares * p * (1 - p))[:, None]).T @ design + np.diag(penalty + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        before = _loss(design, targets, shares, penalty, slopes)
        # Halve the step until the likelihood gains by it.
        while np.abs(step).max() >= _SMALLEST_STEP:
            if _loss(design, targets, shares, penalty, slopes - step) <= before - 1e-4 * float(gradient @ step):
                break
            step = step / 2
        slopes = slopes - step
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    raw = slopes[:-1] / spread
    return raw, float(slopes[-1] - raw @ center)


def _loss(
    design: NDArray[Any], targets: NDArray[Any], shares: NDArray[Any], penalty: NDArray[Any], slopes: NDArray[Any]
) -> float:
    logits = design @ slopes
    return float((shares * (np.logaddexp(0, logits) - targets * logits)).sum() + (penalty * slopes**2).sum() / 2)
