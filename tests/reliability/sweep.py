"""The whole of the reliability tests, a part at a time; prints each figure and keeps it in `last_sweep.json`.

`python tests/reliability/sweep.py` runs everything; `--part NAME` runs one part, none of which takes more than some
three minutes on two cores. A case that breaks a promise is kept in `corpus/`, which the ordinary tests replay.
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
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from damage_cases import Case, byte_cases, whole_cases
from damage_run import Tally, keep, run
from endurance import differing, growth
from make_golden import unpack
from publishing import publish_under_readers

RESULT = Path(__file__).parent / "last_sweep.json"
Figures = dict[str, Any]


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
        "versions published": 50, "versions seen by readers": len(found.versions), "opened": found.opened,
        "searches": found.searches, "errors": len(found.errors),
    }  # fmt: skip


def memory(scratch: Path) -> Figures:
    """Resident memory and open files over 5,000 searches, for each kind of index that has a file."""
    found: Figures = {"searches": 5000}
    for index in unpack(scratch / "golden"):
        if index.stem in ("ivf-pq4", "hnsw"):
            grown = growth(index, 5000)
            found[f"growth of {index.stem}, percent"] = round(100 * grown.share, 2)
            found[f"open files more, {index.stem}"] = grown.files_after - grown.files_before
    return found


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


PARTS: dict[str, Callable[[Path], Figures]] = {
    "damage-whole-files": lambda scratch: damage(whole_cases(), scratch),
    **{f"damage-full-{number}": _part("full", number, 7) for number in range(3)},
    **{f"damage-size-{number}": _part("size", number, 4) for number in range(2)},
    **{f"damage-resealed-{number}": _part("resealed", number, 4) for number in range(2)},
    "readers": readers,
    "memory": memory,
    "threads": threads,
}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="One part; repeat for more.")
    chosen = parser.parse_args().part or list(PARTS)
    found = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"parts": {}}
    found["machine"] = {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    for name in chosen:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            figures = PARTS[name](Path(scratch))
        figures = {**figures, "seconds": round(time.perf_counter() - started, 1)}
        found["parts"][name] = {"date": datetime.now(UTC).date().isoformat(), **figures}
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("damaged files in all:", sum(part.get("damaged files", 0) for part in found["parts"].values()))
    wrong = ("broken promises", "errors", "differing")
    sys.exit(any(found["parts"][name].get(key) for name in chosen for key in wrong))


if __name__ == "__main__":
    main()
