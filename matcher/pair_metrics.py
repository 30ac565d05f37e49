"""How good probabilities of labelled pairs are. numpy only.

p_i is the probability given to pair i, y_i is 1 for a match and 0 for none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MatcherError

# Bins of the calibration error; 15 of equal mass is usual (Nguyen and O'Connor 2015; Guo et al. 2017 took 15 as well).
BINS = 15
PAIR_METRICS = ("roc_auc", "average_precision", "accuracy", "f1", "precision", "recall", "log_loss", "brier", "ece")
_NEVER_CERTAIN = 1e-15


class Reliability(NamedTuple):
    """Bins of equal mass, by rising probability: mean probability, share of matches and number of pairs of each."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    pairs: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean over the pairs of |mean probability - share of matches| of their bin."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.pairs))


def pair_figures(probabilities: NDArray[Any], matches: NDArray[Any], threshold: float = 0.5) -> dict[str, float]:
    """Return `PAIR_METRICS` by name.

    `roc_auc` and `average_precision` look at the order alone; `accuracy`, `f1`, `precision` and `recall` at p >=
    threshold (the last three are 0 where nothing is called a match); `log_loss`, `brier` and `ece` at the
    probabilities themselves.

    Raises:
        DataError: All labels are equal.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(matches).astype(bool)
    check_both(y, DataError)
    called = p >= threshold
    hits = int((called & y).sum())
    sure = np.clip(p, _NEVER_CERTAIN, 1 - _NEVER_CERTAIN)
    return {
        "roc_auc": roc_auc(p, y),
        "average_precision": average_precision(p, y),
        "accuracy": float((called == y).mean()),
        "f1": 2 * hits / int(called.sum() + y.sum()),
        "precision": hits / max(1, int(called.sum())),
        "recall": hits / int(y.sum()),
        "log_loss": float(-np.log(np.where(y, sure, 1 - sure)).mean()),
        "brier": float(((p - y) ** 2).mean()),
        "ece": reliability(p, y).error,
    }


def roc_auc(scores: NDArray[Any], matches: NDArray[np.bool_]) -> float:
    """Return the chance that a match scores above a non-match, ties half: the Mann-Whitney statistic."""
    _, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = (np.cumsum(count) - (count - 1) / 2)[group]
    positive = int(matches.sum())
    above = mean_rank[matches].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(scores) - positive)))


def average_precision(scores: NDArray[Any], matches: NDArray[np.bool_]) -> float:
    """Return the sum over thresholds of (recall gained) * precision; equal scores share a threshold."""
    order = np.argsort(-scores, kind="stable")
    last_of_its_score = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(matches[order])[last_of_its_score]
    gained = np.diff(hits, prepend=0) / int(matches.sum())
    return float((gained * hits / (last_of_its_score + 1)).sum())


def reliability(probabilities: NDArray[Any], matches: NDArray[Any], bins: int = BINS) -> Reliability:
    """Return what was promised and what came of it, in bins of equal mass.

    Equal probabilities share a bin, so that the order of the pairs plays no part: bins then differ in size, and there
    are fewer of them.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(matches, dtype=np.float64)
    _, group, count = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    _, bin_of_value = np.unique((middle * bins / len(p)).astype(np.int64), return_inverse=True)
    bin_ = bin_of_value[group]
    pairs = np.bincount(bin_)
    return Reliability(np.bincount(bin_, weights=p) / pairs, np.bincount(bin_, weights=y) / pairs, pairs)


def check_both(matches: NDArray[np.bool_], error: type[MatcherError]) -> None:
    """Raise where there are no matches, or nothing else."""
    if not len(matches) or matches.all() or not matches.any():
        what = "a match" if len(matches) and matches.all() else "no match"
        raise error(f"all {len(matches)} pairs are labelled {what}; give pairs of both kinds")
