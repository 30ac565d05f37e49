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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import Figure, need_data, record

from indexer import BuildReport, build_index
from indexer.progress import SilentProgress
from storage import IndexStore

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

SHARD = 64


class When(SilentProgress):
    """Calls something once, when so many items are done."""

    def __init__(self, items: int, what: Callable[[], None]) -> None:
        self._left, self._what = items, what

    def advance(self, units: int, hint: str = "") -> None:
        before, self._left = self._left, self._left - units
        if before > 0 >= self._left:
            self._what()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=1536)
    count = parser.parse_args().photographs
    from ray_cluster import two_nodes

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photos = corpus(folder, count)
        reports = {"local": build_index(photos, folder / "local", encoder="lite", shard_cost=SHARD)}
        with two_nodes() as cluster:
            on_ray: dict[str, Any] = {"encoder": "lite", "shard_cost": SHARD, "executor": "ray"}
            on_ray["address"] = cluster.address
            for name, workers in (("1 worker", 1), ("2 workers", 2)):
                reports[name] = build_index(photos, folder / name, ray_workers=workers, **on_ray)
            half = When(count, lambda: kill_node(cluster))
            reports["a node killed"] = build_index(photos, folder / "a node killed", progress=half, **on_ray)
        figures = [Figure("photographs", count), Figure("captions", count)]
        for name, report in reports.items():
            figures += speed(name, report)
        whole = contents(folder / "local")
        for name in list(reports)[1:]:
            same = contents(folder / name) == whole
            figures.append(Figure(f"{name}: checksums of vectors and catalog beside local", words(same), "equal"))
        lost = reports["a node killed"].manifest.build["encode"]["executor"]["lost"]
        figures.append(Figure("a node killed: workers lost", lost, ">= 1"))
    record("ray_build", figures, NOTES)


NOTES = (
    "`lite`, Flickr8k photographs of 224 x 224 with a caption each, shards of 64 images; two Ray nodes of one core "
    "each on one machine. The encode stage counts until the last shard is staged, the start of workers (a process that "
    "imports torch and loads the encoder) apart; one photograph and one caption are two items. With a node killed at "
    "half of the items, its shards go to the worker that is left."
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


def speed(name: str, report: BuildReport) -> list[Figure]:
    said = report.manifest.build["encode"]
    start = said["executor"].get("seconds_to_start", 0.0)
    figures = [Figure(f"{name}: encode stage", round(said["seconds"] - start, 1), unit="s")]
    rate = said["items"] / (said["seconds"] - start)
    figures.append(Figure(f"{name}: items a second", round(rate, 1), unit="items/s"))
    if start:
        figures.append(Figure(f"{name}: start of workers", round(start, 1), unit="s"))
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
