"""The whole of the reliability tests, a part at a time; prints each figure and keeps it in `last_sweep.json`.

`python tests/reliability/sweep.py` runs everything, within an hour on two cores; `--part NAME` runs one part, none of
which takes more than some four minutes. A case that breaks a promise is kept in `corpus/`, which the ordinary tests
replay. The end is a table of what is asked beside what was measured; the exit code is 1 where a figure is not reached
or a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from crash_sweep import PARTS as CRASHES
from crash_sweep import Figures
from damage_cases import Case, byte_cases, whole_cases
from damage_run import Tally, keep, run
from endurance import differing, growth
from figures import ASKED, RESULT, WRONG, last, table
from fuzz_sweep import PARTS as FUZZ
from make_golden import unpack
from publishing import publish_under_readers


def damage(cases: Iterable[Case], scratch: Path) -> Figures:
    """Open and search damaged indexes; every outcome, by the way of opening."""
    shuffled = list(cases)
    random.Random(0).shuffle(shuffled)
    unpack(scratch / "golden")
    tally = run(shuffled, scratch / "golden", scratch / "copies")
    keep(tally.broken)
    for case, told in tally.broken:
        print(f"  broken promise: {case} {told[:200]}", file=sys.stderr)
    return _outcomes(tally)


def _outcomes(tally: Tally) -> Figures:
    found: Figures = {"damaged files": tally.total}
    for outcome in ("refused", "harmless", "different", "escaped", "died"):
        found[outcome] = sum(count for (_, told), count in tally.outcomes.items() if told == outcome)
    return {**found, "broken promises": len(tally.broken)}


def readers(scratch: Path) -> Figures:
    """50 versions published and vacuumed under 8 threads and 4 processes."""
    scratch.mkdir(exist_ok=True)
    found = publish_under_readers(scratch, versions=50, threads=8, processes=4)
    for error in found.errors[:10]:
        print(f"  error of a reader: {error[:300]}", file=sys.stderr)
    return {
        "versions published": 50,
        "versions seen by readers": len(found.versions),
        "opened": found.opened,
        "searches": found.searches,
        "errors": len(found.errors),
    }


def memory(kind: str) -> Callable[[Path], Figures]:
    """Resident memory and open files over 5,000 searches of one kind of index, after a warm-up."""

    def part(scratch: Path) -> Figures:
        unpack(scratch / "golden")
        grown = growth(scratch / "golden" / f"{kind}.index", 5000, WARM_UP)
        return {
            "warm-up": WARM_UP,
            "searches": 5000,
            "growth, percent": round(100 * grown.share, 2),
            "growth in the warm-up, percent": round(100 * (grown.before / grown.at_first - 1), 2),
            "growth left once closed, percent": round(100 * (grown.closed / grown.unopened - 1), 2),
            "broken promises": int(grown.files_after != grown.files_before),
        }

    return part


def threads(scratch: Path) -> Figures:
    """16 threads with mixed parameters against one thread."""
    found: Figures = {"searches": 0, "differing": 0}
    for index in unpack(scratch / "golden"):
        if index.stem != "flat":
            found["searches"] += 2400
            found["differing"] += differing(index, 2400, 16)
    return found


def _part(mode: str, number: int, seeds_a_part: int) -> Callable[[Path], Figures]:
    seeds = range(number * seeds_a_part, (number + 1) * seeds_a_part)
    return lambda scratch: damage(byte_cases(seeds, mode), scratch)


# DuckDB keeps a record of freed buffers, which grows up to a bound (32,768 of them in each of a few queues) and is let
# go with the index; by then it has reached it.
WARM_UP = 40_000

PARTS: dict[str, Callable[[Path], Figures]] = {
    **CRASHES,
    **FUZZ,
    "damage-whole-files": lambda scratch: damage(whole_cases(), scratch),
    **{f"damage-full-{number}": _part("full", number, 7) for number in range(3)},
    **{f"damage-size-{number}": _part("size", number, 4) for number in range(2)},
    **{f"damage-resealed-{number}": _part("resealed", number, 4) for number in range(2)},
    "readers": readers,
    "memory-hnsw": memory("hnsw"),
    "memory-ivf-pq4": memory("ivf-pq4"),
    "threads": threads,
}


def run_part(name: str) -> Figures:
    """Run one part, print its figures, and put them beside those of the other parts."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        figures = PARTS[name](Path(scratch))
    figures |= {"seconds": round(time.perf_counter() - started, 1)}
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    found = last()
    found["machine"] = {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    held = {**found["parts"], name: {"date": datetime.now(UTC).date().isoformat(), **figures}}
    found["parts"] = {part: held[part] for part in PARTS if part in held}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return figures


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="One part; repeat for more.")
    chosen = parser.parse_args().part
    done = [run_part(name) for name in chosen or PARTS]
    broken = any(figures.get(key) for figures in done for key in WRONG)
    if chosen is None:
        parts = last()["parts"]
        print("\n".join(table(parts)))
        print("seconds in all:", round(sum(part["seconds"] for part in parts.values())))
        broken = broken or not all(asked.reached(parts) for asked in ASKED)
    sys.exit(broken)


if __name__ == "__main__":
    main()
