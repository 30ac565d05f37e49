"""What fits a time limit: how many images are read, how many views of them and how many examples are computed ahead."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .batches import FEWEST_TO_MEASURE, Items, Pairing
from .examples import CaptionedImages, Kind, read_contents

FEATURE_SHARE = 0.5
"""Share of the time limit that features may take. Training gains from more examples only while it has steps left."""

# Batches that are measured, the last of which counts: the first also pays for whatever starts with it.
SAMPLED_BATCHES = 2
READ_SHARE = 0.2
"""Share of the time limit that reading the images may take: each is decoded once to know its content."""

# Images that are decoded to measure the seconds of one.
_READ_TO_MEASURE = 64


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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What of the features a run computes within its time limit.

    Attributes:
        views: Augmented views of each image.
        share: Share of the examples.
    """

    views: int
    share: float


def affordable(
    each: Mapping[Kind, float], sides: tuple[Pairing, Pairing], views: int, left: float
) -> tuple[Plan, float]:
    """Return what fits the time that is left, and the seconds for everything: augmented views go first, then examples.

    Args:
        each: As `FeatureSeconds` has it.
        sides: The training and the validation examples.
        views: Augmented views that are wanted.
        left: Seconds until the limit.
    """
    everything = FeatureSeconds(each=each, views=views + 1).all(*sides)
    if not each.get("image"):
        return Plan(views=views, share=affordable_share(everything, left)), everything
    for fewer in range(views, 0, -1):
        if affordable_share(FeatureSeconds(each=each, views=fewer + 1).all(*sides), left) == 1:
            return Plan(views=fewer, share=1.0), everything
    return Plan(views=0, share=affordable_share(FeatureSeconds(each=each, views=1).all(*sides), left)), everything


def readable_share(sets: Sequence[CaptionedImages], left: float) -> float:
    """Return the share of the images that can be read in `READ_SHARE` of the seconds left, as measured on a few."""
    count, largest = sum(map(len, sets)), max(sets, key=len)
    if left == float("inf") or left <= 0 or len(largest) <= 2 * _READ_TO_MEASURE:
        return 1.0
    rows = np.linspace(0, len(largest) - 1, _READ_TO_MEASURE).astype(np.int64)
    began = time.monotonic()
    read_contents([largest.images[row] for row in rows])
    seconds = (time.monotonic() - began) / len(rows) * count
    return min(1.0, READ_SHARE * left / seconds)


def taken(examples: CaptionedImages, share: float, seed: int) -> CaptionedImages:
    """Return a share of the images, drawn at random, in their order; at least `FEWEST_TO_MEASURE`."""
    count = max(FEWEST_TO_MEASURE, int(share * len(examples)))
    if share == 1 or count >= len(examples):
        return examples
    rows = np.sort(np.random.default_rng((seed, 2)).permutation(len(examples))[:count])
    return replace(examples.take(rows), left_out=examples.left_out, notes=examples.notes)


def affordable_share(seconds: float, left: float) -> float:
    """Return the share of the items whose features take no more than `FEATURE_SHARE` of the seconds that are left."""
    allowed = FEATURE_SHARE * max(left, 0.0)
    return 1.0 if seconds <= allowed else allowed / seconds
