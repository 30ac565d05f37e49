"""What a step is given, and what it found: written to its file after each figure, so that no time limit loses it."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Notes:
    """Figures, facts and failures of one step."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._over = time.monotonic() + seconds
        self.value: dict[str, Any] = nothing()

    @property
    def left(self) -> float:
        """Seconds until the step is stopped."""
        return self._over - time.monotonic()

    def figure(self, name: str, measured: Any, unit: str = "", asked: str = "") -> None:
        """Keep one measured figure; names and units as in the benchmarks' results."""
        measured = float(f"{measured:.6g}") if isinstance(measured, float) else measured
        self.value["figures"].append({"name": name, "measured": measured, "asked": asked, "unit": unit})
        print(f"FIGURE {shown(self.value['figures'][-1])}", flush=True)
        self.save()

    def fact(self, name: str, value: Any) -> None:
        """Keep something longer than a figure."""
        self.value["facts"][name] = value
        self.save()

    def need(self, seconds: float) -> None:
        """Leave a part that needs about so many seconds when they are not there.

        Raises:
            TimeoutError: They are not; `part` writes it down.
        """
        if self.left < seconds:
            raise TimeoutError(f"skipped: {self.left:.0f} s left, it needs {seconds:.0f}")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run a part whose failure is written down and stops nothing else."""
        began = time.monotonic()
        print(f"-- {name}", flush=True)
        try:
            yield
        except Exception as error:  # noqa: BLE001
            text, told = traceback.format_exc(), f"{type(error).__name__}: {error}"
            self.value["failures"].append({"part": name, "error": told[:2000], "traceback": text[-12000:]})
            print(f"FAILURE in {name}\n{text}", flush=True)
        self.value["facts"][f"seconds of {name}"] = round(time.monotonic() - began, 2)
        self.save()
        _empty_cache()

    def save(self) -> None:
        """Write the file anew."""
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self.value, indent=1, default=str), encoding="utf-8")
        partial.replace(self._path)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all steps are given.

    Attributes:
        notes: Where to write what is found.
        work: A folder for indexes, models and vectors, which later steps find again.
        photographs: The folder that `photographs.collect` made.
        device: `cpu`, `cuda` or `cuda:N`.
        small: A rehearsal.
    """

    notes: Notes
    work: Path
    photographs: Path
    device: str
    small: bool

    def pick(self, full: T, small: T) -> T:
        """Return the size of a real run, or that of a rehearsal."""
        return small if self.small else full


def nothing() -> dict[str, Any]:
    """Return the notes of a step that has found nothing yet."""
    return {"figures": [], "facts": {}, "failures": [], "finished": False}


def shown(figure: dict[str, Any]) -> str:
    """Return a figure as a line for people."""
    asked = f"  (asked {figure['asked']})" if figure["asked"] else ""
    return f"{figure['name']}: {figure['measured']} {figure['unit']}{asked}"


def _empty_cache() -> None:
    if "torch" not in sys.modules:
        return
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            print("empty_cache:", error, flush=True)
