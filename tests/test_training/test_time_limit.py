"""A run ends within its time limit, the last evaluation and saving included, whatever a step and an evaluation take."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from line_learner import Line, Steps

from storage.errors import StorageError
from training import loop
from training.checkpoint import RunState, new_folder, seconds_to_write
from training.loop import Measurement, RunContext, Schedule, TrainingLoop

SAVING = 2.0


class Hours:
    """A clock that goes on only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    hours = Hours()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=hours.monotonic))
    return hours


@pytest.mark.parametrize(
    ("step", "evaluation", "every"), [(0.1, 1.0, 1000), (7.0, 3.0, 2), (0.5, 20.0, 10), (30, 1, 1)]
)
def test_steps_and_evaluations_end_in_time(
    tmp_path: Path, hours: Hours, step: float, evaluation: float, every: int
) -> None:
    line = Line()
    context = RunContext.begin(tmp_path / "out", None, device="cpu", precision="fp32", time_limit=100.0)
    context.clock.keep_back("saving", SAVING)
    context.clock.keep_back(loop.LAST_EVALUATION, evaluation)

    def backward(batch: int, _step: int) -> torch.Tensor:
        hours.now += step
        return line.backward(batch, _step)

    def measure() -> Measurement:
        hours.now += evaluation
        return Measurement(score=float(line.weight.detach()), figures={}, text="")

    schedule = Schedule(epochs=10, evaluate_every=every, rate=lambda _: 1.0, clip_norm=0.0, patience=None)
    state = RunState(run="")
    stopped_by = TrainingLoop(
        learner=line,
        batches=Steps(1000),
        backward=backward,
        measure=measure,
        schedule=schedule,
        context=context,
        state=state,
    ).run()
    assert stopped_by == "time_limit"
    assert state.curve[-1]["step"] == state.step > 0
    assert 100 - SAVING - 2 * step - 2 * evaluation < hours.now <= 100 - SAVING


def test_saving_is_measured_where_it_will_happen(tmp_path: Path) -> None:
    assert 0.2 <= seconds_to_write(tmp_path / "deep" / "out", 1000) < 2
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_is_known_before_the_training() -> None:
    with pytest.raises(StorageError, match="cannot write in /proc"):
        new_folder(Path("/proc/deep/out"))
