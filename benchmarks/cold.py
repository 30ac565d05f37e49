"""Searches whose index is on disk and not in the page cache: milliseconds, pages waited for, and bytes read a query.

    python benchmarks/cold.py INDEX QUERIES.npy --searches 20 100 --within 800

Each run opens the index in a process of its own, after its files were taken out of the page cache, and searches once,
which reads the codes; later queries find what earlier ones brought in. Last a query is compared with every row.
`--within` repeats it in a control group that may have so many MiB, page cache included (that takes root): once as it
is, once as if nobody had told the system that rows are read here and there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, Figure, record

from searcher import Searcher
from storage.files import mapped

READAHEAD = Path("/sys/block").glob("*/queue/read_ahead_kb")
GROUPS = (
    (Path("/sys/fs/cgroup/memory/twinlens-cold"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup/twinlens-cold"), "memory.max"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("queries", type=Path, help="(n, dim) vectors of texts, .npy")
    parser.add_argument("--searches", type=int, nargs="+", default=[20, 100], help="so many one after the other")
    parser.add_argument("--within", type=int, metavar="MIB", help="also within so much memory")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--child", nargs=2, metavar=("SEARCHES", "TOLD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(asked(options, int(options.child[0]), options.child[1])))
        return
    figures = measured(options, "", None)
    if options.within:
        with control_group(options.within) as group:
            for told in ("", "nothing"):
                figures += measured(options, told, group)
    ahead = ", ".join(sorted({path.read_text().strip() for path in READAHEAD}))
    size = sum(path.stat().st_size for path in options.index.rglob("vectors*") if path.is_file()) >> 20
    notes = f"{size:,} MiB of vectors; the system reads {ahead} KiB ahead. Text queries at the default recall."
    record("cold", figures, notes, folder=options.results)


def measured(options: argparse.Namespace, told: str, group: Path | None) -> list[Figure]:
    """What searches cost in processes of their own, in a control group or outside."""
    where = f"within {options.within:,} MiB" if group else "memory for all"
    figures = []
    for searches in options.searches:
        forget(options.index)
        arguments = [sys.executable, __file__, str(options.index), str(options.queries)]
        child = subprocess.run(
            [*arguments, "--child", str(searches), told],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=(lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None) if group else None,
        )
        figures += [
            Figure(
                f"{where}{', the system told nothing' if told else ''}, the first {searches} searches: {name}", value
            )
            for name, value in json.loads(child.stdout.splitlines()[-1]).items()
        ]
    return figures


@contextmanager
def control_group(mib: int) -> Iterator[Path]:
    """A control group whose processes may have so much memory."""
    group, limit = next(known for known in GROUPS if known[0].parent.is_dir())
    group.mkdir(exist_ok=True)
    try:
        (group / limit).write_text(str(mib << 20))
        yield group
    finally:
        group.rmdir()


def forget(index: Path) -> None:
    """Take the files of an index out of the page cache; nobody may have them mapped."""
    for path in index.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def asked(options: argparse.Namespace, searches: int, told: str) -> dict[str, Any]:
    if told:
        mapped.memory_bytes = lambda: 1 << 62
    queries = np.load(options.queries)[: searches + 1].astype(np.float32)
    with Searcher.open(options.index, verify="size") as searcher:
        searcher.search_vectors("images", queries[:1], direction="text_to_image")  # reads the codes
        faults, read = resource.getrusage(resource.RUSAGE_SELF).ru_majflt, bytes_read()
        seconds = []
        for query in queries[1:]:
            started = time.perf_counter()
            searcher.search_vectors("images", query[None], direction="text_to_image")
            seconds.append(time.perf_counter() - started)
        faults, read = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults, bytes_read() - read
        started = time.perf_counter()
        searcher.search_vectors("images", queries[:1], direction="text_to_image", exact=True)
        compared = time.perf_counter() - started
    return {
        "mean milliseconds": round(float(np.mean(seconds)) * 1e3, 1),
        "median milliseconds": round(float(np.median(seconds)) * 1e3, 1),
        "pages waited for a search": round(faults / searches, 1),
        "KiB read a search": round(read / searches / 1024),
        "seconds to compare a query with every row": round(compared, 2),
    }


def bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


if __name__ == "__main__":
    main()
