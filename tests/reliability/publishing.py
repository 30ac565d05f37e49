"""Readers of an index while versions are published and vacuumed: every answer is that of exactly one version."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
from small_index import publish, unit_rows

from searcher import Searcher
from storage import IndexStore

FIRST_ROWS = 20
QUERIES = unit_rows(3, 99)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the readers did: searches, indexes opened, versions seen, and one line for each thing that went wrong."""

    searches: int
    opened: int
    versions: frozenset[int]
    errors: tuple[str, ...]


def expected(rows: int) -> list[list[str]]:
    """Return the item ids that version with this many rows gives, by brute force over what was written."""
    stored = unit_rows(rows, rows).astype(np.float16).astype(np.float64)
    order = np.argsort(-(QUERIES.astype(np.float64) @ stored.T), axis=1, kind="stable")[:, :5]
    return [[f"item_id-{row}" for row in line] for line in order]


def read_once(index: Path, searches: int) -> tuple[int, str | None]:
    """Open the current version, search it, compare everything with what that version must say."""
    with Searcher.open(index) as searcher:
        rows = searcher.manifest.build["rows"]
        truth = expected(rows)
        for number in range(searches):
            found = searcher.search_vectors("texts" if number % 2 else "images", QUERIES, 5, exact=True)[0]
            if found.tolist() != truth:
                return searcher.manifest.version, f"version with {rows} rows answered {found.tolist()}"
            hits = searcher.text_to_image(QUERIES[0], 3, where="Year >= 2000", exact=True)
            if [hit.item_id for hit in hits] != truth[0][:3]:
                return searcher.manifest.version, f"a filtered search of {rows} rows answered {hits}"
        return searcher.manifest.version, None


def read_until(index: Path, stop: threading.Event, searches: int = 4) -> Reading:
    """Read until told to stop."""
    opened, versions, errors = 0, set[int](), list[str]()
    while not stop.is_set() or not opened:
        try:
            version, wrong = read_once(index, searches)
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked, and is raised there
            errors.append(f"{type(error).__name__}: {error}")
            continue
        opened += 1
        versions.add(version)
        errors += [wrong] if wrong else []
    return Reading(searches=2 * searches * opened, opened=opened, versions=frozenset(versions), errors=tuple(errors))


def read_in_threads(index: Path, stop: threading.Event, count: int) -> Reading:
    """Read from this many threads of this process."""
    found: list[Reading] = []
    threads = [threading.Thread(target=lambda: found.append(read_until(index, stop))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return together(found)


def together(readings: Sequence[Reading]) -> Reading:
    return Reading(
        searches=sum(one.searches for one in readings),
        opened=sum(one.opened for one in readings),
        versions=frozenset().union(*(one.versions for one in readings)),
        errors=tuple(error for one in readings for error in one.errors),
    )


def publish_under_readers(folder: Path, *, versions: int, threads: int, processes: int) -> Reading:
    """Publish and vacuum while threads of a process and other processes read; return what the readers say."""
    index = IndexStore.create(folder / "index").path
    _publish(index, 0)
    stop_file = folder / "stop"
    command = [sys.executable, str(Path(__file__)), str(index), str(stop_file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    readers = [
        subprocess.Popen([*command, *extra], stdout=subprocess.PIPE, text=True, env=environment)
        for extra in [*([[]] * processes), ["--threads", str(threads)]]
    ]
    try:
        for reader in readers:  # each says so when it has begun
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
        for number in range(1, versions):
            _publish(index, number)
            if number % 3 == 0:
                IndexStore.open(index).vacuum(keep=1)
    finally:
        stop_file.touch()
    return together([_result(reader) for reader in readers])


def _publish(index: Path, number: int) -> None:
    rows = FIRST_ROWS + number
    publish(IndexStore.open(index), rows, seed=rows)


def _result(reader: subprocess.Popen[str]) -> Reading:
    out, _ = reader.communicate(timeout=120)
    if reader.returncode:
        return Reading(searches=0, opened=0, versions=frozenset(), errors=(f"a reader exited {reader.returncode}",))
    value = json.loads(out)
    return Reading(
        searches=value["searches"],
        opened=value["opened"],
        versions=frozenset(value["versions"]),
        errors=tuple(value["errors"]),
    )


def main() -> None:
    """Be one reader process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=Path)
    parser.add_argument("stop_file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(given.stop_file, stop))
    watcher.start()
    print("reading", flush=True)
    found = read_in_threads(given.index, stop, given.threads)
    watcher.join()
    value = {**vars(found), "versions": sorted(found.versions), "errors": list(found.errors[:20])}
    print(json.dumps(value))


def _watch(stop_file: Path, stop: threading.Event) -> None:
    while not stop_file.exists():
        time.sleep(0.05)
    stop.set()


if __name__ == "__main__":
    main()
