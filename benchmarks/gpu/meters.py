"""How long work takes on a device, how busy and how full the GPU is, and the stages of builds and trainings."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpu.notes import Run


def seconds_of(work: Callable[[], Any], device: str, *, repeats: int = 3, warm: int = 1) -> float:
    """Return the median wall seconds of some work whose results lie on a device."""
    for _ in range(warm):
        work()
    wait(device)
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - began)
    return sorted(found)[len(found) // 2]


def wait(device: str) -> None:
    """Wait until a device has done all that it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


@contextmanager
def utilisation(run: Run, name: str) -> Iterator[None]:
    """Write down how busy the GPU is meanwhile, read five times a second; nothing on a CPU."""
    if run.device == "cpu":
        yield
        return
    seen: list[float] = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        seen.extend(float(line) for line in process.stdout or () if line.strip().isdigit())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        process.terminate()
        thread.join(2)
    if seen:
        run.notes.figure(f"{name}: GPU busy, mean of {len(seen)} readings", float(np.mean(seen)), "%")


@contextmanager
def memory_taken(run: Run, name: str) -> Iterator[None]:
    """Write down the most memory of the GPU that torch took meanwhile; nothing on a CPU."""
    if run.device == "cpu":
        yield
        return
    import torch

    torch.cuda.reset_peak_memory_stats()
    yield
    run.notes.figure(f"{name}: most memory taken", torch.cuda.max_memory_allocated() / 2**30, "GiB")


class Stages:
    """A build's progress: seconds of each stage."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, float]] = [("before", time.perf_counter())]

    def note(self, text: str) -> None:
        print("  ", text, flush=True)
        if text in ("merging", "publishing"):
            self._mark(text)

    def stage(self, name: str, total: int) -> None:
        self._mark(name)

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        """Only stages matter."""

    def _mark(self, name: str) -> None:
        self._marks.append((name, time.perf_counter()))

    def done(self) -> dict[str, float]:
        """Return the seconds of each stage, in order."""
        ends = [*(at for _, at in self._marks[1:]), time.perf_counter()]
        spans = enumerate(zip(self._marks, ends, strict=True))
        return {f"{number} {name}": round(end - at, 3) for number, ((name, at), end) in spans}


class TrainingSteps:
    """A training's listener: when its steps ended, and how long its evaluations took."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self.evaluations: list[float] = []

    def __call__(self, progress: Any) -> None:
        now = time.perf_counter()
        if progress.stage == "train" and progress.done:
            self._ends.append(now)
        if progress.stage == "evaluate" and self._ends:
            self.evaluations.append(now - self._ends[-1])
        if progress.text:
            print("  ", progress.text, flush=True)

    @property
    def step(self) -> float | None:
        """Median seconds of a step; None of fewer than two."""
        gaps = np.diff(self._ends)
        return float(np.median(gaps)) if len(gaps) else None
