"""From ready-made vectors to an index: the build on the GPU beside that on the same machine's CPU, and its parts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
from clip_like import ClipLike

from gpu.meters import Stages, utilisation
from gpu.notes import Run

T = TypeVar("T")
CHUNK = 250_000
SAMPLE = 64  # rows for each centroid
FOR_CODES = 64 * 256  # rows that learn the codes


def vectors_1m(run: Run) -> None:
    """A million CLIP-like vectors, the centroids and lists of their index, and the build on the CPU."""
    rows = run.pick(1_000_000, 30_000)
    folder = made(run, rows)
    build_of_vectors(run, folder, rows, run.device)
    with run.notes.part("centroids and lists"):
        run.notes.need(30)
        clustering(run, folder, run.pick(4096, 64))
    if run.device != "cpu":
        build_of_vectors(run, folder, rows, "cpu")


def vectors_10m(run: Run) -> None:
    """Ten million: on the GPU first, and on the CPU where time is left."""
    rows = run.pick(10_000_000, 60_000)
    folder = made(run, rows)
    build_of_vectors(run, folder, rows, run.device)
    if run.device != "cpu" and run.notes.left > 200:
        build_of_vectors(run, folder, rows, "cpu")


def made(run: Run, rows: int) -> Path:
    """Return a new folder with vectors and queries."""
    folder = run.work / f"vectors-{rows}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _, seconds = timed(lambda: write_clip_like(folder, rows, run.device))
    run.notes.fact(f"seconds to make {rows:,} vectors", seconds)
    return folder


def build_of_vectors(run: Run, folder: Path, rows: int, device: str) -> None:
    from indexer import build_index
    from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

    with run.notes.part(f"{rows:,} vectors, build on {device}"):
        run.notes.need(20)
        images, texts = (EmbeddingFiles(vectors=folder / f"{name}.npy") for name in ("images", "texts"))
        source = EmbeddingSource(EmbeddingOptions(images=images, texts=texts))
        stages, index = Stages(), folder / f"index-{device.replace(':', '-')}"
        with utilisation(run, f"{rows:,} vectors, build on {device}"):
            report = build_index(source, index, progress=stages, device=device, min_ann_recall=0.0)
        run.notes.figure(f"{rows:,} vectors: build on {device}", report.seconds, "s")
        for name, took in stages.done().items():
            run.notes.figure(f"{rows:,} vectors on {device}: {name}", took, "s")
        run.notes.fact(f"{rows:,} on {device}: plan", str(report.manifest.collections["images"].ann))
        recall(run, folder, index, f"{rows:,} vectors on {device}")


def recall(run: Run, folder: Path, index: Path, name: str) -> None:
    from searcher import Searcher

    with Searcher.open(index, verify="size") as searcher:
        for kind, direction in (("text_queries", "text_to_image"), ("image_queries", "image_to_image")):
            queries: Any = np.load(folder / f"{kind}.npy")[: run.pick(500, 50)]
            known = searcher.search_vectors("images", queries, 10, exact=True)[0]
            found = searcher.search_vectors("images", queries, 10, direction=direction, ann_recall=0.95)[0]
            share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, known, strict=True)])
            told = f"{name}, {direction}: ann_recall@10 at 0.95, unseen queries"
            run.notes.figure(told, float(share), asked=">= 0.95")


def clustering(run: Run, folder: Path, nlist: int) -> None:
    """Centroids, lists of rows, and adding rows to their lists, each beside FAISS on the CPU."""
    from indexer.ann.kmeans import list_centroids, lists_of

    notes, device = run.notes, run.device
    images = np.load(folder / "images.npy").astype(np.float32)
    rows = np.random.default_rng(0).choice(len(images), min(len(images), SAMPLE * nlist), replace=False)
    sample = images[np.sort(rows)]
    centroids, trained = timed(lambda: list_centroids(sample, nlist, device=device))
    notes.figure(f"{nlist} list centroids from {len(sample):,} rows", trained, "s")
    again = np.array_equal(centroids, list_centroids(sample, nlist, device=device))
    notes.figure("the same centroids a second time, to the bit", bool(again), asked="True")
    theirs = faiss.Kmeans(images.shape[1], nlist, niter=10, spherical=True, max_points_per_centroid=SAMPLE)
    notes.figure(f"{nlist} list centroids by FAISS on the CPU", timed(lambda: theirs.train(sample))[1], "s")
    for name, found in (("here", centroids), ("by FAISS", theirs.centroids)):
        nearest = lists_of(sample, found, device=device)
        cosine = float((sample * found[nearest]).sum(1).mean())
        notes.figure(f"mean cosine of a row to its centroid, found {name}", cosine)
    lists, seconds = timed(lambda: lists_of(images, centroids, device=device))
    notes.figure(f"lists of {len(images):,} rows", seconds, "s")
    few = images[:10_000]
    same = float((lists_of(few, centroids, device="cpu") == lists[: len(few)]).mean())
    notes.figure("share of lists that are the CPU's", same, asked="> 0.999")
    adding(run, images, sample, lists, nlist)


def adding(run: Run, images: np.ndarray, sample: np.ndarray, lists: np.ndarray, nlist: int) -> None:
    from indexer.ann.kmeans import add_to_lists

    index = faiss.index_factory(images.shape[1], f"IVF{nlist},PQ256x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(sample[:FOR_CODES])
    other = faiss.clone_index(index)
    _, seconds = timed(lambda: add_to_lists(index, images, np.arange(len(images)), lists))
    run.notes.figure("adding those rows to their lists", seconds, "s")
    run.notes.figure("finding lists and adding, by FAISS on the CPU", timed(lambda: other.add(images))[1], "s")
    coding(run, images, sample[:FOR_CODES], other)


def coding(run: Run, images: np.ndarray, sample: np.ndarray, index: Any) -> None:
    """The codebook and the codes made on the device, beside those that FAISS made on the CPU."""
    from indexer.ann.codes_on_device import DeviceCoder, learned_codebook

    notes, pq, centroids = run.notes, index.pq, index.quantizer.reconstruct_n(0, index.nlist)
    books = {"by FAISS": faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)}
    books["here"], seconds = timed(lambda: learned_codebook(sample, centroids, pq.M, pq.ksub, device=run.device))
    notes.figure(f"codebook of {pq.M} codes from {len(sample):,} rows", seconds, "s")
    again = np.array_equal(books["here"], learned_codebook(sample, centroids, pq.M, pq.ksub, device=run.device))
    notes.figure("the same codebook a second time, to the bit", bool(again), asked="True")
    stored, few, errors = images.astype(np.float16), images[:10_000], {}
    for name, book in books.items():
        coder = DeviceCoder(centroids, book, None, device=run.device)
        (lists, codes), seconds = timed(lambda coder=coder: coder.coded(stored))
        faiss.copy_array_to_vector(book.reshape(-1), pq.centroids)
        residuals = few - centroids[lists[: len(few)]]
        errors[name] = float(((residuals - pq.decode(codes[: len(few)])) ** 2).sum(1).mean())
        same = float((pq.compute_codes(residuals) == codes[: len(few)]).mean())
        notes.figure(f"share of bytes that are FAISS's, codebook {name}", same, asked="> 0.999")
    notes.figure(f"lists and codes of {len(images):,} rows", seconds, "s")
    notes.figure("squared error beside that of FAISS's codebook", errors["here"] / errors["by FAISS"], asked="< 1.02")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what some work gives, and its wall seconds; the result must not be left on a device."""
    began = time.perf_counter()
    value = work()
    return value, time.perf_counter() - began


def write_clip_like(folder: Path, rows: int, device: str) -> None:
    """The vectors of `clip_like.write_vectors`, drawn on the device, which takes seconds in place of minutes."""
    import torch

    world = ClipLike(0)
    centres, width, individual, basis, mean = (
        torch.from_numpy(np.ascontiguousarray(value)).to(device)
        for value in (world.centres, world.width, world.individual, world.basis, world.image_mean)
    )
    cumulated = torch.from_numpy(np.cumsum(world.shares)).to(device)
    random = torch.Generator(device).manual_seed(0)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", "<f2", (rows, len(basis)))
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        drawn = torch.rand(count, generator=random, device=device, dtype=torch.float64)
        concept = torch.searchsorted(cumulated, drawn).clamp(max=len(centres) - 1)
        own = torch.randn(count, len(basis), generator=random, device=device) * individual
        found = (centres[concept] + own * width[concept, None]) @ basis + mean
        images[start : start + count] = torch.nn.functional.normalize(found, dim=1).half().cpu().numpy()
    images.flush()
    numbers = np.random.default_rng([0, 3])
    np.save(folder / "texts.npy", world.captions(world.deviations(2_000, numbers), numbers))
    deviations = world.deviations(1_000, numbers)
    np.save(folder / "image_queries.npy", world.images(deviations))
    np.save(folder / "text_queries.npy", world.captions(deviations, numbers))
