"""SIGKILL a build at random moments until it finishes; compare with one that was left alone."""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Figure, need_data, record

from searcher import Searcher

PHOTOS = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photos = corpus(folder)
        started = time.perf_counter()
        finish(photos, folder / "whole.index")
        seconds = time.perf_counter() - started
        # The old version that must stay readable; another limit keeps its shards apart from those to come.
        finish(photos, folder / "killed.index", "--max-file-bytes", "63M")
        with Searcher.open(folder / "killed.index") as searcher:
            old = searcher.manifest.version
        done, runs, readable = 0, 0, 0
        while done < kills:
            process = start(photos, folder / "killed.index")
            time.sleep(chance.uniform(0.3, 1.0) * seconds)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                done += 1
            process.wait()
            runs += 1
            with Searcher.open(folder / "killed.index") as searcher:
                readable += bool(searcher.text_to_image("a dog", k=3)) and searcher.manifest.version >= old
        finish(photos, folder / "killed.index")
        same = sum(checksum(folder / "whole.index", part) == checksum(folder / "killed.index", part) for part in PARTS)
    record(
        "kill_resume",
        [
            Figure("SIGKILLs", done, "20"),
            Figure("runs after which the index was readable and searched", f"{readable} of {runs}", "all"),
            Figure("files of vectors equal to the uninterrupted build", f"{same} of {len(PARTS)}", "all"),
            Figure("uninterrupted build", round(seconds, 1), unit="s"),
        ],
        f"{PHOTOS} photographs with their captions, `lite`, shards of 16 images; each run is resumed by the next.",
    )


PARTS = ("images/vectors.arrow", "texts/vectors.arrow")


def corpus(folder: Path) -> Path:
    photos = folder / "photos"
    photos.mkdir()
    for path in sorted((need_data() / "flickr8k" / "images").iterdir())[:PHOTOS]:
        shutil.copy2(path, photos)
        (photos / path.with_suffix(".txt").name).write_text("a photograph\nanother caption\n", encoding="utf-8")
    return photos


def start(photos: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / "build-index"), str(photos), "--out", str(out), "--encoder", "lite"]
    return subprocess.Popen([*command, "--shard-cost", "16", "--quiet", *options], stdout=subprocess.DEVNULL)


def finish(photos: Path, out: Path, *options: str) -> None:
    if start(photos, out, *options).wait():
        sys.exit("error: a build that was left alone failed")


def checksum(index: Path, part: str) -> str:
    newest = max((index / "versions").iterdir())
    return hashlib.sha256((newest / part).read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
