"""Runs of the real commands in forks of one warm process, each disturbed as it is asked; see `warm_program.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shim import Arming, Call, compile_shim, read_record

PROGRAM = Path(__file__).parent / "warm_program.py"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: a command and its arguments, `look`, or `settle`; and what is done to it."""

    do: str
    index: Path
    arguments: tuple[str, ...] = ()
    arming: Arming | None = None
    kill_after: float | None = None
    signal: int = 9
    limit: int | None = None

    def to_json(self, scratch: Path) -> dict[str, Any]:
        told = {name: value for name, value in self.__dict__.items() if value is not None}
        told["arming"] = self.arming.to_json() if self.arming else None
        return {**told, "index": str(self.index), "arguments": list(self.arguments), "scratch": str(scratch)}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of a run; `code` is negative for a signal."""

    code: int
    hung: bool
    seconds: float
    out: str
    err: str


class Warm:
    """The warm process; use it as a context manager."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="twinlens-warm-")
        self.folder = Path(self._folder.name)
        library = compile_shim(self.folder)
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **single, "LD_PRELOAD": str(library)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._runs = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()

    def together(self, *jobs: Job) -> list[Ended]:
        """Start all jobs at once and return what became of each."""
        assert None not in (self._process.stdin, self._process.stdout)
        self._runs += 1
        told = [job.to_json(self.folder / f"{self._runs}-{number}") for number, job in enumerate(jobs)]
        self._process.stdin.write(json.dumps(told) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        answer = self._process.stdout.readline()  # type: ignore[union-attr]
        if not answer:
            raise RuntimeError("the warm process has ended")
        for number in range(len(jobs)):
            for name in ("out", "err"):
                (self.folder / f"{self._runs}-{number}.{name}").unlink()
        return [Ended(**ended) for ended in json.loads(answer)]

    def run(self, job: Job) -> Ended:
        """Return what became of one job."""
        return self.together(job)[0]

    def told(self, job: Job) -> Any:
        """Return what `look` or another job that is no command says."""
        ended = self.run(job)
        if ended.code:
            raise AssertionError(f"{job.do} ended with {ended.code}: {ended.err[-2000:]}")
        return json.loads(ended.out.splitlines()[-1])

    def recorded(self, job: Job, with_data: bool = False) -> list[Call]:
        """Return every call of a job that changes its index, in order."""
        record = self.folder / "record"
        arming = Arming(record=str(record), with_data=with_data)
        ended = self.run(Job(**{**job.__dict__, "arming": arming}))
        calls = read_record(record, job.index)
        record.unlink()
        if ended.code:
            raise AssertionError(f"{job.do} ended with {ended.code}: {ended.err[-2000:]}")
        return calls


def copied(index: Path, target: Path) -> Path:
    """Return a fresh copy of an index; nothing where there is none."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(index, target)) if index.exists() else target
