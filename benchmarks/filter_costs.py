"""Every function that a filter may use, with long and nested arguments: worst seconds and worst memory.

A server answers filters of strangers. Each one is checked and evaluated as the server does it, with a time limit;
measured are its seconds, and the memory of this process and of those that it started, above what an idle one takes.
`--seed` and `--start` replay a filter.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from random_filters import RandomFilters
from record import Figure, record

from storage.catalog import Catalog
from storage.errors import SearchParameterError
from storage.files.layout import CATALOG
from storage.where import check_predicate

LIMIT_SECONDS = 2.0
ROWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        index = built(Path(scratch))
        figures = fuzzed(index, arguments.seed, range(arguments.start, arguments.start + arguments.count))
    record(
        "filter_costs", figures, f"{ROWS} images with a caption each; limit {LIMIT_SECONDS} s; seed {arguments.seed}."
    )


def built(scratch: Path, count: int = ROWS) -> Path:
    """Return the catalog of a version with so many images and captions, from ready-made vectors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from indexer import build_index
    from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

    rng = np.random.default_rng(0)
    for side in ("images", "texts"):
        np.save(scratch / f"{side}.npy", rng.normal(size=(count, 16)).astype(np.float32))
    rows = range(count)
    facts = {
        "item_id": [f"folder/photo {row:05}.jpg" for row in rows],
        "price": rng.normal(20, 5, count),
        "amount": rng.integers(-(2**62), 2**62, count),
        "taken": [datetime(2020, 1, 1) + timedelta(hours=5 * row) for row in rows],
        "notes": [f"{row} " + "a dog runs on the beach, " * (row % 120) for row in rows],
        "tags": [["dog", f"tag {row % 7}"] * (row % 5) for row in rows],
        "numbers": [list(range(row % 60)) for row in rows],
    }
    pq.write_table(pa.table(facts), scratch / "images.parquet")
    captions = [f"a man and {row} dogs on the beach of a lake" for row in rows]
    pq.write_table(pa.table({"item_id": [f"t{row}" for row in rows], "caption": captions}), scratch / "texts.parquet")
    sides = {
        side: EmbeddingFiles(vectors=scratch / f"{side}.npy", ids=None, table=scratch / f"{side}.parquet")
        for side in ("images", "texts")
    }
    source = EmbeddingSource(EmbeddingOptions(images=sides["images"], texts=sides["texts"], normalize=True))
    report = build_index(source, scratch / "index", min_ann_recall=0)
    return Path(report.path) / "versions" / f"{report.version:08}" / CATALOG


@dataclass
class Memory:
    """The largest memory of this process and of its children, in MiB, sampled twenty times a second."""

    most: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.ended.wait(0.05):
            self.most = max(self.most, resident_mib())


def resident_mib() -> float:
    """Resident memory of this process and its children."""
    own = Path("/proc/self")
    children = (own / "task" / str(own.resolve().name) / "children").read_text().split()
    return sum(_resident(Path("/proc") / each) for each in (own.resolve().name, *children))


def _resident(process: Path) -> float:
    try:
        return int((process / "statm").read_text().split()[1]) * 4096 / 2**20
    except (OSError, IndexError):
        return 0.0


@dataclass
class Worst:
    """The filter that took the longest."""

    seconds: float = 0.0
    where: str = ""


def fuzzed(path: Path, seed: int, numbers: range) -> list[Figure]:
    """Ask the filters with these numbers, and return what became of them and what the worst one cost."""
    filters, outcomes, worst = RandomFilters(), Counter[str](), Worst()
    with Catalog.open(path) as catalog:
        for where in ("width > 5", "regexp_matches(item_id, 'photo 0.*')"):
            catalog.filter_rows("images", where)  # both ways are warm
        idle, memory = resident_mib(), Memory()
        for number in numbers:
            where = filters.filter(f"{seed} {number}")
            started = time.perf_counter()
            outcomes[outcome(catalog, where)] += 1
            seconds = time.perf_counter() - started
            if seconds > worst.seconds:
                worst = Worst(seconds, f"number {number}: {where[:80]}")
        memory.ended.set()
    valid = 1 - sum(outcomes[kind] for kind in REFUSED) / len(numbers)
    return [
        Figure("filters", len(numbers), ">= 5000"),
        *(Figure(f"of these {name}", count) for name, count in sorted(outcomes.items())),
        Figure("share that is evaluated", round(valid, 2), ">= 0.7"),
        Figure("longest", round(worst.seconds, 2), f"<= {2 * LIMIT_SECONDS}", f"s ({worst.where})"),
        Figure("most memory above idle", round(memory.most - idle), "<= 512", "MiB"),
    ]


REFUSED = ("refused by its form", "refused by the types of its arguments")


def outcome(catalog: Catalog, where: str) -> str:
    """Check and evaluate a filter, and say what became of it."""
    columns = [name for name, _ in catalog.columns("images")]
    try:
        check_predicate(where, columns, catalog.parse_predicate)
    except SearchParameterError:
        return REFUSED[0]
    try:
        catalog.filter_rows("images", where, timeout=LIMIT_SECONDS)
    except SearchParameterError as error:
        text = str(error)
        if "Binder Error" in text or "Catalog Error" in text:
            return REFUSED[1]
        if "took longer" in text or "too much memory" in text:
            return "ended by a limit of " + ("time" if "took longer" in text else "memory")
        return "failed on a value"
    return "answered"


if __name__ == "__main__":
    main()
