"""Which weights to keep: averages of the best checkpoints, then a point between them and the untrained model.

Greedy soup: Wortsman et al., "Model soups" (ICML 2022). Interpolation: Wortsman et al., "Robust fine-tuning of
zero-shot models" (CVPR 2022, WiSE-FT). Both are chosen by validation recall, and the untrained model is among the
choices: what comes out is never worse than what went in, on those images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

Weights = dict[str, torch.Tensor]
Score = Callable[[Weights], float]
ALPHAS = (0.9, 0.8, 0.65, 0.5, 0.3)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The weights that were kept.

    Attributes:
        weights: Themselves.
        score: Their validation recall.
        steps: The checkpoints in the average.
        alpha: Share of the trained weights; 1 the trained ones alone, 0 the untrained model.
    """

    weights: Weights
    score: float
    steps: tuple[int, ...]
    alpha: float


def greedy_soup(candidates: Iterable[tuple[float, int, Weights]], score: Score) -> Choice:
    """Return the average of checkpoints: each joins, best first, where the average does not score worse with it."""
    rest = iter(candidates)
    best, step, weights = next(rest)
    chosen = Choice(weights=weights, score=best, steps=(step,), alpha=1.0)
    for _, step, weights in rest:
        count = len(chosen.steps)
        mixed = blend(chosen.weights, weights, 1 / (count + 1))
        found = score(mixed)
        if found >= chosen.score:
            chosen = Choice(weights=mixed, score=found, steps=(*chosen.steps, step), alpha=1.0)
    return chosen


def interpolated(start: Weights, trained: Choice, untrained_score: float, score: Score) -> Choice:
    """Return the best of the trained weights, points between them and the start, and the start itself."""
    best = trained
    for alpha in ALPHAS:
        mixed = blend(start, trained.weights, alpha)
        found = score(mixed)
        if found > best.score:
            best = Choice(weights=mixed, score=found, steps=trained.steps, alpha=alpha)
    if untrained_score > best.score:
        return Choice(weights=start, score=untrained_score, steps=(), alpha=0.0)
    return best


def blend(first: Weights, second: Weights, share: float) -> Weights:
    """Return (1 - share) first + share second, summed in float64."""
    return {
        name: torch.lerp(value.double(), second[name].double(), share).to(value.dtype) for name, value in first.items()
    }
