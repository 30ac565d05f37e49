"""Progress of long work: a bar on a terminal, a line now and then elsewhere, nothing for library use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Receives what a build is doing."""

    def note(self, text: str) -> None:
        """Say one thing that stays on the screen."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` units; the stage before it is over."""

    def advance(self, units: int, hint: str = "") -> None:
        """Add finished units; `hint` is a few words such as the bottleneck."""


class SilentProgress:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def advance(self, units: int, hint: str = "") -> None:
        """Do nothing."""


class LineProgress:
    """Writes a line at the start of each stage and every ten seconds of it: for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name, self._total, self._done = "", 0, 0
        self._started = self._last = time.monotonic()

    def note(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""
        self._name, self._total, self._done = name, total, 0
        self._started = self._last = time.monotonic()

    def advance(self, units: int, hint: str = "") -> None:
        """Count units, and write a line where it is time for one."""
        self._done += units
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._last = now
        seconds = max(now - self._started, 1e-9)
        left = (self._total - self._done) * seconds / max(self._done, 1)
        self.note(
            f"{self._name}: {self._done:,} of {self._total:,}, {self._done / seconds:,.0f} a second, "
            f"{left:,.0f} s left{', ' + hint if hint else ''}"
        )


class BarProgress:
    """Draws bars on a terminal."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = None
        self._started, self._done = time.monotonic(), 0

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, highlight=False, markup=False)

    def stage(self, name: str, total: int) -> None:
        """Begin a new bar."""
        self._started, self._done = time.monotonic(), 0
        self._task = self._bars.add_task(name, total=total, rate="", hint="")  # type: ignore[assignment]

    def advance(self, units: int, hint: str = "") -> None:
        """Move the current bar."""
        self._done += units
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        if self._task is not None:
            self._bars.update(self._task, advance=units, rate=f"{rate:,.0f}/s", hint=hint)


@contextmanager
def console_progress(stream: TextIO) -> Iterator[Progress]:
    """Give the progress that fits the stream: bars on a terminal, else lines."""
    console = Console(file=stream)
    if not console.is_terminal:
        yield LineProgress(stream)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[hint]}"),
    )
    with RichProgress(*columns, console=console) as bars:
        yield BarProgress(bars)
