"""The steps in the order of what is worth most, and the process that each of them runs in.

python -m gpu.steps NAME --result FILE --work FOLDER --photographs FOLDER, with `benchmarks` on the path; `run.py` calls
it.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gpu.notes import Notes, Run


@dataclass(frozen=True)
class Step:
    """A step: the module of this package with a function of its name, and the seconds that it may take at most."""

    module: str
    seconds: float


STEPS = {
    "machine": Step("machine", 45),
    "own_tests": Step("machine", 60),
    "equality": Step("equality", 100),
    "pipeline": Step("pipeline", 140),
    "throughput": Step("throughput", 110),
    "vectors_1m": Step("vectors", 140),
    "fine_tuning": Step("fine_tuning", 145),
    "hrem": Step("hrem_training", 70),
    "headroom": Step("headroom", 100),
    "vectors_10m": Step("vectors", 300),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=list(STEPS))
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(max(5.0, options.seconds - 4), exit=False)  # where it hangs
    notes = Notes(options.result, options.seconds)
    options.work.mkdir(parents=True, exist_ok=True)
    run = Run(
        notes=notes, work=options.work, photographs=options.photographs, device=options.device, small=options.small
    )
    with notes.part(options.step):
        getattr(import_module(f"gpu.{STEPS[options.step].module}"), options.step)(run)
    notes.value["finished"] = True
    notes.save()
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.flush()
    os._exit(0)  # no time for pools and workers to tidy up


if __name__ == "__main__":
    main()
