"""One fine-tuning run: features of frozen blocks, training, the choice among the best weights, report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from encoders.preprocess import Preprocess
from encoders.two_towers import TwoTowers
from storage.duplicates.grades import copy_rule
from storage.schema import EncoderInfo

from .batches import Announced, Batch, Items, Pairing, Sampler
from .checkpoint import RunState, Weights
from .examples import Kind
from .features import Feed, ImageFeed, TextFeed, embed
from .leaks import Leaks, leaked
from .learner import Learner
from .loop import (
    CHECKPOINT,
    LAST_EVALUATION,
    STEP,
    FitProgress,
    Measurement,
    RunContext,
    Schedule,
    TrainingLoop,
    warmup_cosine,
)
from .report import FitReport
from .selection import ALPHAS, Choice, Recall, greedy_soup, interpolated, measure
from .time_budget import FEATURE_SHARE, FeatureBudget, Feeds, GrowingFeatures, validation_count
from .tower_split import ConseTower

# Items a forward pass without gradients.
FEATURE_BATCH = {"cpu": 32, "cuda": 256}
# Batches whose images are decoded while others are computed; on a CPU both want the same cores.
BATCHES_AHEAD = {"cpu": 0, "cuda": 2}
# Images whose features give the wide head of `lite` its scales.
STANDARDISED_ON = 512
REPORT, CHOICE = "report", "choice"
CHOICE_SHARE = 0.05
"""Share of the time limit that choosing among weights may take when the limit ends the training."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """A learner with the examples of its run.

    Attributes:
        towers: The model; the learner trains it in place.
        learner: What is trained of it.
        train: What to learn from.
        val: What to choose weights by.
        unreadable: Images that were left out of both, a line each.
        read: Share of the images given that these are.
        given: How many images, or other left items, were given to learn from and to choose by.
        context: Output folder, device, time budget, listener, checkpoints.
    """

    towers: TwoTowers
    learner: Learner
    train: Pairing
    val: Pairing
    unreadable: tuple[str, ...]
    read: float = 1.0
    given: int
    context: RunContext

    def run(self) -> FitReport:
        """Train, and leave the learner with the weights that are to be saved.

        Raises:
            TrainingError: There is a checkpoint of another run, or the loss is not finite.
        """
        context = self.context
        context.keep_back_saving(self.towers.model)
        state = context.checkpoints.load(self._digest())
        if not state.step:
            state.read = self.read
        began = context.clock.seconds
        try:
            part, feeds, val_feeds = self._features(state)
        except _OutOfTimeError:
            text = "nothing is trained: the time limit was over before the features were ready; raise it"
            context.listen(FitProgress(stage="features", done=0, total=0, text=text))
            return self._report(state, stopped_by="time_limit", seconds={"features": context.clock.seconds - began})
        return part._run(state, feeds, val_feeds, context.clock.seconds - began)

    def _features(self, state: RunState) -> tuple[FineTuning, Feeds, Feeds]:
        """Compute the features of as many examples and views as the time allows, and say so where that is not all.

        A resumed run takes those that it began with.
        """
        clock = self.context.clock
        if clock.over:
            raise _OutOfTimeError
        limited = clock.left < float("inf") and not state.step
        until = clock.seconds + FEATURE_SHARE * clock.left if limited else float("inf")
        train, val = (self._growing(pairing, limited) for pairing in (self.train, self.val))
        budget = FeatureBudget(clock=clock, until=until, watch=self._watch, tell=self._tell)
        goal = round(state.share * len(train)) if state.step else len(train)
        self._tell(0, goal)
        count = budget.fill(train, val, goal)
        chosen = validation_count(count, len(train), len(val))
        if not state.step:
            state.share = count / len(train)
        part = replace(self, train=train.cut(count), val=val.cut(chosen))
        views = self._views(state)
        if state.share == 1 or not train.caches_images:
            views = budget.add_views(train, views)
        elif limited:
            views = 0
        if limited:
            state.views = views
            self._say_what_is_used(state, count, len(train))
        return part, train.feeds, val.feeds

    def _say_what_is_used(self, state: RunState, count: int, of: int) -> None:
        clock, views = self.context.clock, self._views(state)
        less = [_views_used(views)] if views < self.learner.recipe.views else []
        less += [f"{state.share:.0%} of the examples are used, {count:,} of {of:,}"] if count < of else []
        if less:
            text = (
                f"{clock.left:,.0f} s of the time limit are left to train in: {' and '.join(less)}, so that features "
                f"take no more than {FEATURE_SHARE:.0%} of it"
            )
            self.context.listen(FitProgress(stage="features", done=0, total=0, text=text))

    def _run(self, state: RunState, feeds: Feeds, val_feeds: Feeds, feature_seconds: float) -> FitReport:
        clock = self.context.clock
        self._standardise(feeds)
        seconds = {"features": feature_seconds}
        clock.let_go("features")
        before = self._recall(val_feeds)
        leaks = self._leaks(feeds, val_feeds)
        self._keep_back_evaluations(leaks)
        began = clock.seconds
        stopped_by = self._loop(feeds, val_feeds, state).run()
        seconds["training"] = clock.seconds - began
        choice = self._choose(state, before, val_feeds)
        self.learner.load(choice.weights if choice else self.learner.start)
        after = self._recall(val_feeds) if choice else before
        report = self._report(state, stopped_by=stopped_by, seconds=seconds, before=before, after=after, choice=choice)
        return replace(report, leaks=replace(leaks, without=self._recall_without(leaks, val_feeds)))

    def _digest(self) -> str:
        """Return a hash of all that the result depends on, the time limit left aside."""
        examples = [
            [list(side.left.keys), list(side.right.keys), side.positives.tolist(), side.negatives.tolist()]
            for side in (self.train, self.val)
        ]
        settings = {**asdict(self.learner.recipe), "time_limit": None}
        return hashlib.sha256(json.dumps([settings, self.towers.spec, examples]).encode()).hexdigest()

    def _growing(self, pairing: Pairing, partly: bool) -> GrowingFeatures:
        left = self._feed(pairing.left, partly)
        return GrowingFeatures(
            pairing=pairing,
            feeds=(left, left if pairing.families is not None else self._feed(pairing.right, partly)),
            batches={"image": self._batch("image"), "text": self._batch("text")},
            seed=self.learner.recipe.seed,
        )

    def _feed(self, items: Items, partly: bool) -> Feed:
        recipe, part = self.learner.recipe, self.learner.part(items.kind)
        if items.kind == "image":
            preprocess = Preprocess(self.towers.preprocess)
            return ImageFeed(items, part, preprocess, recipe.seed, recipe.cache_bytes, partly=partly)
        tokenizer = self.towers.tokenizer
        return TextFeed(items, part, self.learner.text, tokenizer, recipe.cache_bytes, partly=partly)

    def _batch(self, kind: Kind) -> int:
        """Items of a kind that one forward pass without gradients takes."""
        return FEATURE_BATCH[self.context.placement.kind] * (1 if kind == "image" else 4)

    def _watch(self, filling: Iterator[int]) -> Iterator[int]:
        """Go on with features while there is time, and keep back what the longest of their forward passes took."""
        clock = self.context.clock
        began = clock.seconds
        for done in filling:
            clock.keep_back("features", clock.seconds - began)
            if clock.over:
                raise _OutOfTimeError
            yield done
            began = clock.seconds

    def _tell(self, done: int, total: int) -> None:
        text = "" if done else f"features of {total:,} {self.train.left.kind}s"
        self.context.listen(FitProgress(stage="features", done=done, total=total, text=text))

    def _standardise(self, feeds: Feeds) -> None:
        images = [feed for feed in feeds if isinstance(feed, ImageFeed)]
        if images and isinstance(self.learner.image, ConseTower) and len(images[0]) > 1:
            rows = np.arange(min(len(images[0]), STANDARDISED_ON))
            hidden, _ = images[0].fetch(rows, np.zeros_like(rows))
            self.learner.image.standardise(hidden, images[0].part.cut or 0)

    def _loop(self, feeds: Feeds, val_feeds: Feeds, state: RunState) -> TrainingLoop[Any]:
        recipe, clock = self.learner.recipe, self.context.clock
        images = [feed for feed in feeds if isinstance(feed, ImageFeed)]
        sampler = Sampler(
            pairing=self.train,
            batch_size=recipe.batch_size,
            captions=recipe.captions,
            views=self._views(state) if images else 0,
            fresh=not any(feed.cached_views for feed in images),
            seed=recipe.seed,
        )
        total = recipe.epochs * sampler.steps
        schedule = Schedule(
            epochs=recipe.epochs,
            evaluate_every=max(1, round(total / recipe.evaluations)),
            rate=lambda step: warmup_cosine(max((step + 1) / total, clock.share), recipe.warmup),
            clip_norm=recipe.clip_norm,
            keep=recipe.soup,
            patience=recipe.patience,
        )
        return TrainingLoop(
            learner=self.learner,
            batches=Announced(
                sampler=sampler, announce=partial(_expect, feeds), ahead=BATCHES_AHEAD[self.context.placement.kind]
            ),
            backward=lambda batch, step: self.learner.backward(batch, feeds, (recipe.seed, step)),
            measure=lambda: _measurement(self._recall(val_feeds)),
            schedule=schedule,
            context=self.context,
            state=state,
        )

    def _views(self, state: RunState) -> int:
        """Augmented views of each image that the run uses."""
        return self.learner.recipe.views if state.views is None else state.views

    def _recall(self, feeds: Feeds) -> Recall:
        clock = self.context.clock
        began = clock.seconds
        self.learner.training_mode(False)
        recall = measure(self.val, feeds, FEATURE_BATCH[self.context.placement.kind])
        clock.keep_back(REPORT, clock.seconds - began)
        return recall

    def _keep_back_evaluations(self, leaks: Leaks) -> None:
        """Reserve what comes when the time for training is over, as the evaluation before it took."""
        recipe, clock = self.learner.recipe, self.context.clock
        seconds = clock.kept_back(REPORT)
        clock.keep_back(LAST_EVALUATION, seconds)
        clock.keep_back("leaks", seconds if leaks.any else 0.0)
        choices = recipe.soup - 1 + (len(ALPHAS) if recipe.interpolate else 0)
        clock.keep_back(CHOICE, min(seconds * choices, CHOICE_SHARE * (recipe.time_limit or 0.0)))

    def _leaks(self, feeds: Feeds, val_feeds: Feeds) -> Leaks:
        """Return the validation items that are among the training items, as the untrained model tells copies."""
        towers, batch = self.towers, FEATURE_BATCH[self.context.placement.kind]
        rule = copy_rule(EncoderInfo(spec=towers.spec, dim=0, fingerprint=None, details=towers.details))
        both = [(self.train.left, self.val.left), (self.train.right, self.val.right)]
        found = []
        for side, (train, val) in enumerate(both[: 1 if self.val.families is not None else 2]):
            embeds = partial(embed, feeds[side], batch), partial(embed, val_feeds[side], batch)
            found.append(leaked(rule, train, val, embeds))
        sides = self.val.left, self.val.right
        return Leaks(
            left=found[0], right=found[-1], of=(len(sides[0]), len(sides[1])), kinds=(sides[0].kind, sides[1].kind)
        )

    def _recall_without(self, leaks: Leaks, val_feeds: Feeds) -> Recall | None:
        kept = leaks.kept(self.val) if leaks.any else None
        if kept is None:
            return None
        self.learner.training_mode(False)
        return measure(kept[2], val_feeds, FEATURE_BATCH[self.context.placement.kind], kept[:2])

    def _choose(self, state: RunState, before: Recall, feeds: Feeds) -> Choice | None:
        """Return the weights to keep; None where nothing was trained."""
        if not state.candidates:
            return None
        context = self.context
        context.clock.let_go(STEP, LAST_EVALUATION, CHECKPOINT, CHOICE)
        context.clock.keep_back("one to choose by", context.clock.kept_back(REPORT))
        text = "choosing among averages of the best weights"
        context.listen(FitProgress(stage="choose", done=0, total=1, text=text))

        def score(weights: Weights) -> float:
            if context.clock.over:
                return -1.0
            self.learner.load(weights)
            return self._recall(feeds).mean

        tensors = context.checkpoints.tensors
        choice = greedy_soup([(mean, step, tensors("candidate", step)) for mean, step in state.candidates], score)
        if not self.learner.recipe.interpolate:
            return choice
        # The temperature plays no part in ranking: interpolated weights keep the trained one.
        start = {**choice.weights, **self.learner.start}
        return interpolated(start, choice, before.mean, score)

    def _report(
        self,
        state: RunState,
        *,
        stopped_by: str,
        seconds: dict[str, float],
        before: Recall | None = None,
        after: Recall | None = None,
        choice: Choice | None = None,
    ) -> FitReport:
        return FitReport(
            encoder=f"local-dir:{self.context.folder}",
            base=self.towers.spec,
            sides=(self.train.left.kind, self.train.right.kind),
            before=before,
            after=after,
            curve=state.curve,
            stopped_by=stopped_by,
            averaged=choice.steps if choice else (),
            alpha=choice.alpha if choice else 0.0,
            counts=self._counts(),
            seconds={**seconds, "all": self.context.clock.seconds},
            settings=asdict(self.learner.recipe),
            share=state.read * state.share,
            given=self.given,
            views=self._views(state),
            unreadable=self.unreadable,
        )

    def _counts(self) -> dict[str, int]:
        return {
            f"{role}_{name}": count
            for role, side in (("train", self.train), ("val", self.val))
            for name, count in (("left", len(side.left)), ("right", len(side.right)), ("pairs", len(side.positives)))
        }


def _views_used(views: int) -> str:
    return f"{views or 'no'} augmented view{'' if views == 1 else 's'} of each image"


def _measurement(recall: Recall) -> Measurement:
    left, right = (
        " / ".join(f"{value:.3f}" for value in side.values()) for side in (recall.left_to_right, recall.right_to_left)
    )
    text = f"recall {recall.mean:.3f}  ({left}; {right})"
    return Measurement(score=recall.mean, figures=recall.to_json(), text=text)


class _OutOfTimeError(Exception):
    """The time limit came before the features were ready."""


def _expect(feeds: Feeds, batch: Batch) -> None:
    """Begin to decode the images of a batch, as `Learner.backward` will fetch them."""
    for feed, rows, draws in zip(
        feeds, (batch.left, batch.right), (batch.views, np.zeros_like(batch.right)), strict=True
    ):
        if isinstance(feed, ImageFeed):
            feed.expect(rows, draws)
