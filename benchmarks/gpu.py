"""What a GPU adds: ViT-B-32 through build-index's pipeline beside its halves, list centroids, adding.

Ends with a reason where there is no CUDA device; `--device cpu --rows 20000` tries the script itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from clip_like import write_vectors
from encode import COUNTS, SETS, opened, photographs, repeated, speed
from record import Figure, record

from indexer.ann.kmeans import add_to_lists, list_centroids, lists_of

ON_A_GPU = (12_000, 6000, 960)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--nlist", type=int, default=4096)
    parser.add_argument("--photographs", action="store_true", help="also the pipeline; needs the folder shared/data")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        sys.exit(f"error: torch {torch.__version__} sees no CUDA device; run this where there is one")
    with tempfile.TemporaryDirectory() as scratch:
        figures = vectors(Path(scratch), arguments.rows, arguments.nlist, arguments.device)
        if arguments.photographs:
            figures = pipeline(Path(scratch), arguments.device) + figures
    record("gpu", figures, f"CLIP-like vectors of 512 dimensions; {arguments.device}.")


def pipeline(scratch: Path, device: str) -> list[Figure]:
    encoder = opened("ViT-B-32", scratch, "auto", device)
    counts = ON_A_GPU if device != "cpu" else COUNTS["ViT-B-32"]
    figures = []
    for kind, paths in photographs(scratch).items():
        figures += speed(f"ViT-B-32, {kind}", encoder, repeated(paths, counts[SETS.index(kind)], scratch))
    pixels = torch.randint(0, 256, (2048, 3, 224, 224), dtype=torch.uint8)
    figures.append(
        Figure("ViT-B-32 from bytes in memory", rate(2048, lambda: encoder.encode_pixels(pixels)), unit="images/s")
    )
    return figures


def vectors(scratch: Path, rows: int, nlist: int, device: str) -> list[Figure]:
    write_vectors(scratch, rows)
    images = np.load(scratch / "images.npy")
    return clustering(images.astype(np.float32), nlist, device)


def clustering(images: np.ndarray, nlist: int, device: str) -> list[Figure]:
    sample = images[np.sort(np.random.default_rng(0).choice(len(images), min(len(images), 64 * nlist), replace=False))]
    centres, trained = timed(lambda: list_centroids(sample, nlist, device=device))
    faiss_centres = faiss.Kmeans(images.shape[1], nlist, niter=10, spherical=True, max_points_per_centroid=64)
    _, trained_by_faiss = timed(lambda: faiss_centres.train(sample))
    lists, placed = timed(lambda: lists_of(images, centres, device=device))
    index = faiss.index_factory(images.shape[1], f"IVF{nlist},PQ256x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(sample[: 64 * 256])
    ids = np.arange(len(images))
    _, added = timed(lambda: add_to_lists(index, images, ids, lists))
    other = faiss.clone_index(index)
    other.reset()
    _, added_by_faiss = timed(lambda: other.add(images))
    return [
        Figure(f"{nlist} list centres from {len(sample):,} rows", round(trained, 2), unit="s"),
        Figure("the same by FAISS on the CPU", round(trained_by_faiss, 2), unit="s"),
        Figure(f"lists of {len(images):,} rows", round(placed, 2), unit="s"),
        Figure("adding those rows to their lists", round(added, 2), unit="s"),
        Figure("finding lists and adding, by FAISS on the CPU", round(added_by_faiss, 2), unit="s"),
    ]


def rate(count: int, work: Callable[[], Any]) -> float:
    work()
    return round(count / timed(work)[1], 1)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    value = work()
    return value, time.perf_counter() - started


if __name__ == "__main__":
    main()
