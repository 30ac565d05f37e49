"""While a GPU computes, losses are read two steps late and checkpoints are written: what stands in for one tells."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from line_learner import Line, Steps

from encoders.device import Placement
from storage.errors import StorageError
from storage.files import atomic
from training import checkpoint
from training.checkpoint import Checkpoints, RunState
from training.errors import TrainingError
from training.loop import Measurement, RunContext, Schedule, TrainingLoop
from training.on_device import Losses, adamw


class Cuda:
    """Writes down which step's event is waited for."""

    def __init__(self) -> None:
        self.events = 0
        self.waited: list[int] = []

    def current_stream(self, device: str) -> Any:
        assert device == "cuda:1"
        return self

    def record_event(self) -> Any:
        event = Event(self, self.events)
        self.events += 1
        return event


class Event:
    def __init__(self, cuda: Cuda, step: int) -> None:
        self._cuda, self._step = cuda, step

    def synchronize(self) -> None:
        self._cuda.waited.append(self._step)


def test_a_loss_is_waited_for_when_two_later_steps_are_under_way() -> None:
    cuda = Cuda()
    losses = Losses("cuda", "cuda:1", cuda)
    for step in range(5):
        losses.add(step, torch.tensor(float(step)))
        assert cuda.waited == list(range(step - 1))
    assert losses.pop_mean() == 2.0
    assert cuda.waited == [0, 1, 2, 3, 4]
    assert not losses
    assert losses.pop_mean() is None


def test_a_loss_that_is_not_finite_names_its_own_step_and_is_never_averaged() -> None:
    losses = Losses("cuda", "cuda:1", Cuda())
    losses.add(6, torch.tensor(float("nan")))
    losses.add(7, torch.tensor(1.0))
    with pytest.raises(TrainingError, match="the loss is nan at step 7; lower the learning rates"):
        losses.add(8, torch.tensor(1.0))
    losses = Losses("cuda", "cuda:1", Cuda())
    losses.add(0, torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match="the loss is inf at step 1"):
        losses.pop_mean()
    with pytest.raises(TrainingError, match="the loss is nan at step 3"):
        Losses("cpu", "cpu").add(2, torch.tensor(float("nan")))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_one_kernel_updates_all_parameters_on_a_gpu(kind: Any) -> None:
    placement = Placement(device=kind, precision="fp32")
    optimizer = adamw([{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 0.5}], placement, 0.1)
    assert optimizer.defaults["fused"] == (True if kind == "cuda" else None)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.5, 0.1)]


def loop_of(line: Line, out: Path, state: RunState, backward: Callable[[int, int], Any]) -> TrainingLoop[int]:
    context = RunContext.begin(out, None, device="cpu", precision="fp32", time_limit=None)
    schedule = Schedule(epochs=1, evaluate_every=10, rate=lambda _: 1.0, clip_norm=0.0, patience=None)
    return TrainingLoop(
        learner=line,
        batches=Steps(40),
        backward=backward,
        measure=lambda: Measurement(score=float(line.weight.detach()), figures={}, text=""),
        schedule=schedule,
        context=context,
        state=state,
    )


class EnoughError(Exception):
    """Ends a run before its last step."""


def test_steps_go_on_while_a_checkpoint_is_written_and_it_holds_the_weights_of_its_own_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, stepped, seen = Line(), threading.Event(), list[float]()
    save = checkpoint.save_weights

    def slow(weights: Any, path: Path) -> None:
        assert stepped.wait(10)
        save(weights, path)

    def backward(batch: int, step: int) -> torch.Tensor:
        if step == 10:
            seen.append(float(line.weight.detach()))
        if step == 15:
            stepped.set()
            raise EnoughError
        return line.backward(batch, step)

    monkeypatch.setattr(checkpoint, "save_weights", slow)
    with pytest.raises(EnoughError):
        loop_of(line, tmp_path / "out", RunState(run="r"), backward).run()
    kept = Checkpoints(tmp_path / "out.fit")
    assert kept.load("r").step == 10
    assert float(line.weight.detach()) != seen[0]
    assert kept.tensors("state", 10)["value/weight"].tolist() == seen
    assert kept.tensors("candidate", 10)["weight"].tolist() == seen
    assert kept.tensors("state", 10)["steps/weight"] == 10


def test_a_full_disk_stops_the_run_in_one_line_and_the_checkpoint_before_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped, save = Line(), Line(), checkpoint.save_weights
    loop_of(whole, tmp_path / "whole", RunState(run="r"), whole.backward).run()

    def full(weights: Any, path: Path) -> None:
        if "state-00000020" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(weights, path)

    monkeypatch.setattr(checkpoint, "save_weights", full)
    with pytest.raises(StorageError, match=r"cannot save a checkpoint in .*out\.fit .*No space left on device; free"):
        loop_of(stopped, tmp_path / "out", RunState(run="r"), stopped.backward).run()
    monkeypatch.undo()
    kept = Checkpoints(tmp_path / "out.fit")
    state, again = kept.load("r"), Line()
    assert state.step == 10
    loop_of(again, tmp_path / "out", state, again.backward).run()
    assert torch.equal(again.weight, whole.weight)
    assert state.curve == kept.load("r").curve
    assert len(state.curve) == 4


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[str]()

    def kill(name: str) -> None:
        if name == "checkpoint.written":
            written.append(name)
            if len(written) == 2:
                raise SystemExit(9)

    monkeypatch.setattr(atomic, "hook", kill)
    line = Line()
    with pytest.raises(SystemExit):
        loop_of(line, tmp_path / "out", RunState(run="r"), line.backward).run()
    kept = Checkpoints(tmp_path / "out.fit")
    assert kept.load("r").step == 10
    assert "value/weight" in kept.tensors("state", 10)
