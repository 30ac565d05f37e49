"""A simulation of an index over its whole life: random steps, faults and damage, against what is expected of it.

`simulate.py --seed 7 --steps 2000` plays one seed; `--seeds 100 --steps 10000 --workers 2` plays seeds 0 to 99. After
each step what was promised is compared (`simulation/`). A broken promise ends its seed and is told with the one line
that plays it again, made as short as it can be in a minute. The same seed takes the same steps on every machine; only
the call at which a fault strikes can differ, where a library counts its calls by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from record import Figure, record
from shim import compile_shim, missing
from simulation.steps import WRITING, take
from simulation.world import World

SCRATCH = Path("/dev/shm")
SHORTEN_SECONDS = 60.0
_TELL_SECONDS = 10.0


@dataclass
class Played:
    """What became of one seed: steps of each kind, and the first broken promise with the step that found it."""

    seed: int
    steps: int = 0
    done: Counter[str] = field(default_factory=Counter)
    broken: str | None = None
    at: int | None = None


def play(seed: int, steps: Iterable[int], *, reading: float = 1.0, deadline: float = float("inf")) -> Played:
    """Play these steps of a seed, each with chances of its own, until one breaks a promise or time is up."""
    scratch = SCRATCH if SCRATCH.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="twinlens-simulation-", dir=scratch) as folder:
        world, played = World(Path(folder)), Played(seed)
        try:
            for number in steps:
                if time.monotonic() > deadline:
                    break
                played.at = number
                take(world, random.Random(f"{seed}/{number}"), reading)
                played.steps += 1
        except Exception as error:  # noqa: BLE001 - whatever gets out of a step breaks a promise
            played.broken = f"{type(error).__name__}: {error}"
            print(traceback.format_exc(), file=sys.stderr)
        finally:
            world.close()
        played.done = world.done
    return played


def shortened(seed: int, steps: Sequence[int], reading: float, seconds: float = SHORTEN_SECONDS) -> list[int]:
    """Return a part of the steps that still breaks a promise at the last one: halves, then ever smaller parts, go."""
    deadline, last, kept = time.monotonic() + seconds, steps[-1], list(steps[:-1])
    size = max(1, len(kept) // 2)
    while size and time.monotonic() < deadline:
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            again = play(seed, [*fewer, last], reading=reading, deadline=deadline)
            if again.broken and again.at == last:
                kept = fewer
                break
        else:
            size //= 2
    return [*kept, last]


def replay_line(seed: int, steps: Sequence[int], reading: float) -> str:
    """Return the command that plays these steps again."""
    whole = list(steps) == list(range(len(steps)))
    if whole and reading == 1:
        return f"make simulate SEED={seed} STEPS={len(steps)}"
    which = f"--steps {len(steps)}" if whole else f"--only {','.join(map(str, steps))}"
    share = "" if reading == 1 else f" --reading {reading}"
    return f"python tests/reliability/simulate.py --seed {seed} {which}{share}"


def tell(played: Played, steps: Sequence[int], reading: float = 1.0) -> None:
    """Print a broken promise with its seed, step and the line that plays it again."""
    taken = list(steps[: steps.index(played.at) + 1])
    print(f"BROKEN seed {played.seed}, step {played.at}: {played.broken}", file=sys.stderr)
    print(f"  play it again: {replay_line(played.seed, taken, reading)}", file=sys.stderr, flush=True)
    fewer = shortened(played.seed, taken, reading)
    if len(fewer) < len(taken):
        print(f"  or shorter: {replay_line(played.seed, fewer, reading)}", file=sys.stderr, flush=True)


def worker(seeds: Iterable[int], steps: Sequence[int], reading: float, deadline: float) -> None:
    """Play seeds one after another and print what became of each as a line of JSON."""
    for seed in seeds:
        if time.monotonic() > deadline:
            return
        played = play(seed, steps, reading=reading, deadline=deadline)
        if played.broken:
            tell(played, steps, reading)
        print(json.dumps(played.__dict__), flush=True)


def run(arguments: argparse.Namespace, seeds: Sequence[int]) -> list[Played]:
    """Play seeds in processes of their own, under the shim where it can be made."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        if missing() is None:
            environment["LD_PRELOAD"] = str(compile_shim(Path(folder)))
        else:
            print(f"{missing()}: no faults but interruptions", file=sys.stderr)
        command = [sys.executable, "-W", "ignore", str(Path(__file__)), "--steps", str(arguments.steps)]
        command += ["--reading", str(arguments.reading)]
        command += ["--only", arguments.only] if arguments.only else []
        command += ["--seconds", str(arguments.seconds)] if arguments.seconds else []
        shares = [seeds[number :: arguments.workers] for number in range(arguments.workers)]
        workers = [
            subprocess.Popen(
                [*command, "--worker", ",".join(map(str, share))], env=environment, stdout=subprocess.PIPE, text=True
            )
            for share in shares
            if share
        ]
        return collected(workers, len(seeds))


def collected(workers: Sequence[subprocess.Popen[str]], seeds: int) -> list[Played]:
    """Return what the workers tell; one that dies counts as a broken promise."""
    found: list[Played] = []
    started = told = time.monotonic()
    for process in workers:
        assert process.stdout is not None
        for line in process.stdout:
            values = json.loads(line)
            found.append(Played(**{**values, "done": Counter(values["done"])}))
            if time.monotonic() - told > _TELL_SECONDS or len(found) == seeds:
                told = time.monotonic()
                steps = sum(one.steps for one in found)
                print(f"{len(found)} of {seeds} seeds, {steps:,} steps, {steps / (told - started):,.0f} a second")
        if process.wait():
            found.append(Played(-1, broken=f"a process ended with {process.returncode}"))
            print(f"BROKEN: a process ended with {process.returncode}; play its seeds one by one", file=sys.stderr)
    return found


def figures(found: Sequence[Played]) -> list[Figure]:
    """Return what was done, for the record."""
    done = sum((one.done for one in found), Counter[str]())
    struck = done.pop("faults that struck", 0)
    changing = sum(count for name, count in done.items() if name in WRITING)
    return [
        Figure("steps", sum(one.steps for one in found), ">= 1000000"),
        Figure("seeds", len(found), ">= 100"),
        Figure("broken promises", sum(one.broken is not None for one in found), "0"),
        Figure("steps that change the index or damage it", changing),
        Figure("faults that struck a change", struck),
        *(Figure(f"step {name}", count) for name, count in done.most_common()),
    ]


def parsed() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="Play this seed alone.")
    parser.add_argument("--seeds", type=int, default=10, help="Play seeds 0 to this, which is left out.")
    parser.add_argument("--first", type=int, default=0, help="The first of the seeds.")
    parser.add_argument("--steps", type=int, default=2000, help="Steps of each seed.")
    parser.add_argument("--only", help="Numbers of the steps to take, with commas between; the others are left out.")
    parser.add_argument("--reading", type=float, default=1.0, help="How often steps only read, 1 for the usual share.")
    parser.add_argument("--workers", type=int, default=1, help="Processes.")
    parser.add_argument("--seconds", type=float, help="End after so many seconds, wherever the seeds are.")
    parser.add_argument("--record", action="store_true", help="Keep the figures in benchmarks/results.")
    parser.add_argument("--notes", default="", help="Goes into the record.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Play the seeds that are asked for; exit code 1 where a promise is broken."""
    arguments = parsed()
    steps = list(map(int, arguments.only.split(","))) if arguments.only else list(range(arguments.steps))
    if arguments.worker is not None:
        deadline = time.monotonic() + arguments.seconds if arguments.seconds else float("inf")
        worker(map(int, arguments.worker.split(",")), steps, arguments.reading, deadline)
        return
    first = arguments.first
    seeds = [arguments.seed] if arguments.seed is not None else list(range(first, first + arguments.seeds))
    found = run(arguments, seeds)
    told = figures(found)
    if arguments.record:
        record("simulation", told, arguments.notes)
    else:
        print("\n".join(f"{figure.name}: {figure.measured:,}" for figure in told))
    sys.exit(any(one.broken for one in found))


if __name__ == "__main__":
    main()
