"""The figure that training is steered by: true ranking recall over distinct items."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation import evaluate_embeddings, evaluate_ranking

from .feed import Feed, embed
from .pairing import Pairing

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


def measure(pairing: Pairing, feeds: tuple[Feed, Feed], batch: int) -> Recall:
    """Return the recall of a model on pairs: exact search of each side's items in the other side's distinct items."""
    left = embed(feeds[0], batch)
    if pairing.families is not None:
        return _within(left, pairing)
    right = embed(feeds[1], batch)
    depths = tuple(k for k in CUTOFFS if k <= min(len(left), len(right)))
    found = evaluate_embeddings(left, right, pairing.positives, depths)
    names = [f"R@{k}" for k in depths]
    return Recall(
        left_to_right={name: found["image_to_text"][name] for name in names},
        right_to_left={name: found["text_to_image"][name] for name in names},
    )


def _within(vectors: np.ndarray, pairing: Pairing) -> Recall:
    """Each item that has a partner asks for it among all others."""
    queries = pairing.askable
    scores = vectors[queries] @ vectors.T
    scores[np.arange(len(queries)), queries] = -np.inf
    depths = tuple(k for k in CUTOFFS if k < len(vectors))
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, : depths[-1]]
    found = evaluate_ranking(ranked, [pairing.partners[row].tolist() for row in queries], depths)
    figures = {f"R@{k}": found[f"R@{k}"] for k in depths}
    return Recall(left_to_right=figures, right_to_left=figures)
