"""Runs the real commands in children of a process that has loaded all libraries, so that a run takes no start.

`warm_program.py` reads one JSON list of jobs a line from stdin, starts them all at once, each in a fork, and answers
with one JSON list: exit code (negative for a signal), stdout, stderr and seconds of each. The process itself does
nothing but import and fork, so that no thread and no lock of a library is copied.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parent))

import click
import duckdb
import numpy as np
import pyarrow.dataset  # noqa: F401 - loaded before the forks
from colour import DIM, ColourEncoder
from shim import Arming, arm, disarm

import indexer.ann.build_ann
import indexer.build
import indexer.encode.build_encoder
import storage.ann  # noqa: F401
from searcher import FilterError
from searcher.filters import Filters
from storage import IndexStore
from storage.version import IndexVersion
from twinlens.commands.build import build
from twinlens.commands.verify import verify
from twinlens.commands.versions import rollback, vacuum
from twinlens.console import run

# Looks at a child before it counts as hung: some minutes, of which a machine that stands still counts none.
PATIENCE = 100_000
COMMANDS: dict[str, click.Command] = {"build": build, "rollback": rollback, "vacuum": vacuum, "verify": verify}


class SlowEncoder(ColourEncoder):
    """Takes its time over each batch, so that there are moments to be killed at, and says how many it has seen."""

    seconds = 0.0

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        os.write(2, b"." * len(pixels))
        return super().encode_pixels(pixels)


def load_colours(spec: str, device: str = "auto", precision: str = "auto") -> ColourEncoder:
    """The loader of encoders, for the one spec that needs no weights: `colour`, or `slow:SECONDS`."""
    if not spec.startswith("slow:"):
        return ColourEncoder(spec)
    SlowEncoder.seconds = float(spec.split(":")[1])
    return SlowEncoder("colour")


indexer.encode.build_encoder.load_encoder = load_colours  # type: ignore[assignment]


def command(name: str, arguments: list[str]) -> None:
    """Run a command as its program does; ends in SystemExit."""
    sys.argv = [name, *arguments]
    run(COMMANDS[name])


def look(index: Path, every: bool = True) -> dict[str, Any]:
    """Return what a reader finds: the current version, opened in full and searched; verified are it or every one."""
    if not (index / "versions").is_dir():
        return {"current": None, "vectors": {}, "problems": [], "versions": [], "leftovers": []}
    store = IndexStore.open(index)
    found: dict[str, Any] = {"current": store.current(), "vectors": {}, "versions": store.versions()}
    verified = store.versions() if every else filter(None, [found["current"]])
    found["problems"] = [line for number in verified for line in store.verify(number).problems]
    staged = (index / "staging").iterdir() if (index / "staging").is_dir() else iter(())
    hidden = [path.name for path in (index / "versions").iterdir() if path.name.startswith(".")]
    found["leftovers"] = [*hidden, *(path.name for path in staged), *(path.name for path in index.glob(".*"))]
    if found["current"]:
        with store.open_version() as version:
            found["vectors"] = vectors(version)
    return found


def opened(index: Path) -> dict[str, str]:
    """Return what a reader finds in the current version, its checksums compared; nothing where none is current."""
    if not (index / "versions").is_dir() or not (store := IndexStore.open(index)).current():
        return {}
    with store.open_version() as version:
        return vectors(version)


def look_at_all(indexes: list[str]) -> list[Any]:
    """Return for each index the tables that a reader finds, or the error that it meets."""
    found: list[Any] = []
    for index in indexes:
        try:
            found.append(opened(Path(index)))
        except BaseException as error:  # noqa: BLE001 - whatever gets out is what this looks for
            found.append(f"{type(error).__name__}: {error}")
    return found


def filtered(index: Path, strings: Path, record: str) -> list[str]:
    """Return what became of each hostile filter: `refused`, `rows N`, or what got out; every open file is recorded."""
    with IndexStore.open(index).open_version() as version:
        filters = Filters(version.catalog)
        # A costly filter runs in another process, with the same settings, which no record here would see.
        version.catalog._processes.rows = version.catalog._rows_here  # type: ignore[method-assign]
        for harmless in ("n > 1", "s like 'a%' and b is null", "n in (1, 2) or not x < 0.5"):
            filters.rows("images", harmless)
        with contextlib.suppress(FilterError):
            filters.rows("images", "nothing = 1")
        duckdb.sql("SELECT 42").fetchall()
        hostile = json.loads(strings.read_text("utf-8"))
        arm(Path("/"), Arming(record=record, with_reads=True))
        told = [outcome(filters, where) for where in hostile]
        # The record would have seen it: both ways of opening a file are tried once.
        strings.read_bytes()
        duckdb.sql(f"SELECT length(content) FROM read_text('{strings}')").fetchall()
        disarm()
    return told


def outcome(filters: Filters, where: str) -> str:
    try:
        return f"rows {len(filters.rows('images', where))}"
    except FilterError as error:
        return "refused" if "\n" not in str(error) else f"escaped in several lines: {error}"
    except BaseException as error:  # noqa: BLE001 - whatever gets out is what this looks for
        return f"escaped {type(error).__name__}: {error}"


def vectors(version: IndexVersion) -> dict[str, str]:
    """Return the checksums of the tables of vectors, after a search of each."""
    for collection, info in version.manifest.collections.items():
        ids, _ = version.ann(collection).search(np.eye(1, DIM), 3, nprobe=16, oversample=1)
        assert ids.min() >= 0
        assert len(version.catalog.item_ids(collection, 0, info.rows)) == info.rows
    files = version.manifest.files.items()
    return {name: entry.sha256 for name, entry in files if name.endswith("vectors.arrow")}


def settle(index: Path, arguments: list[str]) -> dict[str, Any]:
    """Look, run a build to its end, look again: what a user does after a crash."""
    before = look(index)
    try:
        command("build", arguments)
    except SystemExit as end:
        return {"before": before, "code": end.code, "after": look(index, every=False)}
    raise AssertionError("a command ends by SystemExit")


@dataclass
class Job:
    """One fork: what it does, how it is disturbed, and what became of it."""

    do: str
    index: Path
    arguments: list[str]
    scratch: Path
    arming: Arming | None = None
    kill_after: float | None = None
    signal: int = signal.SIGKILL
    limit: int | None = None
    child: int = 0
    polls: int = 0
    begun: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """In the child: never returns."""
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{self.scratch}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        code = 70
        try:
            code = self._do()
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:  # noqa: BLE001 - a traceback on stderr is what the parent looks for
            traceback.print_exc()
        disarm()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _do(self) -> int:
        if self.limit is not None:
            _limit_files(self.limit)
        if self.arming is not None:
            arm(self.index, self.arming)
        if self.do in COMMANDS:
            command(self.do, self.arguments)
        operations: dict[str, Callable[[], Any]] = {
            "look": lambda: look(self.index),
            "look at all": lambda: look_at_all(self.arguments),
            "settle": lambda: settle(self.index, self.arguments),
            "filters": lambda: filtered(self.index, Path(self.arguments[0]), self.arguments[1]),
        }
        told = operations[self.do]()
        print(json.dumps(told))
        return 0

    def poll(self) -> dict[str, Any] | None:
        """In the parent: kill when it is time; return what became of the child once it has ended."""
        self._kill()
        self.polls += 1
        if self.polls > PATIENCE:
            os.kill(self.child, signal.SIGKILL)
        child, status = os.waitpid(self.child, os.WNOHANG)
        if not child:
            return None
        elapsed = time.monotonic() - self.started
        told = {name: Path(f"{self.scratch}.{name}").read_text("utf-8") for name in ("out", "err")}
        return {"code": os.waitstatus_to_exitcode(status), "hung": self.polls > PATIENCE, "seconds": elapsed, **told}

    def _kill(self) -> None:
        """Kill the child when it is time; its clock starts once it has opened its files."""
        if self.kill_after is None or not Path(f"{self.scratch}.err").exists():
            return
        self.begun = self.begun or time.monotonic()
        if time.monotonic() - self.begun > self.kill_after:
            os.kill(self.child, self.signal)
            self.kill_after = None


def _limit_files(size: int) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _job(told: dict[str, Any]) -> Job:
    arming = Arming(**told.pop("arming")) if told.get("arming") else None
    return Job(**{**told, "arming": arming, "index": Path(told["index"]), "scratch": Path(told["scratch"])})


def serve() -> None:
    """Answer jobs until stdin ends."""
    threads = {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    # Arrow's allocator has a thread that gives memory back; it knows of forks.
    assert threads <= {"python", "python3", "jemalloc_bg_thd"}, f"a process with threads {threads} cannot be forked"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may start without it
    for line in sys.stdin:
        jobs = [_job(told) for told in json.loads(line)]
        for job in jobs:
            job.started = time.monotonic()
            job.child = os.fork()
            if job.child == 0:
                job.run()
        ended: list[dict[str, Any] | None] = [None] * len(jobs)
        while None in ended:
            ended = [known or job.poll() for job, known in zip(jobs, ended, strict=True)]
            time.sleep(0.0005)
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    serve()
