"""Every function that a filter may use, with long and nested arguments: worst seconds and worst memory.

A server answers filters of strangers. Each one is evaluated through `Catalog.filter_rows` as the server does it, with a
time limit; measured are its seconds, and the memory of this process and of those that it started, above what an idle
one takes. `--seed` and `--start` replay a filter.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from record import Figure, record

from storage.catalog import Catalog
from storage.errors import SearchParameterError
from storage.files.layout import CATALOG
from storage.where import ALLOWED_FUNCTIONS

LIMIT_SECONDS = 2.0
ROWS = 2000
FUNCTIONS = sorted(name for name in ALLOWED_FUNCTIONS if name[0].isalpha())
OPERATORS = sorted(name for name in ALLOWED_FUNCTIONS if not name[0].isalpha() and "_" not in name)
COLUMNS = ("item_id", "caption", "width", "height", "price", "row_id", "uri")


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


def built(scratch: Path) -> Path:
    """Return the folder of a version with some thousand images and captions, from ready-made vectors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from indexer import build_index
    from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

    rng = np.random.default_rng(0)
    for side in ("images", "texts"):
        np.save(scratch / f"{side}.npy", rng.normal(size=(ROWS, 16)).astype(np.float32))
    ids = [f"folder/photo {number:05}.jpg" for number in range(ROWS)]
    price = rng.normal(20, 5, ROWS)
    pq.write_table(pa.table({"item_id": ids, "price": price, "width": np.arange(ROWS)}), scratch / "images.parquet")
    captions = [f"a man and {number} dogs on the beach of a lake" for number in range(ROWS)]
    pq.write_table(
        pa.table({"item_id": [f"t{n}" for n in range(ROWS)], "caption": captions}), scratch / "texts.parquet"
    )
    sides = {
        side: EmbeddingFiles(vectors=scratch / f"{side}.npy", ids=None, table=scratch / f"{side}.parquet")
        for side in ("images", "texts")
    }
    source = EmbeddingSource(EmbeddingOptions(images=sides["images"], texts=sides["texts"], normalize=True))
    report = build_index(source, scratch / "index", min_ann_recall=0)
    return Path(report.path) / "versions" / f"{report.version:08}"


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


def fuzzed(folder: Path, seed: int, numbers: range) -> list[Figure]:
    outcomes: Counter[str] = Counter()
    worst, slowest = 0.0, ""
    with Catalog.open(folder / CATALOG) as catalog:
        for where in ("width > 5", "regexp_matches(item_id, 'photo 0.*')"):
            catalog.filter_rows("images", where)  # both ways are warm
        idle, memory = resident_mib(), Memory()
        for number in numbers:
            where = Filters(random.Random(f"{seed} {number}")).condition()
            started = time.perf_counter()
            outcomes[outcome(catalog, where)] += 1
            seconds = time.perf_counter() - started
            if seconds > worst:
                worst, slowest = seconds, f"number {number}: {where[:80]}"
        memory.ended.set()
    return [
        Figure("filters", len(numbers), ">= 5000"),
        *(Figure(f"of these {name}", count) for name, count in sorted(outcomes.items())),
        Figure("longest", round(worst, 2), f"<= {2 * LIMIT_SECONDS}", f"s ({slowest})"),
        Figure("most memory above idle", round(memory.most - idle), "<= 512", "MiB"),
    ]


def outcome(catalog: Catalog, where: str) -> str:
    try:
        catalog.filter_rows("images", where, timeout=LIMIT_SECONDS)
    except SearchParameterError as error:
        return "ended by a limit" if "took" in str(error) or "limit" in str(error) else "refused"
    return "answered"


class Filters:
    """Random filters: functions of columns, of long values, and of one another."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def condition(self) -> str:
        value = self.value(self.rng.choice((1, 1, 2, 2, 3, 6, 20)))
        return self.rng.choice(
            (f"{value} > 1", f"{value} IS NOT NULL", f"length(({value})::VARCHAR) > 3", f"{value} = 'a'")
        )

    def value(self, depth: int) -> str:
        if depth == 0 or self.rng.random() < 0.1:
            return self.leaf()
        if self.rng.random() < 0.15:
            return f"({self.value(depth - 1)} {self.rng.choice(OPERATORS)} {self.leaf()})"
        count = self.rng.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 40))
        parts = [self.value(depth - 1) if number == 0 else self.leaf() for number in range(count)]
        return f"{self.rng.choice(FUNCTIONS)}({', '.join(parts)})"

    def leaf(self) -> str:
        kind = self.rng.randrange(9)
        length = self.rng.choice((1, 10, 1000, 4000, 20000))
        if kind <= 2:
            return self.rng.choice(COLUMNS)
        if kind == 3:
            return "'" + self.rng.choice(("a", "ab ", "(a+)+", "[[", '{"a":', "%_", "é")) * (length // 3) + "'"
        if kind == 4:
            return self.rng.choice(("0", "-1", "3", "1e308", "9223372036854775807", "0.1", "100000000", "NULL", "true"))
        if kind == 5:
            return "[" + ", ".join(["1"] * self.rng.choice((1, 100, 3000))) + "]"
        if kind == 6:
            return "(" + "+".join(["item_id"] * self.rng.choice((1, 30))) + ")"
        if kind == 7:
            return f"repeat(item_id, {length})" if self.rng.random() < 0.5 else f"({'item_id || ' * 30}item_id)"
        return self.rng.choice(
            ("'$..*'", "'$.a.b'", "'.*'", "'%d %B'", "date '2020-01-01'", "interval 3 day", "item_id.a.a")
        )


if __name__ == "__main__":
    main()
