"""The time that features of frozen blocks may take of a time limit: measured on a few items, then bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .batches import Items, Pairing
from .examples import Kind

FEATURE_SHARE = 0.5
"""Share of the time limit that features may take. Training gains from more examples only while it has steps left."""

# Batches that are measured, the last of which counts: the first also pays for whatever starts with it.
SAMPLED_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class FeatureSeconds:
    """What features take, as measured.

    Attributes:
        each: Seconds for one item of each kind, one view of an image; 0 where nothing is computed ahead.
        views: Views of each image to learn from, the plain one included.
    """

    each: Mapping[Kind, float]
    views: int

    def all(self, train: Pairing, val: Pairing) -> float:
        """Return the seconds for all features of a run."""
        return self._of(train, self.views) + self._of(val, 1)

    def _of(self, pairing: Pairing, views: int) -> float:
        sides = (pairing.left,) if pairing.families is not None else (pairing.left, pairing.right)
        return sum(
            len(items) * self.each.get(items.kind, 0.0) * (views if items.kind == "image" else 1) for items in sides
        )


def sampled(items: Items, batch: int) -> Items | None:
    """Return a few items, spread evenly, to measure the seconds of one with; None where there are hardly more."""
    count = SAMPLED_BATCHES * batch
    return items.take(np.linspace(0, len(items) - 1, count).astype(np.int64)) if len(items) > 2 * count else None


def seconds_each(filling: Iterator[int]) -> float:
    """Return the seconds that one item of the last batch took; 0 where nothing is computed."""
    seconds, began, before = 0.0, time.monotonic(), 0
    for done in filling:
        now = time.monotonic()
        seconds, began, before = (now - began) / (done - before), now, done
    return seconds


def affordable_share(seconds: float, left: float) -> float:
    """Return the share of the items whose features take no more than `FEATURE_SHARE` of the seconds that are left."""
    allowed = FEATURE_SHARE * max(left, 0.0)
    return 1.0 if seconds <= allowed else allowed / seconds
