"""Build an index locally and on a Ray cluster of two nodes on this machine: the same bytes, how fast, a node killed.

Both nodes share the cores of this machine, a core each, so that two workers are held against one, and against the local
build, which uses both cores; a network plays no part.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import Figure, need_data, record

from indexer import BuildReport, build_index
from indexer.progress import SilentProgress
from storage import IndexStore

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

SHARD = 32
KILLED = "a node killed"


class Pace(SilentProgress):
    """Times the items that come in once all workers are there; may call something once, when so many are done."""

    def __init__(self, workers: int, at: int = 0, what: Callable[[], None] | None = None) -> None:
        self._ready, self._at, self._what = f"{workers} workers", at, what
        self._stage, self.done = "", 0
        self._begun: tuple[float, int] | None = None
        self._ended = 0.0
        self._busy, self._since = others_busy(), time.perf_counter()
        self.others = 0.0

    def stage(self, name: str, total: int) -> None:
        if self._stage == "encode":
            self.others = (others_busy() - self._busy) / (time.perf_counter() - self._since)
        self._stage = name

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        if self._stage != "encode":
            return
        self.done, self._ended = self.done + units, time.perf_counter()
        if self._begun is None and (hint.endswith(self._ready) or self._ready == "0 workers"):
            self._begun = (self._ended, self.done)
        if self._what is not None and self.done >= self._at:
            what, self._what = self._what, None
            what()

    @property
    def rate(self) -> float:
        """Items a second."""
        assert self._begun is not None
        return (self.done - self._begun[1]) / (self._ended - self._begun[0])


def others_busy() -> float:
    """Return core seconds that processes which are none of ours have used, give or take those that ended elsewhere."""
    stat = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]
    total = sum(map(int, stat)) - int(stat[3]) - int(stat[4])
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)], ticks[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    own, before = {os.getpid()}, 0
    while len(own) > before:
        before = len(own)
        own |= {one for one, parent in parents.items() if parent in own}
    return (total - sum(ticks[one] for one in own)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=1536)
    count = parser.parse_args().photographs
    from ray_cluster import two_nodes

    settings: dict[str, Any] = {"shard_cost": SHARD}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photos = corpus(folder, count)
        paces = {"local": Pace(0)}
        reports = {"local": build_index(photos, folder / "local", encoder="lite", **settings, progress=paces["local"])}
        with two_nodes() as cluster:
            settings |= {"executor": "ray", "address": cluster.address}
            paces |= {"1 worker": Pace(1), "2 workers": Pace(2), KILLED: Pace(2, count, lambda: kill_node(cluster))}
            for name, workers in (("1 worker", 1), ("2 workers", 2), (KILLED, 2)):
                reports[name] = build_index(
                    photos, folder / name, encoder="lite", ray_workers=workers, progress=paces[name], **settings
                )
        figures = [Figure("photographs", count), Figure("captions", count)]
        for name, report in reports.items():
            figures += speed(name, report, paces[name])
        whole = contents(folder / "local")
        for name in list(reports)[1:]:
            same = contents(folder / name) == whole
            figures.append(Figure(f"{name}: checksums of vectors and catalog beside local", words(same), "equal"))
        lost = reports[KILLED].manifest.build["encode"]["executor"]["lost"]
        figures.append(Figure(f"{KILLED}: workers lost", lost, ">= 1"))
    record("ray_build", figures, NOTES)


NOTES = (
    "`lite`, Flickr8k photographs of 224 x 224 with a caption each, shards of 32 images; two Ray nodes of one core "
    "each on one machine, whose two cores the local build has to itself. A photograph and a caption are two items. The "
    "rate counts from the first shard that comes in when all workers are there; a worker starts as a process that "
    "imports torch and loads the encoder. With a node killed at half of the items, its shards go to the worker that is "
    "left, so that this rate holds the time until the loss is noticed."
)


def corpus(folder: Path, count: int) -> Path:
    photos = folder / "photos"
    photos.mkdir()
    originals = sorted((need_data() / "flickr8k" / "images").iterdir())
    for number in range(count):
        path = photos / f"{number:05}.jpg"
        shutil.copy2(originals[number % len(originals)], path)
        path.with_suffix(".txt").write_text(f"photograph number {number}\n", encoding="utf-8")
    return photos


def kill_node(cluster: Any) -> None:
    """End the node that is not the head as a failing machine does: its workers at once, then what started them."""
    from ray_cluster import other_node

    node = other_node(cluster)
    (raylet,) = node.all_processes["raylet"]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == raylet.process.pid:
            os.kill(int(path.parent.name), signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def speed(name: str, report: BuildReport, pace: Pace) -> list[Figure]:
    said = report.manifest.build["encode"]
    figures = [
        Figure(f"{name}: items a second", round(pace.rate, 1), unit="items/s"),
        Figure(f"{name}: the encode stage, start of workers included", said["seconds"], unit="s"),
    ]
    if name == "local":  # on Ray the time of workers that have ended is in nobody's account
        figures.append(Figure(f"{name}: cores that other programs took meanwhile", round(pace.others, 2)))
    if start := said["executor"].get("seconds_to_start"):
        figures.append(Figure(f"{name}: until the last worker was there", round(start, 1), unit="s"))
    return figures


def contents(index: Path) -> list[Any]:
    """Return checksums of the vectors and every row of the catalog."""
    with IndexStore.open(index).open_version() as version:
        files = version.manifest.files
        sums = [files[name].sha256 for name in sorted(files) if name.endswith("vectors.arrow")]
        return [*sums, *(version.catalog.table(name).to_pylist() for name in ("images", "texts", "pairs", "rejected"))]


def words(same: bool) -> str:
    return "equal" if same else "DIFFERENT"


if __name__ == "__main__":
    main()
