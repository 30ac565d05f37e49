"""What fits a time limit: how many images are read, and of how many the features are computed before training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .batches import FEWEST_TO_MEASURE, Pairing
from .examples import CaptionedImages, Kind, read_contents
from .features import Feed, ImageFeed
from .loop import Clock

FEATURE_SHARE = 0.5
"""Share of the time limit that features may take. Training gains from more examples only while it has steps left."""
READ_SHARE = 0.15
"""Share of the time limit that reading the images may take: each is decoded once to know its content."""
VALIDATION = 500
"""Images to choose weights by where a time limit does not allow all examples: fewer would choose by chance."""
# While there are few to learn from, one is held back for so many.
_LEARNED_FROM_FOR_ONE = 4

# Images that are decoded to measure the seconds of one.
_READ_TO_MEASURE = 64

Feeds = tuple[Feed, Feed]
Computing = Callable[[Iterator[int]], Iterator[int]]


def validation_count(learned: int, of: int, held: int) -> int:
    """Return by how many examples weights are chosen while a part of the others is learned from.

    It is the same part of them, but at least `VALIDATION`, or a quarter of what is learned from where that is less.

    Args:
        learned: How many examples are learned from.
        of: How many there are to learn from.
        held: How many there are to choose by.
    """
    fewest = max(FEWEST_TO_MEASURE, min(VALIDATION, learned // _LEARNED_FROM_FOR_ONE))
    return held if learned >= of else min(held, max(fewest, round(learned / of * held)))


@dataclass(kw_only=True)
class GrowingFeatures:
    """The features of a pairing, computed for one left item after another, in a random order, with what belongs to it.

    Attributes:
        pairing: The examples.
        feeds: Of both sides; the same one twice where both are of one kind.
        batches: Items of each kind that one forward pass takes.
        seed: Of the order.
        count: Left items, of one kind families, whose features are there.
        image_seconds: What the images took.
    """

    pairing: Pairing
    feeds: Feeds
    batches: dict[Kind, int]
    seed: int
    count: int = 0
    image_seconds: float = 0.0
    order: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.order = self.pairing.groups(self.seed)
        self._there = [np.zeros(len(items), dtype=np.bool_) for items in (self.pairing.left, self.pairing.right)]

    def __len__(self) -> int:
        """Return how many left items there are, of one kind families."""
        return len(self.order)

    @property
    def full(self) -> bool:
        """Whether the memory for features is used up."""
        return any(feed.full for feed in self._own())

    @property
    def caches_images(self) -> bool:
        """Whether there are images whose features are computed ahead."""
        return any(isinstance(feed, ImageFeed) and feed.cached_views for feed in self.feeds)

    def extend(self, count: int) -> Iterator[int]:
        """Compute the features of more items, up to `count`, yielding after each forward pass."""
        if count <= self.count:
            return
        left = np.concatenate(self.order[self.count : count])
        rows = [left] if self.pairing.families is not None else [left, self.pairing.companions(left)]
        for side, (feed, wanted) in enumerate(zip(self.feeds, rows, strict=False)):
            # With the last ones come those that have no partner.
            left_out = ~self._there[side]
            missing = np.flatnonzero(left_out) if count == len(self) else wanted[left_out[wanted]]
            yield from self._timed(feed, missing)
            self._there[side][missing] = True
        if not self.full:
            self.count = count

    def uncache(self) -> None:
        """Compute everything when it is fetched."""
        for feed in self._own():
            feed.uncache()

    def cut(self, count: int) -> Pairing:
        """Return the examples of the first `count` items; the feeds hold nothing else from then on."""
        if count == len(self):
            return self.pairing
        pairing, rows = self.pairing.part(np.concatenate(self.order[:count]))
        for feed, kept in zip(self._own(), rows, strict=False):
            feed.take(kept)
        return pairing

    def _timed(self, feed: Feed, rows: np.ndarray) -> Iterator[int]:
        is_image = isinstance(feed, ImageFeed)
        began = time.monotonic()
        for done in feed.fill(rows, self.batches["image" if is_image else "text"]):
            self.image_seconds += (time.monotonic() - began) * is_image
            yield done
            began = time.monotonic()

    def _own(self) -> tuple[Feed, ...]:
        return self.feeds[:1] if self.pairing.families is not None else self.feeds


@dataclass(frozen=True, kw_only=True)
class FeatureBudget:
    """Computes features until the time for them is over.

    Attributes:
        clock: Of the run.
        until: Second of the run at which features are to be ready; infinite for no such limit.
        watch: Goes through what is computed, and raises where the run's own time is over.
        tell: Hears how many left items are done, of how many.
    """

    clock: Clock
    until: float
    watch: Computing
    tell: Callable[[int, int], None]

    def fill(self, train: GrowingFeatures, val: GrowingFeatures, goal: int) -> int:
        """Compute the features of up to `goal` items to learn from, and of those to choose by; return how many.

        Both grow together, so that whatever the number is in the end, it is one that both have. `FEWEST_TO_MEASURE` are
        computed in any case.
        """
        step, ready = train.batches["image"], 0
        while ready < goal:
            began, count = self.clock.seconds, min(goal, ready + step)
            for _ in self.watch(val.extend(validation_count(count, len(train), len(val)))):
                pass
            for _ in self.watch(train.extend(count)):
                pass
            if (train.full or val.full) and ready:
                break
            if train.full or val.full:
                train.uncache()
                val.uncache()
            ready = count
            self.tell(ready, goal)
            # The next ones would take as long as these.
            if ready >= FEWEST_TO_MEASURE and 2 * self.clock.seconds - began > self.until:
                break
        return ready

    def add_views(self, train: GrowingFeatures, wanted: int) -> int:
        """Cache augmented views of all images, as many as the time allows; return how many it allows."""
        feeds = [feed for feed in train.feeds if isinstance(feed, ImageFeed) and feed.cached_views]
        for number in range(wanted if feeds else 0):
            if self.clock.seconds + train.image_seconds > self.until:
                return number
            feed = feeds[0]
            for done in self.watch(feed.add_view(train.batches["image"])):
                self.tell(done, len(feed))
        return wanted


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


def taken(examples: CaptionedImages, share: float, seed: int, fewest: int) -> CaptionedImages:
    """Return a share of the images, drawn at random, in their order; at least so many."""
    count = max(fewest, int(share * len(examples)))
    if share == 1 or count >= len(examples):
        return examples
    rows = np.sort(np.random.default_rng((seed, 2)).permutation(len(examples))[:count])
    return replace(examples.take(rows), left_out=examples.left_out, notes=examples.notes)
