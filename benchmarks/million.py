"""A million ready-made vectors: build seconds, peak memory, bytes on disk, seconds to open, milliseconds to search."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from clip_like import DIM, write_vectors
from record import Figure, record

QUERIES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--memory", default="4GB", help="what the build may use")
    parser.add_argument("--ann", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_vectors(folder, arguments.rows, dim=arguments.dim)
        build = child(["--ann", arguments.ann, "--memory", arguments.memory], folder)
        figures = [
            Figure("build", build["seconds"], unit="s"),
            Figure("stated before the start", build["stated"]),
            Figure("peak memory of its own (sampled RssAnon)", build["RssAnon"], f"<= {arguments.memory}", "MiB"),
            Figure("peak resident memory, mapped vectors included (VmHWM)", build["VmHWM"], unit="MiB"),
            *search_figures(folder, arguments.rows),
        ]
    name = f"million_{arguments.rows}" + ("" if arguments.dim == DIM else f"x{arguments.dim}")
    record(name, figures, f"CLIP-like vectors of {arguments.dim} dimensions (`clip_like.py`), from `.npy`.")


def child(options: list[str], folder: Path) -> dict[str, Any]:
    """Build in a process of its own, whose peak memory is then that of the build."""
    command = [
        str(Path(sys.executable).parent / "build-index"),
        "--image-embeddings",
        str(folder / "images.npy"),
        "--text-embeddings",
        str(folder / "texts.npy"),
        "--out",
        str(folder / "index"),
        *options,
    ]
    started = time.perf_counter()
    peaks = {"VmHWM": 0, "RssAnon": 0}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for name, mib in memory(process.pid).items():
                peaks[name] = max(peaks[name], mib)
            time.sleep(0.05)
        said = process.stderr.read() if process.stderr else ""
    if process.returncode:
        sys.exit(said)
    stated = [line for line in said.splitlines() if "MiB" in line]
    return {"seconds": round(time.perf_counter() - started, 1), "stated": "; ".join(stated), **peaks}


def memory(pid: int) -> dict[str, int]:
    """Return the resident MiB of a process: `VmHWM` with mapped files, at its highest, `RssAnon` its own, now."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmHWM", "RssAnon"))}
    return {name: int(kib) // 1024 for name, kib in found.items()}


def search_figures(folder: Path, rows: int) -> list[Figure]:
    from searcher import Searcher

    started = time.perf_counter()
    with Searcher.open(folder / "index", verify="size"):
        quick = time.perf_counter() - started
    size = sum(path.stat().st_size for path in (folder / "index" / "versions").rglob("*") if path.is_file())
    ann_bytes = next((folder / "index" / "versions").glob("*/images/ann.faiss")).stat().st_size
    started = time.perf_counter()
    searcher = Searcher.open(folder / "index")
    figures = [
        Figure("bytes a vector, whole index", round(size / rows, 1), unit="bytes"),
        Figure("bytes a vector, ann.faiss", round(ann_bytes / rows, 1), unit="bytes"),
        Figure("open, every checksum verified", round(time.perf_counter() - started, 2), unit="s"),
        Figure("open, sizes verified", round(quick, 2), unit="s"),
    ]
    with searcher:
        for direction, name in (("text_to_image", "text_queries.npy"), ("image_to_image", "image_queries.npy")):
            figures += direction_figures(searcher, direction, np.load(folder / name)[:QUERIES])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return [*figures, Figure("peak memory of the searching process", memory, unit="MiB")]


def direction_figures(searcher: Any, direction: str, queries: np.ndarray) -> list[Figure]:
    """Queries that took no part in tuning: found share of the exact top 10, and time, one query after another."""
    options = {"direction": direction, "ann_recall": 0.95}
    exact, _ = searcher.search_vectors("images", queries, 10, exact=True)
    searcher.search_vectors("images", queries[:1], 10, **options)
    started = time.perf_counter()
    found = [searcher.search_vectors("images", query[None], 10, **options)[0][0] for query in queries]
    ms = (time.perf_counter() - started) / len(queries) * 1000
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]
    return [
        Figure(f"{direction}: ann_recall@10 at ann_recall=0.95", round(float(np.mean(shares)), 4), ">= 0.95"),
        Figure(f"{direction}: a query", round(ms, 3), unit="ms"),
    ]


if __name__ == "__main__":
    main()
