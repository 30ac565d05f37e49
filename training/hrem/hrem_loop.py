"""Steps, evaluations, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evaluation import evaluate_embeddings

from ..checkpoint import Checkpoints, Progress
from ..errors import TrainingError
from ..loop import Clock, FitProgress, Listener
from .hrem_batches import Batch, Feed
from .hrem_learner import Learner, Weights


def rate(epoch: int, steps: Sequence[int], decay: float) -> float:
    """Return the factor on the learning rate in an epoch, counted from 0: multiplied by `decay` at each step passed."""
    return decay ** sum(epoch >= step for step in steps)


Stop = Literal["finished", "early", "time_limit", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class HremTrainer:
    """Trains from where a run stopped, or from its beginning.

    Attributes:
        learner: The model.
        feed: Its batches.
        measure: Gives the recall of the learner as it is, on the dev split.
        clock: Of the run.
        checkpoints: Where to keep them.
        listen: Hears of the progress.
    """

    learner: Learner
    feed: Feed
    measure: Callable[[], dict[str, Any]]
    clock: Clock
    checkpoints: Checkpoints
    listen: Listener

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.learner.config.epochs * self.feed.steps

    def run(self, progress: Progress) -> Stop:
        """Train until the end, the time limit, an interrupt or no more gain; `progress` is kept up to date.

        Raises:
            TrainingError: The loss is not finite.
        """
        optimizer = self.learner.optimizer()
        if progress.step:
            self._restore(optimizer, progress)
        self.clock.start_training()
        losses: list[float] = []
        try:
            return self._epochs(optimizer, progress, losses)
        except KeyboardInterrupt:
            self.listen(FitProgress(stage="train", done=progress.step, total=self.total, text="interrupted: saving"))
            if not progress.candidates:
                self._evaluate(optimizer, progress, losses)
            return "interrupted"

    def _epochs(self, optimizer: torch.optim.AdamW, progress: Progress, losses: list[float]) -> Stop:
        patience = self.learner.config.patience
        while progress.step < self.total:
            epoch, start = divmod(progress.step, self.feed.steps)
            for batch in self.feed.epoch(epoch, start):
                if self.clock.over:
                    if losses or not progress.candidates:
                        self._evaluate(optimizer, progress, losses)
                    return "time_limit"
                losses.append(self._step(optimizer, batch, progress.step))
                progress.step += 1
                self.listen(FitProgress(stage="train", done=progress.step, total=self.total))
            self._evaluate(optimizer, progress, losses)
            losses.clear()
            if patience is not None and progress.stale >= patience and self._related(progress.step):
                return "early"
        return "finished"

    def _related(self, step: int) -> bool:
        """Whether the instance relations are at work: before, a standstill says nothing."""
        config = self.learner.config
        return config.interaction == "none" or step / self.feed.steps > config.warmup_epochs

    def _step(self, optimizer: torch.optim.AdamW, batch: Batch, step: int) -> float:
        config = self.learner.config
        self.learner.training_mode(True)
        factor = rate(step // self.feed.steps, config.steps, config.lr_decay)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.zero_grad()
        # The same dropout and the same negatives whether the run was stopped before or not.
        torch.manual_seed(int(np.random.SeedSequence((config.seed, step)).generate_state(1)[0]))
        loss = self.learner.loss(batch, step / self.feed.steps)
        found = float(loss.detach())
        if not math.isfinite(found):
            raise TrainingError(f"the loss is {found} at step {step + 1}; lower lr, or use precision fp32")
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.learner.trained.values(), config.clip_norm)
            optimizer.step()
        return found

    def _evaluate(self, optimizer: torch.optim.AdamW, progress: Progress, losses: list[float]) -> None:
        began = self.clock.seconds
        recall = self.measure()
        self.clock.keep_back((self.clock.seconds - began) * 2 + 1)
        best = not progress.candidates or recall["rsum"] > progress.candidates[0][0]
        progress.stale = 0 if best else progress.stale + 1
        if best:
            progress.candidates = [(recall["rsum"], progress.step)]
        loss = sum(losses) / len(losses) if losses else None
        row = {"step": progress.step, "epoch": progress.step / self.feed.steps, "loss": loss, **recall}
        progress.curve.append(row)
        self.checkpoints.save(progress, self._state(optimizer), self.learner.kept())
        self.listen(FitProgress(stage="evaluate", done=progress.step, total=self.total, text=line(row, best)))

    def _state(self, optimizer: torch.optim.AdamW) -> Weights:
        tensors = {f"value/{name}": value for name, value in self.learner.kept().items()}
        for name, parameter in self.learner.trained.items():
            moments = optimizer.state.get(parameter)
            if moments:
                tensors[f"first/{name}"] = moments["exp_avg"].cpu()
                tensors[f"second/{name}"] = moments["exp_avg_sq"].cpu()
                tensors[f"steps/{name}"] = moments["step"].cpu()
        return tensors

    def _restore(self, optimizer: torch.optim.AdamW, progress: Progress) -> None:
        tensors = self.checkpoints.tensors("state", progress.step)
        values = {name.removeprefix("value/"): value for name, value in tensors.items() if name.startswith("value/")}
        self.learner.load(values)
        for name, parameter in self.learner.trained.items():
            # Without an entry the parameter had not had a gradient yet: the relations during warm-up.
            if f"first/{name}" in tensors:
                optimizer.state[parameter] = {
                    "step": tensors[f"steps/{name}"],
                    "exp_avg": tensors[f"first/{name}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"second/{name}"].to(parameter.device),
                }


def line(row: dict[str, Any], best: bool) -> str:
    """Return one evaluation as a line: epoch, loss, recall of both directions."""
    t2i, i2t = (" / ".join(f"{value:.3f}" for value in row[name].values()) for name in DIRECTIONS)
    loss = "-" if row["loss"] is None else f"{row['loss']:.2f}"
    mark = "  best so far" if best else ""
    start = f"epoch {row['epoch']:.1f}  loss {loss}  dev rsum {row['rsum']:.1f}"
    return f"{start}  (t2i {t2i}; i2t {i2t}){mark}"


CUTOFFS = (1, 5, 10)
DEV_BATCH = 256
DIRECTIONS = ("text_to_image", "image_to_text")


def measure(learner: Learner, feed: Feed) -> dict[str, Any]:
    """Return R@k of both directions in [0, 1], and rsum."""
    images, texts = embed_split(learner, feed)
    depths = tuple(k for k in CUTOFFS if k <= min(len(images), len(texts)))
    found = evaluate_embeddings(images, texts, feed.split.pairs, depths)
    sides = {name: {f"R@{k}": found[name][f"R@{k}"] for k in depths} for name in DIRECTIONS}
    return {**sides, "rsum": found["rsum"]}


def embed_split(learner: Learner, feed: Feed) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit rows of all pictures and all captions of a split, nothing augmented."""
    learner.training_mode(False)
    device = learner.placement.device
    images, texts = [], np.empty((len(feed.tokens), learner.config.dim), dtype=np.float32)
    with torch.inference_mode():
        for rows in _parts(np.arange(len(feed.split))):
            regions = torch.from_numpy(feed.split.regions(rows)).to(device)
            mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=device)
            images.append(learner.towers.image(regions, mask).unit.float().cpu().numpy())
        # Neighbours of like length share a batch.
        for rows in _parts(np.argsort([len(one.ids) for one in feed.tokens], kind="stable")):
            texts[rows] = learner.embed_words(*feed.plain_words(rows)).unit.float().cpu().numpy()
    return np.concatenate(images), texts


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + DEV_BATCH] for start in range(0, len(rows), DEV_BATCH)]
