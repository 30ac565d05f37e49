"""Progress of long work: a bar on a terminal, a line now and then elsewhere, nothing for library use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

SECONDS_TO_FIRST_LINE, SECONDS_BETWEEN_LINES = 2.0, 10.0


class Progress(Protocol):
    """Receives what a build is doing."""

    def note(self, text: str) -> None:
        """Say one thing that stays on the screen."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` units; the stage before it is over."""

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        """Add finished units.

        Args:
            units: How many.
            hint: A few words such as the bottleneck.
            left: Seconds until the end of the stage, where whoever advances knows better than the rate so far.
        """


class SilentProgress:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        """Do nothing."""


class LineProgress:
    """Writes a line some seconds after the start of each stage, every ten seconds of it, and at its end: for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name, self._total, self._done = "", 0, 0
        self._started = self._next = time.monotonic()

    def note(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""
        self._name, self._total, self._done = name, total, 0
        self._started = time.monotonic()
        self._next = self._started + SECONDS_TO_FIRST_LINE

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        """Count units, and write a line where it is time for one."""
        self._done += units
        now = time.monotonic()
        if now < self._next and self._done < self._total:
            return
        self._next = now + SECONDS_BETWEEN_LINES
        seconds = max(now - self._started, 1e-9)
        if left is None:
            left = (self._total - self._done) * seconds / max(self._done, 1)
        self.note(
            f"{self._name}: {self._done:,} of {self._total:,}, {self._done / seconds:,.0f} a second, "
            f"{duration(left)} left{', ' + hint if hint else ''}"
        )


class BarProgress:
    """Draws bars on a terminal."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = None
        self._started, self._done, self._total = time.monotonic(), 0, 0

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, highlight=False, markup=False)

    def stage(self, name: str, total: int) -> None:
        """Begin a new bar."""
        self._started, self._done = time.monotonic(), 0
        self._total = total
        self._task = self._bars.add_task(name, total=total, rate="", left="", hint="")  # type: ignore[assignment]

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        """Move the current bar."""
        self._done += units
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        rest = (self._total - self._done) / rate if left is None and rate else left or 0.0
        if self._task is not None:
            said = f"{duration(rest)} left"
            self._bars.update(self._task, advance=units, rate=f"{rate:,.0f}/s", left=said, hint=hint)


def duration(seconds: float) -> str:
    """Return seconds in the unit in which people think of as many: `95 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:,.1f} h"


@contextmanager
def console_progress(stream: TextIO) -> Iterator[Progress]:
    """Give the progress that fits the stream: bars on a terminal, else lines."""
    if not stream.isatty():
        yield LineProgress(stream)
        return
    # Not before there is a terminal: this takes as long as all else that comes before the first line.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[hint]}"),
    )
    with RichProgress(*columns, console=Console(file=stream)) as bars:
        yield BarProgress(bars)
