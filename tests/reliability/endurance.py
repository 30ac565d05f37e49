"""Many searches: the same answers from many threads, and no memory or open file more at the end than at the start."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from searcher import Searcher

FIRST = 1000  # after so many searches every setting has been used, and all code is loaded
SETTINGS: tuple[dict[str, Any], ...] = (
    {"k": 5},
    {"k": 10, "nprobe": 1, "oversample": 2},
    {"k": 3, "nprobe": 8, "oversample": 8},
    {"k": 20, "exact": True},
    {"k": 10, "where": "year > 2005"},
    {"k": 7, "where": "year between 1995 and 2012", "nprobe": 2, "oversample": 4},
    {"k": 2, "ann_recall": 0.99},
    {"k": 50, "nprobe": 16, "oversample": 1},
    {"k": 1},
)
QUERIES = np.random.default_rng(8).standard_normal((61, 4)).astype(np.float32)


def search(searcher: Searcher, number: int) -> tuple[Any, ...]:
    """Carry out the search with this number and return all it says that must not vary."""
    setting, query = SETTINGS[number % len(SETTINGS)], QUERIES[number % len(QUERIES)]
    if "where" not in setting and number % 2:
        hits = searcher.image_to_text(query, **setting)
    else:
        hits = searcher.text_to_image(query, **setting)
    return hits.row_ids.tolist(), hits.scores.tolist(), [hit.item_id for hit in hits]


def differing(index: Path, searches: int, threads: int) -> int:
    """Return how many of the searches from many threads say something else than from one alone."""
    kinds = len(SETTINGS) * len(QUERIES) * 2
    with Searcher.open(index) as searcher, ThreadPoolExecutor(threads) as pool:
        alone = [search(searcher, number) for number in range(min(kinds, searches))]
        found = pool.map(lambda number: search(searcher, number) == alone[number % len(alone)], range(searches))
        return sum(not same for same in found)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Resident memory in bytes and open files of a process that opens an index, searches it and closes it again.

    Attributes:
        unopened: Memory before the index is opened for the second time, which has loaded all code.
        at_first: After some searches of every kind.
        before: After the warm-up.
        after: After the searches.
        closed: After the index was closed.
    """

    searches: int
    unopened: int
    at_first: int
    before: int
    after: int
    closed: int
    files_before: int
    files_after: int

    @property
    def share(self) -> float:
        return self.after / self.before - 1


def growth(index: Path, searches: int, warm_up: int = FIRST) -> Growth:
    """Measure a process of its own that does nothing but search."""
    command = [sys.executable, str(Path(__file__)), str(index), str(searches), str(warm_up)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return Growth(**json.loads(done.stdout))


def _resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed, and the allocator keeps, is nobody's growth
    fields: Sequence[str] = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def measured(index: Path, searches: int, warm_up: int) -> Growth:
    """Search in this process and return what it held."""
    with Searcher.open(index) as searcher:
        _search_all(searcher, 200)
    unopened = _resident()
    with Searcher.open(index) as searcher:
        _search_all(searcher, FIRST)
        at_first = _resident()
        _search_all(searcher, warm_up - FIRST)
        before, files_before = _resident(), _open_files()
        _search_all(searcher, searches)
        after, files_after = _resident(), _open_files()
    return Growth(
        searches=searches,
        unopened=unopened,
        at_first=at_first,
        before=before,
        after=after,
        closed=_resident(),
        files_before=files_before,
        files_after=files_after,
    )


def _search_all(searcher: Searcher, count: int) -> None:
    for number in range(count):
        search(searcher, number)


def main() -> None:
    """Search and print what the process held before and after."""
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=Path)
    parser.add_argument("searches", type=int)
    parser.add_argument("warm_up", type=int)
    given = parser.parse_args()
    print(json.dumps(measured(given.index, given.searches, given.warm_up).__dict__))


if __name__ == "__main__":
    main()
