"""A folder that grows in bursts while it is watched and searched: is anything lost, and how many versions come of it?

Photographs are copied into a watched folder in bursts with a pause after each, by another process than the one that
watches (`build-index --update --watch` with `lite`). Meanwhile the current version is opened and searched, again
and again.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image
from record import Figure, need_data, record

from searcher import Searcher
from storage import IndexStore
from storage.catalog import Catalog
from storage.files.layout import CATALOG

COMMAND = "import sys; sys.argv[0] = 'build-index'; from twinlens.commands.build import main; main()"
SIDE = 96
READY = "Ctrl-C ends it"
PATIENCE = 1200.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--bursts", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measured(Path(scratch), arguments.files, arguments.bursts)
    notes = f"Photographs of Flickr8k, {SIDE} pixels across, each some times with another quality; `lite` on the CPU."
    record("watch", figures, notes)


def measured(scratch: Path, files: int, bursts: int) -> list[Figure]:
    corpus, index, said = scratch / "photos", scratch / "photos.index", scratch / "said.txt"
    corpus.mkdir()
    sources = sorted((need_data() / "flickr8k" / "images").iterdir())
    write(sources[0], corpus / "first.jpg", 90)
    options = [sys.executable, "-c", COMMAND, str(corpus), "--out", str(index)]
    subprocess.run([*options, "--encoder", "lite", "--quiet"], check=True, capture_output=True)
    watcher = subprocess.Popen(
        [*options, "--update", "--watch", "--output", "json"],
        stdout=(scratch / "out.txt").open("wb"),
        stderr=said.open("wb"),
    )
    searches = [0]
    settled = 0

    def done(times: int) -> bool:
        searches[0] += search(index)
        return said.read_text(encoding="utf-8", errors="replace").count(READY) >= times

    try:
        until(partial(done, 1))
        started, written = time.perf_counter(), 1
        for burst in range(bursts):
            for number in range(burst * files // bursts, (burst + 1) * files // bursts):
                source = sources[number % len(sources)]
                write(source, corpus / f"{number:06}.jpg", 60 + number // len(sources))
                written += 1
            settled += 1
            until(partial(done, 1 + settled))
        seconds = time.perf_counter() - started
        watcher.send_signal(signal.SIGINT)
        code = watcher.wait(60)
    finally:
        watcher.kill()
    versions = [json.loads(line)["version"] for line in (scratch / "out.txt").read_text(encoding="utf-8").splitlines()]
    with Catalog.open(index / "versions" / f"{IndexStore.open(index).current():08}" / CATALOG) as catalog:
        held, rejected = catalog.counts["images"], catalog.table("rejected").num_rows
    return [
        Figure("files added", written - 1),
        Figure("bursts", bursts),
        Figure("versions published", len(versions), f"{bursts}"),
        Figure("files lost", written - held, "0"),
        Figure("files rejected", rejected, "0"),
        Figure("searches meanwhile, each of a version opened anew", searches[0]),
        Figure("from the first file to the last version", round(seconds), unit="s"),
        Figure("exit code after Ctrl-C", code, "0"),
    ]


def write(source: Path, path: Path, quality: int) -> None:
    image = Image.open(source).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    image.save(path, quality=quality)


def search(index: Path) -> int:
    """Open the current version and search it; any failure ends the benchmark."""
    with Searcher.open(index, verify="size") as searcher:
        hits = searcher.text_to_image("a dog in the snow", 10)
        if len(hits) < min(10, searcher.manifest.counts.images):
            raise RuntimeError(f"version {searcher.manifest.version} gave {len(hits)} hits")
    time.sleep(0.2)
    return 1


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing came for {PATIENCE:g} s")


if __name__ == "__main__":
    main()
