"""Which weights to keep: averages of the best checkpoints, then a point between them and the untrained model.

Greedy soup: Wortsman et al., "Model soups" (ICML 2022). Interpolation: Wortsman et al., "Robust fine-tuning of
zero-shot models" (CVPR 2022, WiSE-FT). Both are chosen by validation recall, and the untrained model is among the
choices: what comes out is never worse than what went in, on those images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from evaluation import evaluate_embeddings, evaluate_ranking

from .batches import Pairing
from .checkpoint import Weights
from .features import Feed, embed

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
        mixed_score = score(mixed)
        if mixed_score >= chosen.score:
            chosen = Choice(weights=mixed, score=mixed_score, steps=(*chosen.steps, step), alpha=1.0)
    return chosen


def interpolated(start: Weights, trained: Choice, untrained_score: float, score: Score) -> Choice:
    """Return the best of the trained weights, points between them and the start, and the start itself."""
    best = trained
    for alpha in ALPHAS:
        mixed = blend(start, trained.weights, alpha)
        mixed_score = score(mixed)
        if mixed_score > best.score:
            best = Choice(weights=mixed, score=mixed_score, steps=trained.steps, alpha=alpha)
    if untrained_score > best.score:
        return Choice(weights=start, score=untrained_score, steps=(), alpha=0.0)
    return best


def blend(first: Weights, second: Weights, share: float) -> Weights:
    """Return (1 - share) first + share second, summed in float64."""
    return {
        name: torch.lerp(value.double(), second[name].double(), share).to(value.dtype) for name, value in first.items()
    }


CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Recall:
    """R@k (any hit) of both directions.

    Attributes:
        left_to_right: For left items, image_to_text of captioned images: R@1, R@5, R@10.
        right_to_left: For right items, text_to_image; the same figures again where both sides are one collection.
        mean: Of all of them: what training is steered by.
    """

    left_to_right: dict[str, float]
    right_to_left: dict[str, float]

    @property
    def mean(self) -> float:
        """The mean over cutoffs and directions, in [0, 1]."""
        values = [*self.left_to_right.values(), *self.right_to_left.values()]
        return sum(values) / len(values)

    def to_json(self) -> dict[str, Any]:
        """Return the figures and their mean."""
        return {**asdict(self), "mean": self.mean}


def measure(
    pairing: Pairing, feeds: tuple[Feed, Feed], batch: int, rows: tuple[np.ndarray, np.ndarray] | None = None
) -> Recall:
    """Return the recall of a model on pairs: exact search of each side's items in the other side's distinct items.

    `rows` say which rows of the feeds the items of the pairing are, where they are not all.
    """
    chosen = (None, None) if rows is None else rows
    left = embed(feeds[0], batch, chosen[0])
    if pairing.families is not None:
        return _within(left, pairing)
    right = embed(feeds[1], batch, chosen[1])
    depths = tuple(k for k in CUTOFFS if k <= min(len(left), len(right)))
    metrics = evaluate_embeddings(left, right, pairing.positives, depths)
    names = [f"R@{k}" for k in depths]
    return Recall(
        left_to_right={name: metrics["image_to_text"][name] for name in names},
        right_to_left={name: metrics["text_to_image"][name] for name in names},
    )


def _within(vectors: np.ndarray, pairing: Pairing) -> Recall:
    """Recall within one collection: each item that has partners is a query against all others."""
    queries = pairing.with_partners
    scores = vectors[queries] @ vectors.T
    scores[np.arange(len(queries)), queries] = -np.inf
    depths = tuple(k for k in CUTOFFS if k < len(vectors))
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, : depths[-1]]
    metrics = evaluate_ranking(ranked, [pairing.partners[row].tolist() for row in queries], depths)
    figures = {f"R@{k}": metrics[f"R@{k}"] for k in depths}
    return Recall(left_to_right=figures, right_to_left=figures)
