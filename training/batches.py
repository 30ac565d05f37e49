"""Which items meet in a step: distinct images, some captions of each, and what is known not to match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .pairing import Pairing

# Labelled wrong answers of one item that join a step.
STRANGERS = 2


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one step.

    Attributes:
        left: (n,) distinct left rows.
        right: (m,) distinct right rows.
        looks: (n,) which look at each left item: 0 the plain one.
        positives: (n, m) bool.
        ignored: (n, m) bool, neither right nor wrong.
    """

    left: np.ndarray
    right: np.ndarray
    looks: np.ndarray
    positives: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Batches of a pairing; an epoch's batches depend on nothing but the seed and its number.

    Attributes:
        pairing: What to draw from.
        batch_size: Left items a batch; they are spread evenly, so no batch is much smaller than the others.
        captions: Partners drawn for each left item.
        looks: Augmented looks to draw from beside the plain one; 0 for the plain one only.
        fresh: Whether each epoch has augmented looks of its own.
        seed: The same seed draws the same.
    """

    pairing: Pairing
    batch_size: int
    captions: int
    looks: int
    fresh: bool
    seed: int

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return max(1, round(len(self.pairing.askable) / self.batch_size))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on."""
        rng = np.random.default_rng((self.seed, number))
        order = np.array_split(rng.permutation(self.pairing.askable), self.steps)
        for step in range(start, self.steps):
            yield self._batch(order[step], number, np.random.default_rng((self.seed, number, step)))

    def _batch(self, left: np.ndarray, number: int, rng: np.random.Generator) -> Batch:
        pairing = self.pairing
        chosen = [_some(pairing.partners[row], self.captions, rng) for row in left]
        chosen += [_some(pairing.strangers[row], STRANGERS, rng) for row in left] if len(pairing.negatives) else []
        right = np.unique(np.concatenate(chosen))
        looks = rng.integers(0, self.looks + 1, len(left)) if self.looks else np.zeros(len(left), np.int64)
        if self.fresh:
            looks = np.where(looks > 0, looks + number * self.looks, 0)
        positives, ignored = pairing.block(left, right)
        return Batch(left=left, right=right, looks=looks, positives=positives, ignored=ignored)


def _some(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else rng.choice(rows, count, replace=False)
