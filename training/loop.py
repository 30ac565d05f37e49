"""The training loop: steps, evaluations, checkpoints, and when to stop. Fine-tuning and HREM both run in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import nn

from encoders.device import Placement, choose_device

from .checkpoint import Checkpoints, RunState, Weights, new_folder, seconds_to_write
from .errors import TrainingError
from .on_device import Losses


@dataclass(frozen=True, kw_only=True)
class FitProgress:
    """One progress event of a run.

    Attributes:
        stage: `read`, `features`, `train`, `evaluate` or `choose`; of HREM also what is computed before training.
        done: Units of the stage done.
        total: Units of the stage in all.
        text: A line for people; empty where only the count has moved.
    """

    stage: str
    done: int
    total: int
    text: str = ""


STEP, LAST_EVALUATION, CHECKPOINT = "step", "last evaluation", "checkpoint"
Listener = Callable[[FitProgress], None]
Stop = Literal["finished", "early", "time_limit", "interrupted"]


def ignore_progress(progress: FitProgress) -> None:
    """The listener of a run without one: does nothing."""


class Clock:
    """The time budget of a run, counted from the construction of the object.

    Args:
        limit: Seconds allowed; None for no limit.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._began = time.monotonic()
        self._training_from = self._began
        self._kept: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the limit; infinite without one."""
        return float("inf") if self._limit is None else self._limit - self.seconds

    @property
    def over(self) -> bool:
        """Whether only what is kept back is left."""
        return self.left <= self._reserve

    @property
    def share(self) -> float:
        """Share of the training time that has passed, 0 to 1; 0 without a limit."""
        if self._limit is None:
            return 0.0
        whole = self._limit - self._reserve - (self._training_from - self._began)
        return min(1.0, (time.monotonic() - self._training_from) / whole) if whole > 0 else 1.0

    def start_training(self) -> None:
        """Mark the beginning of training, from which `share` counts."""
        self._training_from = time.monotonic()

    def keep_back(self, what: str, seconds: float) -> None:
        """Reserve seconds for something that is yet to come; of several figures for it the largest counts."""
        self._kept[what] = max(self._kept.get(what, 0.0), seconds)

    def let_go(self, *over: str) -> None:
        """Give back what was reserved for things that are over."""
        for what in over:
            self._kept.pop(what, None)

    def kept_back(self, what: str) -> float:
        """Return the seconds that are reserved for something; 0 where none are."""
        return self._kept.get(what, 0.0)

    @property
    def _reserve(self) -> float:
        return sum(self._kept.values())


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run has around its model: output folder, device, time budget, listener, checkpoints.

    Attributes:
        folder: Where the result appears, as a whole or not at all.
        placement: Device and precision.
        clock: The time budget.
        listen: Hears of the progress.
        checkpoints: Beside the output folder, `NAME.fit`.
    """

    folder: Path
    placement: Placement
    clock: Clock
    listen: Listener
    checkpoints: Checkpoints

    @classmethod
    def begin(
        cls, out: str | Path, listen: Listener | None, *, device: str, precision: str, time_limit: float | None
    ) -> RunContext:
        """Return the context of a run that starts now.

        Raises:
            EncoderError: The device is not there.
            TrainingError: There is something at `out` already, or the precision is fp16.
        """
        folder = new_folder(Path(out))
        return cls(
            folder=folder,
            placement=training_placement(device, precision),
            clock=Clock(time_limit),
            listen=listen or ignore_progress,
            checkpoints=Checkpoints(folder.with_name(f"{folder.name}.fit")),
        )

    def keep_back_saving(self, model: nn.Module) -> None:
        """Reserve the seconds that saving a model takes; without a limit, or with none left, nothing is measured.

        Raises:
            StorageError: Nothing can be written where the result is to appear.
        """
        if 0 < self.clock.left < float("inf"):
            size = sum(value.nbytes for value in model.state_dict().values())
            self.clock.keep_back("saving", seconds_to_write(self.folder, size))

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Seed torch's random numbers, and put the caller's back afterwards."""
        devices = [torch.device(self.placement.device)] if self.placement.kind == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield


def training_placement(device: str, precision: str) -> Placement:
    """Return the device and precision of a run; `auto` never gives fp16, whose exponent is too small for gradients.

    Raises:
        EncoderError: The device is not there.
        TrainingError: The precision is fp16.
    """
    if precision == "fp16":
        raise TrainingError("precision 'fp16' overflows in training; choose bf16 or fp32")
    placement = choose_device(device, precision)
    return Placement(device=placement.device, precision="fp32") if placement.precision == "fp16" else placement


def warmup_cosine(progress: float, warmup: float) -> float:
    """Return the factor of the learning rate: a linear rise over the warm-up, then a cosine to 0.

    Args:
        progress: Share of the run that is done, 0 to 1.
        warmup: Share of the run in which the rate rises.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def step_decay(epoch: int, epochs: Sequence[int], decay: float) -> float:
    """Return the factor of the learning rate in an epoch, counted from 0: times `decay` at each of `epochs` passed."""
    return decay ** sum(epoch >= step for step in epochs)


class Learner(Protocol):
    """A model in training, as the loop sees it."""

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        """The parameters that are optimised, by name."""

    def optimizer(self) -> torch.optim.AdamW:
        """Return a fresh optimiser; each group holds its highest learning rate as `peak`."""

    def training_mode(self, on: bool) -> None:
        """Switch dropout and the like on or off."""

    def state(self) -> Weights:
        """Return a copy of the tensors that a resumed run needs beside the optimiser's, on the CPU."""

    def restore(self, state: Weights) -> None:
        """Put back what `state` returned."""

    def weights(self) -> Weights:
        """Return a copy of the weights that may be kept in the end, on the CPU."""


# What AdamW keeps of a parameter, by its name in a checkpoint.
_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq", "steps": "step"}
BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


class Batches(Protocol[BatchT_co]):
    """The batches of a run; those of an epoch depend on nothing but a seed and the epoch's number."""

    @property
    def steps(self) -> int:
        """Steps an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[BatchT_co]:
        """Yield the batches of an epoch from step `start` on."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run is, how its learning rate goes, and when it is evaluated.

    Attributes:
        epochs: At most.
        evaluate_every: Steps between evaluations; the last step is evaluated too.
        rate: The factor of the learning rate at a step, counted from 0.
        clip_norm: Largest norm of the gradient; 0 for any.
        keep: How many of the best weights are kept.
        patience: Evaluations without gain after which the run stops; None never stops early.
        patient_until: Steps up to which it does not stop early.
    """

    epochs: int
    evaluate_every: int
    rate: Callable[[int], float]
    clip_norm: float
    keep: int = 1
    patience: int | None
    patient_until: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One evaluation: the score that weights are chosen by, the figures of the curve, and a line for people."""

    score: float
    figures: Mapping[str, Any]
    text: str


class TrainingLoop(Generic[BatchT]):
    """Trains a learner from where a run stopped, or from its beginning.

    Args:
        learner: The model.
        batches: What it learns from.
        backward: Adds the gradients of a batch at a step to the parameters, and returns the loss as a tensor without
            a graph, which is not waited for. It must depend on the batch, the step and the weights alone: a resumed run
            then gives the same result.
        measure: Evaluates the learner as it is.
        schedule: Length, rates, evaluations.
        context: The surroundings of the run.
        state: How far the run has come; kept up to date.
    """

    def __init__(
        self,
        *,
        learner: Learner,
        batches: Batches[BatchT],
        backward: Callable[[BatchT, int], torch.Tensor],
        measure: Callable[[], Measurement],
        schedule: Schedule,
        context: RunContext,
        state: RunState,
    ) -> None:
        self._learner, self._batches, self._backward, self._measure = learner, batches, backward, measure
        self._schedule, self._context, self._state = schedule, context, state
        self._total = schedule.epochs * batches.steps
        self._optimizer = learner.optimizer()
        self._losses = Losses(context.placement.kind, context.placement.device)

    def run(self) -> Stop:
        """Train until the end, the time limit, an interrupt (Ctrl-C) or no more gain.

        Raises:
            TrainingError: The loss is not finite.
            CheckpointError: What a stopped run left cannot be read.
            StorageError: A checkpoint cannot be written; the one before is whole.
        """
        if self._state.step:
            self._restore()
        self._context.clock.start_training()
        try:
            return self._epochs()
        except KeyboardInterrupt:
            self._tell("train", "interrupted: saving")
            return "interrupted"
        finally:
            self._context.checkpoints.wait()

    def evaluate(self) -> None:
        """Measure the learner as it is, and begin to save a checkpoint.

        Raises:
            TrainingError: The loss of a step before was not finite.
            StorageError: The checkpoint before could not be written.
        """
        state, clock, checkpoints = self._state, self._context.clock, self._context.checkpoints
        loss = self._losses.pop_mean()
        began = clock.seconds
        measured = self._measure()
        best = state.rank(measured.score, self._schedule.keep)
        epoch = state.step / self._batches.steps
        state.curve.append({"step": state.step, "epoch": epoch, "loss": loss, **measured.figures})
        checkpoints.wait()  # before there is another copy of everything
        checkpoints.save(state, self._tensors(), self._learner.weights())
        clock.keep_back(LAST_EVALUATION, clock.seconds - began)
        mark = "  best so far" if best else ""
        said = "-" if loss is None else f"{loss:.3f}"
        self._tell("evaluate", f"epoch {epoch:.1f}  loss {said}  {measured.text}{mark}")

    def _epochs(self) -> Stop:
        state, schedule, context = self._state, self._schedule, self._context
        while state.step < self._total:
            epoch, start = divmod(state.step, self._batches.steps)
            for batch in self._batches.epoch(epoch, start):
                context.checkpoints.check()
                context.clock.keep_back(CHECKPOINT, context.checkpoints.seconds)
                if context.clock.over:
                    if self._losses:
                        self.evaluate()
                    return "time_limit"
                began = context.clock.seconds
                self._losses.add(state.step, self._step(batch, state.step))
                context.clock.keep_back(STEP, (1 + self._losses.behind) * (context.clock.seconds - began))
                state.step += 1
                self._tell("train")
                if state.step % schedule.evaluate_every == 0 or state.step == self._total:
                    self.evaluate()
                    if self._out_of_patience():
                        return "early"
        return "finished"

    def _out_of_patience(self) -> bool:
        patience, patient_until = self._schedule.patience, self._schedule.patient_until
        return patience is not None and self._state.stale >= patience and self._state.step > patient_until

    def _step(self, batch: BatchT, step: int) -> torch.Tensor:
        self._learner.training_mode(True)
        factor = self._schedule.rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self._optimizer.zero_grad()
        loss = self._backward(batch, step)
        nn.utils.clip_grad_norm_(self._learner.trained.values(), self._schedule.clip_norm or math.inf)
        self._optimizer.step()
        return loss

    def _tensors(self) -> Weights:
        tensors = {f"value/{name}": value for name, value in self._learner.state().items()}
        for name, parameter in self._learner.trained.items():
            # Without an entry a parameter has had no gradient yet, such as HREM's relations during its warm-up.
            moments = self._optimizer.state.get(parameter)
            if moments:
                for kind, key in _MOMENTS.items():
                    tensors[f"{kind}/{name}"] = moments[key].to("cpu", copy=True)
        return tensors

    def _restore(self) -> None:
        tensors = self._context.checkpoints.tensors("state", self._state.step)
        values = {name.removeprefix("value/"): value for name, value in tensors.items() if name.startswith("value/")}
        self._learner.restore(values)
        fused = self._optimizer.defaults["fused"]
        for name, parameter in self._learner.trained.items():
            if f"first/{name}" in tensors:
                self._optimizer.state[parameter] = {
                    "step": tensors[f"steps/{name}"].to(parameter.device if fused else "cpu"),
                    "exp_avg": tensors[f"first/{name}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"second/{name}"].to(parameter.device),
                }

    def _tell(self, stage: str, text: str = "") -> None:
        self._context.listen(FitProgress(stage=stage, done=self._state.step, total=self._total, text=text))
