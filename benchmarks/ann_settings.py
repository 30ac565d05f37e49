"""Whether the setting of a search that is fastest for one query at a time is fastest in batches too.

    python benchmarks/ann_settings.py --rows 300000 --work FOLDER

In an index that `ann.py` has built, on one core, with the queries that it chooses settings by.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from ann import KINDS, K, folder_of
from clip_like import DIM
from numpy.typing import NDArray
from record import RESULTS, Figure, record

from searcher import Searcher
from storage.ann import AnnIndex
from storage.vectors import VectorTable

TARGETS = (0.95, 0.97, 0.98, 0.99, 0.995)
NPROBES = (8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768)
OVERSAMPLES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
LEAST, ENOUGH = min(TARGETS) - 0.005, max(TARGETS) + 0.002
ALONE = 250  # queries that are asked one at a time


class Measured(NamedTuple):
    """A setting, its recall, and microseconds of a query alone and in a batch."""

    nprobe: int
    oversample: int
    recall: float
    alone: float
    in_batch: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--work", type=Path, required=True, help="the folder that ann.py was given")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the report")
    options = parser.parse_args()
    folder = folder_of(options)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    faiss.omp_set_num_threads(1)
    vectors = VectorTable.open(next(folder.glob("twinlens.index/versions/*/images/vectors.arrow")))
    with Searcher.open(folder / "twinlens.index", verify="size") as searcher:
        plan = searcher.manifest.collections["images"].ann
    path = next(folder.glob("twinlens.index/versions/*/images/ann.faiss"))
    ann = AnnIndex.open(path, plan, vectors)
    figures = []
    for kind in KINDS:
        queries, exact = np.load(folder / f"tune_{kind}.npy"), np.load(folder / f"tune_{kind}_truth.npy")[:, :K]
        figures += compared(kind, grid(ann, queries, exact))
    notes = f"{options.rows:,} CLIP-like vectors of {options.dim} dimensions, {len(queries)} queries, one core."
    record(f"ann_settings_{folder.name.removeprefix('clip-like-')}", figures, notes, folder=options.out)


def grid(ann: AnnIndex, queries: NDArray[np.float32], exact: NDArray[np.int64]) -> list[Measured]:
    """Measure the settings near the recalls asked for, but those that add candidates and find nothing by them."""
    measured: list[Measured] = []
    singly = [query[None] for query in queries[:ALONE]]
    for nprobe in (nprobe for nprobe in NPROBES if nprobe <= ann.max_nprobe // 2):
        before = 0.0
        for oversample in OVERSAMPLES:
            setting = {"nprobe": nprobe, "oversample": oversample}
            found = ann.search(queries, K, **setting)[0]
            recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))
            if recall < LEAST or recall <= before:
                continue
            before = recall
            alone = min(seconds(ann, singly, setting) for _ in range(2)) / len(singly)
            in_batch = min(seconds(ann, [queries], setting) for _ in range(2)) / len(queries)
            measured.append(Measured(nprobe, oversample, recall, alone * 1e6, in_batch * 1e6))
            if recall >= ENOUGH:
                break
        if measured and before >= ENOUGH and measured[-1].oversample <= OVERSAMPLES[0]:
            break
    return measured


def seconds(ann: AnnIndex, batches: list[NDArray[np.float32]], setting: dict[str, int]) -> float:
    started = time.perf_counter()
    for batch in batches:
        ann.search(batch, K, **setting)
    return time.perf_counter() - started


def compared(kind: str, measured: list[Measured]) -> list[Figure]:
    figures = []
    for target in TARGETS:
        able = [one for one in measured if one.recall >= target]
        if able:
            alone, in_batch = min(able, key=lambda one: one.alone), min(able, key=lambda one: one.in_batch)
            what = f"{kind} queries, {target}"
            figures.append(Figure(f"{what}: fastest alone", told(alone, "alone")))
            figures.append(Figure(f"{what}: the same in a batch; fastest there", batch_told(alone, in_batch)))
    return figures


def told(one: Measured, name: str) -> str:
    return f"{getattr(one, name):.0f} us, {one.nprobe} lists, {one.oversample} k candidates, finds {one.recall:.3f}"


def batch_told(alone: Measured, in_batch: Measured) -> str:
    gain = alone.in_batch / in_batch.in_batch - 1
    return f"{alone.in_batch:.0f} us; {told(in_batch, 'in_batch')}: {gain:.1%} less"


if __name__ == "__main__":
    main()
