"""The loop: steps, evaluations, checkpoints, and when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from .batches import Sampler
from .checkpoint import Checkpoints, Progress
from .config import FitConfig
from .errors import TrainingError
from .features import Feed
from .learner import Learner
from .selection import Recall


class Clock:
    """Counts from its making.

    Args:
        limit: Seconds allowed; None for any.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._began = time.monotonic()
        self._training_from = self._began
        # What is still to come when training ends: evaluations of candidates, saving.
        self._reserve = 0.0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the limit; infinite without one."""
        return float("inf") if self._limit is None else self._limit - self.seconds

    @property
    def over(self) -> bool:
        """Whether only the reserve is left."""
        return self.left <= self._reserve

    @property
    def share(self) -> float:
        """How much of the training time is gone, 0 to 1; 0 without a limit."""
        if self._limit is None:
            return 0.0
        whole = self._limit - self._reserve - (self._training_from - self._began)
        return min(1.0, (time.monotonic() - self._training_from) / whole) if whole > 0 else 1.0

    def start_training(self) -> None:
        """Note that what follows is training."""
        self._training_from = time.monotonic()

    def keep_back(self, seconds: float) -> None:
        """Reserve time for what comes after training."""
        self._reserve = max(self._reserve, seconds)


Stop = Literal["finished", "early", "time_limit", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class FitProgress:
    """What a run tells while it works.

    Attributes:
        stage: `features`, `train`, `evaluate` or `choose`.
        done: Units of the stage done.
        total: Units of the stage in all.
        text: A line for people; empty where only the count has moved.
    """

    stage: str
    done: int
    total: int
    text: str = ""


Listener = Callable[[FitProgress], None]


def rate(progress: float, warmup: float) -> float:
    """Return the factor of the learning rate: a linear rise over the warm-up, then a cosine to 0.

    Args:
        progress: Share of the run that is done, 0 to 1.
        warmup: Share of the run in which it rises.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains a learner from where a run stopped, or from its beginning.

    Attributes:
        learner: The model.
        sampler: Its batches.
        feeds: What the batches' rows are taken from.
        measure: Gives the validation recall of the learner as it is.
        config: Of the run.
        clock: Of the run.
        checkpoints: Where to keep them.
        listen: Hears of the progress.
    """

    learner: Learner
    sampler: Sampler
    feeds: tuple[Feed, Feed]
    measure: Callable[[], Recall]
    config: FitConfig
    clock: Clock
    checkpoints: Checkpoints
    listen: Listener

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.learner.recipe.epochs * self.sampler.steps

    def run(self, progress: Progress) -> Stop:
        """Train until the end, the time limit, an interrupt or no more gain; `progress` is kept up to date.

        Raises:
            TrainingError: The loss is not finite.
        """
        optimizer = self.learner.optimizer()
        if progress.step:
            self._restore(optimizer, progress)
        self.clock.start_training()
        try:
            return self._steps(optimizer, progress)
        except KeyboardInterrupt:
            self.listen(FitProgress(stage="train", done=progress.step, total=self.total, text="interrupted: saving"))
            return "interrupted"

    def _steps(self, optimizer: torch.optim.AdamW, progress: Progress) -> Stop:
        every = max(1, round(self.total / self.learner.recipe.evaluations))
        losses: list[float] = []
        while progress.step < self.total:
            epoch, start = divmod(progress.step, self.sampler.steps)
            for batch in self.sampler.epoch(epoch, start):
                if self.clock.over:
                    return self._stopped(optimizer, progress, losses)
                losses.append(self._step(optimizer, batch, progress.step))
                progress.step += 1
                self.listen(FitProgress(stage="train", done=progress.step, total=self.total))
                if progress.step % every == 0 or progress.step == self.total:
                    self._evaluate(optimizer, progress, losses)
                    losses.clear()
                    if self.config.patience is not None and progress.stale >= self.config.patience:
                        return "early"
        return "finished"

    def _stopped(self, optimizer: torch.optim.AdamW, progress: Progress, losses: list[float]) -> Stop:
        if losses:
            self._evaluate(optimizer, progress, losses)
        return "time_limit"

    def _step(self, optimizer: torch.optim.AdamW, batch: Any, step: int) -> float:
        self.learner.training(True)
        factor = rate(max((step + 1) / self.total, self.clock.share), self.config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.zero_grad()
        loss = self.learner.backward(batch, self.feeds, (self.config.seed, step))
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {step + 1}; lower lr and head_lr, or use precision fp32")
        nn.utils.clip_grad_norm_(self.learner.trained.values(), self.config.clip_norm or math.inf)
        optimizer.step()
        self.learner.clamp_scale()
        return loss

    def _evaluate(self, optimizer: torch.optim.AdamW, progress: Progress, losses: list[float]) -> None:
        began = self.clock.seconds
        recall = self.measure()
        took = self.clock.seconds - began
        # After training: the candidates, the interpolations, and one more for the report.
        self.clock.keep_back(took * 2 + 1)
        best = not progress.candidates or recall.mean > progress.candidates[0][0]
        progress.stale = 0 if best else progress.stale + 1
        progress.candidates = sorted([*progress.candidates, (recall.mean, progress.step)], key=_best_first)
        progress.candidates = progress.candidates[: self.config.soup]
        loss = sum(losses) / len(losses)
        row = {"step": progress.step, "epoch": progress.step / self.sampler.steps, "loss": loss, **recall.to_json()}
        progress.curve.append(row)
        self.checkpoints.save(progress, self._state(optimizer), self.learner.weights())
        self.listen(FitProgress(stage="evaluate", done=progress.step, total=self.total, text=line(row, best)))

    def _state(self, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, parameter in self.learner.trained.items():
            moments = optimizer.state[parameter]
            tensors[f"value/{name}"] = parameter.detach().cpu()
            tensors[f"first/{name}"] = moments["exp_avg"].cpu()
            tensors[f"second/{name}"] = moments["exp_avg_sq"].cpu()
        return tensors

    def _restore(self, optimizer: torch.optim.AdamW, progress: Progress) -> None:
        tensors = self.checkpoints.tensors("state", progress.step)
        for name, parameter in self.learner.trained.items():
            with torch.no_grad():
                parameter.copy_(tensors[f"value/{name}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(progress.step)),
                "exp_avg": tensors[f"first/{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"second/{name}"].to(parameter.device),
            }


def line(row: dict[str, Any], best: bool) -> str:
    """Return one evaluation as a line: epoch, loss, recall of both directions."""
    left, right = (_figures(row[side]) for side in ("left_to_right", "right_to_left"))
    mark = "  best so far" if best else ""
    return f"epoch {row['epoch']:.1f}  loss {row['loss']:.3f}  recall {row['mean']:.3f}  ({left}; {right}){mark}"


def _figures(recall: dict[str, float]) -> str:
    return " / ".join(f"{value:.3f}" for value in recall.values())


def _best_first(candidate: tuple[float, int]) -> tuple[float, int]:
    return -candidate[0], candidate[1]
