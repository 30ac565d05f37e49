"""One run: features, training, choosing, report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.preprocess import Preprocess
from encoders.two_towers import TwoTowers

from .batches import Items, Pairing, Sampler
from .checkpoint import Checkpoints, Progress
from .config import FitConfig
from .features import Feed, ImageFeed, TextFeed
from .learner import Learner
from .loop import Clock, FitProgress, Listener, Trainer
from .report import FitReport
from .selection import Choice, Recall, Weights, greedy_soup, interpolated, measure
from .tower_split import ConseTower

# Items a forward pass without gradients.
FEATURE_BATCH = {"cpu": 32, "cuda": 256}
# Images whose features give the wide head of `lite` its scales.
STANDARDISED_ON = 512
Feeds = tuple[Feed, Feed]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to; no recalls and no choice where the time was over before training."""

    stopped_by: str
    progress: Progress
    before: Recall | None = None
    after: Recall | None = None
    choice: Choice | None = None
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A learner, its examples and its surroundings."""

    towers: TwoTowers
    learner: Learner
    train: Pairing
    val: Pairing
    config: FitConfig
    clock: Clock
    listen: Listener
    checkpoints: Checkpoints

    def run(self) -> Outcome:
        """Train, and leave the learner with the weights that are to be saved.

        Raises:
            TrainingError: There is a checkpoint of another run, or the loss is not finite.
        """
        progress = self.checkpoints.load(self.digest()) or Progress(run=self.digest())
        began = self.clock.seconds
        try:
            feeds = self._feeds(self.train, self.learner.recipe.looks + 1), self._feeds(self.val, 1)
        except _OutOfTimeError:
            return Outcome(stopped_by="time_limit", progress=progress, seconds={"features": self.clock.seconds - began})
        self._standardise(feeds[0])
        seconds = {"features": self.clock.seconds - began}
        before = self._recall(feeds[1])
        began = self.clock.seconds
        stopped_by = self._trainer(feeds).run(progress)
        seconds["training"] = self.clock.seconds - began
        choice = self._choose(progress, before, feeds[1])
        after = before
        if choice is not None:
            self.learner.load(choice.weights)
            after = self._recall(feeds[1])
        else:
            self.learner.load(self.learner.start)
        return Outcome(
            stopped_by=stopped_by, progress=progress, before=before, after=after, choice=choice, seconds=seconds
        )

    def report(self, outcome: Outcome, folder: Path, unreadable: tuple[str, ...]) -> FitReport:
        """Return what the run did."""
        choice = outcome.choice
        return FitReport(
            encoder=f"local-dir:{folder}",
            base=self.towers.spec,
            sides=(self.train.left.kind, self.train.right.kind),
            before=outcome.before,
            after=outcome.after,
            curve=outcome.progress.curve,
            stopped_by=outcome.stopped_by,
            averaged=choice.steps if choice else (),
            alpha=choice.alpha if choice else 0.0,
            counts=self._counts(),
            seconds={**outcome.seconds, "all": self.clock.seconds},
            settings=self._settings(),
            unreadable=unreadable,
        )

    def digest(self) -> str:
        """Return a hash of all that the result depends on, the time limit left aside."""
        examples = [
            [list(side.left.keys), list(side.right.keys), side.positives.tolist(), side.negatives.tolist()]
            for side in (self.train, self.val)
        ]
        settings = {**self._settings(), "time_limit": None}
        return hashlib.sha256(json.dumps([settings, self.towers.spec, examples]).encode()).hexdigest()

    def _standardise(self, feeds: Feeds) -> None:
        images = [feed for feed in feeds if isinstance(feed, ImageFeed)]
        if images and isinstance(self.learner.image, ConseTower) and len(images[0]) > 1:
            rows = np.arange(min(len(images[0]), STANDARDISED_ON))
            hidden, _ = images[0].fetch(rows, np.zeros_like(rows))
            self.learner.image.standardise(hidden, images[0].part.cut or 0)

    def _trainer(self, feeds: tuple[Feeds, Feeds]) -> Trainer:
        recipe, train_feeds = self.learner.recipe, feeds[0]
        images = [feed for feed in train_feeds if isinstance(feed, ImageFeed)]
        sampler = Sampler(
            pairing=self.train,
            batch_size=recipe.batch_size,
            captions=recipe.captions,
            looks=recipe.looks if images else 0,
            fresh=not any(feed.cached_looks for feed in images),
            seed=self.config.seed,
        )
        return Trainer(
            learner=self.learner,
            sampler=sampler,
            feeds=train_feeds,
            measure=lambda: self._recall(feeds[1]),
            config=self.config,
            clock=self.clock,
            checkpoints=self.checkpoints,
            listen=self.listen,
        )

    def _recall(self, feeds: Feeds) -> Recall:
        self.learner.training(False)
        return measure(self.val, feeds, FEATURE_BATCH[self.learner.placement.kind])

    def _choose(self, progress: Progress, before: Recall, feeds: Feeds) -> Choice | None:
        """Return the weights to keep; None where nothing was trained."""
        if not progress.candidates:
            return None
        self.listen(FitProgress(stage="choose", done=0, total=1, text="choosing among averages of the best weights"))

        def score(weights: Weights) -> float:
            if self.clock.left < 0:
                return -1.0
            self.learner.load(weights)
            return self._recall(feeds).mean

        candidates = [(mean, step, self.checkpoints.tensors("candidate", step)) for mean, step in progress.candidates]
        choice = greedy_soup(candidates, score)
        if not self.config.interpolate:
            return choice
        # The temperature plays no part in ranking: points on the way keep the trained one.
        start = {**choice.weights, **self.learner.start}
        return interpolated(start, choice, before.mean, score)

    def _feeds(self, pairing: Pairing, looks: int) -> Feeds:
        left = self._feed(pairing.left, looks)
        return left, left if pairing.families is not None else self._feed(pairing.right, looks)

    def _feed(self, items: Items, looks: int) -> Feed:
        part, batch = self.learner.part(items.kind), FEATURE_BATCH[self.learner.placement.kind]
        if items.kind == "image":
            images = ImageFeed(items, part, Preprocess(self.towers.preprocess), self.config.seed)
            self._watch(images.fill(self.config.cache_bytes, batch, looks), items, looks)
            return images
        texts = TextFeed(items, part, self.learner.text, self.towers.tokenizer)
        self._watch(texts.fill(self.config.cache_bytes, 4 * batch), items, 1)
        return texts

    def _watch(self, filling: Iterator[int], items: Items, looks: int) -> None:
        text = f"features of {len(items)} {items.kind}s" + (f", {looks} looks each" if looks > 1 else "")
        if self.clock.over:
            raise _OutOfTimeError
        self.listen(FitProgress(stage="features", done=0, total=len(items) * looks, text=text))
        for done in filling:
            if self.clock.over:
                raise _OutOfTimeError
            self.listen(FitProgress(stage="features", done=done, total=len(items) * looks))

    def _counts(self) -> dict[str, int]:
        return {
            f"{role}_{name}": count
            for role, side in (("train", self.train), ("val", self.val))
            for name, count in (("left", len(side.left)), ("right", len(side.right)), ("pairs", len(side.positives)))
        }

    def _settings(self) -> dict[str, Any]:
        place = self.learner.placement
        own = {**asdict(self.config), "device": place.device, "precision": place.precision}
        return {**own, **asdict(self.learner.recipe)}


class _OutOfTimeError(Exception):
    """The time limit came before the features were ready."""
