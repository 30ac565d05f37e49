"""Train, fill and write the approximate index of a collection, within a stated amount of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from storage.exact_search import Ids, Vectors, to_float32
from storage.faiss_file import write_ann
from storage.schema import AnnPlan

from ..errors import BuildError
from .codes_on_device import DeviceCoder, add_codes, learned_codebook, set_codebook
from .kmeans import ROUNDS, add_to_lists, list_centroids, lists_of, train_centroids
from .plan import FAST_CENTROIDS, minimum_rows, pq_width
from .rotation import Seen, pq_rotation, turn, with_rotation
from .spill import spill
from .two_levels import MANY, TwoLevels, train_many_centroids

_CHUNK_ROWS = 65536
_SMALLEST_CHUNK_ROWS = 1024
_TRAIN_ROWS_A_LIST_AT_LEAST = 39  # FAISS's own advice for k-means
_PQ_POINTS_A_CENTRE = 256  # more find nothing more
_NOT_BY_LIST = ("hnsw", "ivf-rabitq")  # a graph, and codes that are packed as they come
_PRODUCT_CODES = ("ivf-pq", "ivf-pq4")
_HNSW_BYTES_A_ROW = 300  # 64 neighbours on the lowest level and a few above
_CENTRE_WIDTH = 4  # dimensions of one code of a centroid
_CENTRES_SCORED = 4  # for each list that a query visits
_BASE_BYTES = 96 << 20  # the libraries' own work space

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """How many rows are in memory at once."""

    sample_rows: int
    chunk_rows: int


def build_ann(
    vectors: Vectors,
    plan: AnnPlan,
    path: Path,
    *,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
    queries: NDArray[np.float32] | None = None,
    device: str | None = None,
) -> AnnPlan:
    """Train and fill the index of `plan` and write it to `path`; FAISS's ids are the row ids.

    Args:
        vectors: The stored vectors, unit length.
        plan: From `plan_ann`. For `flat` nothing is written.
        path: Where the file goes.
        memory_bytes: Shrink the training sample and the chunks until `estimate_memory` is below this.
        progress: Called with (rows added so far, all rows).
        queries: (n, dim) unit vectors of another modality that will be searched with, to spill rows for (`ivf-pq4`
            alone, and where memory allows); see `spill`. Not those that the recall is going to be measured with.
        device: Torch's name of a GPU that finds the list centroids and each row's list, and for `ivf-pq` and `ivf-pq4`
            learns the codebook and makes the codes, but those of spilled entries; None for FAISS on the CPU, which
            also does what the memory of the device does not suffice for.

    Returns:
        The plan with the number of rows that it was really trained on, and of entries that were spilled.

    Raises:
        BuildError: `memory_bytes` is too small for any sample; the message says how much is needed.
        StorageError: The disk is full or failing.
    """
    if plan.kind == "flat":
        return plan
    work = fit_memory(plan, vectors.rows, vectors.dim, memory_bytes)
    plan = replace(plan, train_rows=work.sample_rows)
    index, rotation = _trained(vectors, plan, device)
    seen = Seen(vectors, rotation)
    spilling = plan.kind == "ivf-pq4" and queries is not None and _spill_fits(plan, vectors, work, memory_bytes)
    # Into lists of our choosing entries go in plain order only; FastScan's blocks are packed from them in the end.
    late = plan.kind == "ivf-pq4" and (spilling or device is not None or plan.nlist >= MANY)
    if plan.kind == "ivf-pq4" and not late:
        index = faiss.IndexIVFPQFastScan(index)
    if plan.kind in _PRODUCT_CODES and device is not None:
        _add_coded(index, seen, work.chunk_rows, progress, plan, device)
    else:
        finder = None if plan.kind in _NOT_BY_LIST else _finder(index, plan, device)
        _add(index, seen, work.chunk_rows, progress, finder)
    if spilling and queries is not None:
        plan = replace(plan, spilled=spill(index, seen, queries))
    index = faiss.IndexIVFPQFastScan(index) if late else index
    with _quick_centroids(index, plan):
        write_ann(index if rotation is None else with_rotation(index, rotation), path)
    return plan


@contextmanager
def _quick_centroids(index: Any, plan: AnnPlan) -> Iterator[None]:
    """Let queries find the centroids of their lists by 4-bit codes, and score the best exactly, where there are many.

    The lists of rows were chosen by comparing all centroids; only queries use the codes, which name the same lists but
    one in a thousand.
    """
    if plan.kind != "ivf-pq4" or plan.nlist < FAST_CENTROIDS:
        yield
        return
    plain = index.quantizer
    centroids = plain.reconstruct_n(0, index.nlist)
    width = _centre_width(index.d)
    codes = faiss.IndexPQFastScan(index.d, index.d // width, 4, faiss.METRIC_INNER_PRODUCT)
    _set_clustering(codes.pq.cp, 0)
    with _threads(1):
        codes.train(centroids)
    fast = faiss.IndexRefineFlat(codes)
    fast.k_factor = _CENTRES_SCORED
    fast.add(centroids)
    index.quantizer = fast
    try:
        yield
    finally:
        index.quantizer = plain  # which the index owns, and `quick` it does not


def _spill_fits(plan: AnnPlan, vectors: Vectors, work: Work, memory_bytes: int | None) -> bool:
    """Spilling holds the codes twice for a while, as they are added to and as they are searched, and lists of rows."""
    rows, dim = vectors.rows, vectors.dim
    need = _adding_bytes(plan, rows, dim, work.chunk_rows) + _index_bytes(plan, rows, dim) + 4 * rows
    return memory_bytes is None or need <= memory_bytes


def estimate_memory(plan: AnnPlan, rows: int, dim: int) -> int:
    """Return about how many bytes `build_ann` needs at its peak: the index and its training sample or one chunk.

    The stored vectors are memory-mapped: the pages of them that the system keeps are not counted, it takes them back
    when it needs them.
    """
    if plan.kind == "flat":
        return 0
    return max(_training_bytes(plan.train_rows, dim), _adding_bytes(plan, rows, dim, min(rows, _CHUNK_ROWS)))


def _training_bytes(sample_rows: int, dim: int) -> int:
    # The sample, and FAISS's copies of it for k-means and for what is left of it after the list centroids.
    return _BASE_BYTES + 3 * sample_rows * dim * 4


def _adding_bytes(plan: AnnPlan, rows: int, dim: int, chunk_rows: int) -> int:
    # The chunk, rotated, FAISS's copy less the list centroids, and the float16 rows and codes that stand between them.
    return _BASE_BYTES + _index_bytes(plan, rows, dim) + 4 * chunk_rows * dim * 4


def _index_bytes(plan: AnnPlan, rows: int, dim: int) -> int:
    if plan.kind == "hnsw":
        return rows * (2 * dim + _HNSW_BYTES_A_ROW)
    lists = plan.nlist * dim * 4
    # Lists grow by doubling, so half of their room may be empty; each entry has an 8-byte id.
    return lists + rows * (_code_bytes(plan, dim) + 8) * 3 // 2


def _code_bytes(plan: AnnPlan, dim: int) -> int:
    match plan.kind:
        case "ivf-pq4":
            return (dim // pq_width(plan.kind, dim) + 1) // 2
        case "ivf-pq":
            return dim // pq_width(plan.kind, dim)
        case "ivf-rabitq":
            return (dim + 7) // 8 + 12
        case _:
            return 2 * dim


def fit_memory(plan: AnnPlan, rows: int, dim: int, memory_bytes: int | None) -> Work:
    """Return the largest sample and chunk that fit, each found by halving.

    Raises:
        BuildError: Not even the smallest useful ones fit; the message says how much they need.
    """

    def training(count: int) -> int:
        return _training_bytes(count, dim)

    def adding(count: int) -> int:
        return _adding_bytes(plan, rows, dim, count)

    largest = min(rows, _CHUNK_ROWS)
    smallest = Work(
        sample_rows=min(plan.train_rows, max(_TRAIN_ROWS_A_LIST_AT_LEAST * plan.nlist, minimum_rows(plan.kind))),
        chunk_rows=min(largest, _SMALLEST_CHUNK_ROWS),
    )
    limit = math.inf if memory_bytes is None else memory_bytes
    need = max(training(smallest.sample_rows), adding(smallest.chunk_rows))
    if need > limit:
        raise BuildError(
            f"a memory limit of {memory_bytes:,} bytes is too small for {plan.factory} over {rows:,} vectors; "
            f"give at least {need:,}, or --ann flat"
        )
    return Work(
        sample_rows=_halved(plan.train_rows, smallest.sample_rows, training, limit),
        chunk_rows=_halved(largest, smallest.chunk_rows, adding, limit),
    )


def _halved(count: int, smallest: int, need: Callable[[int], int], limit: float) -> int:
    while count > smallest and need(count) > limit:
        count = max(smallest, count // 2)
    return count


def _trained(vectors: Vectors, plan: AnnPlan, device: str | None) -> tuple[Any, NDArray[np.float32] | None]:
    """Return the index, and the rotation of what it is going to be given: product codes have one."""
    index = _empty(vectors.dim, plan)
    if plan.kind == "hnsw":
        index.train(np.zeros((1, vectors.dim), dtype=np.float32))  # float16 codes have nothing to learn
        return index, None
    if plan.kind in _PRODUCT_CODES:
        _set_clustering(index.pq.cp, plan.seed)
        index.pq.cp.max_points_per_centroid = _PQ_POINTS_A_CENTRE
    sample, rotation = _sample(vectors, plan.train_rows, plan.seed), None
    if plan.kind in _PRODUCT_CODES:
        rotation = pq_rotation(sample, index.pq.M)
        turn(sample, rotation)
    centroids = _centroids(sample, plan, device)
    index.quantizer.add(centroids)
    if plan.kind in _PRODUCT_CODES and device is not None:
        with suppress(MemoryError):
            set_codebook(index, _codebook(sample, centroids, index.pq, plan.seed, device))
            return index, rotation
    with _threads(1 if plan.kind == "ivf-pq4" else faiss.omp_get_max_threads()):
        index.train(sample)  # it finds the list centroids trained and goes on with the codes
    return index, rotation


def _centroids(sample: NDArray[np.float32], plan: AnnPlan, device: str | None) -> NDArray[np.float32]:
    if device is not None:
        # Hours of encoding do not end because something else has taken the memory of the GPU.
        with suppress(MemoryError):
            return list_centroids(sample, plan.nlist, device=device, rounds=ROUNDS, seed=plan.seed)
    train = train_many_centroids if plan.nlist >= MANY else train_centroids
    return train(sample, plan.nlist, plan.seed)


def _codebook(
    sample: NDArray[np.float32], centroids: NDArray[np.float32], pq: Any, seed: int, device: str
) -> NDArray[np.float32]:
    """Learn the codes from as many rows of the sample as FAISS would."""
    most = _PQ_POINTS_A_CENTRE * pq.ksub
    if len(sample) > most:
        chosen = np.random.default_rng([seed, 19]).choice(len(sample), most, replace=False)
        sample = sample[np.sort(chosen)]
    return learned_codebook(sample, centroids, pq.M, pq.ksub, device=device, rounds=ROUNDS, seed=seed)


def _empty(dim: int, plan: AnnPlan) -> Any:
    if plan.kind not in _PRODUCT_CODES:
        return faiss.index_factory(dim, plan.factory, faiss.METRIC_INNER_PRODUCT)
    # 4-bit codes too are filled in plain order, in which entries may be added to chosen lists, and packed in the end.
    centroids, codes = faiss.IndexFlatIP(dim), dim // pq_width(plan.kind, dim)
    bits = 4 if plan.kind == "ivf-pq4" else 8
    index = faiss.IndexIVFPQ(centroids, dim, plan.nlist, codes, bits, faiss.METRIC_INNER_PRODUCT)
    centroids.this.disown()
    index.own_fields = True
    return index


def _centre_width(dim: int) -> int:
    """How many dimensions a code of a centroid has: the compiled scan reads only codes that come in fours."""
    usual = [width for width in range(1, _CENTRE_WIDTH + 1) if dim % width == 0]
    return max((width for width in usual if dim // width % 4 == 0), default=max(usual))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run FAISS on so many threads: on hundreds of tiny clusterings they wait for each other, ten times as long."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _set_clustering(parameters: Any, seed: int) -> None:
    parameters.niter = ROUNDS
    parameters.seed = seed % (1 << 31)
    parameters.min_points_per_centroid = 1  # the plan has seen to it; FAISS would print a warning


def _sample(vectors: Vectors, count: int, seed: int) -> NDArray[np.float32]:
    """Random rows in row order, so that the memory-mapped file is read once from front to back."""
    if count >= vectors.rows:
        return to_float32(vectors.gather(np.arange(vectors.rows, dtype=np.int64)))
    chosen = np.random.default_rng([seed, 3]).choice(vectors.rows, count, replace=False)
    return to_float32(vectors.gather(np.sort(chosen).astype(np.int64)))


def _finder(index: Any, plan: AnnPlan, device: str | None) -> Callable[[NDArray[np.float32]], Ids | None] | None:
    """Return what finds the list of each row, and is None where it could not; None where FAISS does, as quick."""
    many = plan.nlist >= MANY
    if device is None and not many:
        return None
    centroids = index.quantizer.reconstruct_n(0, index.nlist)
    if device is None:
        return TwoLevels(centroids, plan.seed).lists_of

    def on_device(rows: NDArray[np.float32]) -> Ids | None:
        with suppress(MemoryError):
            return lists_of(rows, centroids, device=device)
        return None

    return on_device


def _add(
    index: Any,
    seen: Seen,
    chunk_rows: int,
    progress: Progress | None,
    finder: Callable[[NDArray[np.float32]], Ids | None] | None,
) -> None:
    total = seen.stored.rows
    for start in range(0, total, chunk_rows):
        ids = np.arange(start, min(start + chunk_rows, total), dtype=np.int64)
        rows = seen.rows(ids)
        lists = None if finder is None else finder(rows)
        if lists is None:
            index.add(rows)
        else:
            add_to_lists(index, rows, ids, lists)
        if progress is not None:
            progress(start + len(ids), total)


def _add_coded(index: Any, seen: Seen, chunk_rows: int, progress: Progress | None, plan: AnnPlan, device: str) -> None:
    """Add all rows with the lists and codes that a device finds, or FAISS where it can not, while the next are read."""
    try:
        coder = DeviceCoder(*_tables(index), seen.rotation, device=device)
    except MemoryError:
        _add(index, seen, chunk_rows, progress, _finder(index, plan, None))
        return
    total = seen.stored.rows
    chunks = [np.arange(start, min(start + chunk_rows, total), dtype=np.int64) for start in range(0, total, chunk_rows)]
    with ThreadPoolExecutor(1, thread_name_prefix="read-vectors") as reader:
        ahead = reader.submit(seen.stored.gather, chunks[0])
        for ids, following in zip(chunks, [*chunks[1:], None], strict=True):
            stored = ahead.result()
            if following is not None:
                ahead = reader.submit(seen.stored.gather, following)
            try:
                lists, codes = coder.coded(stored)
            except MemoryError:
                index.add(seen.turned(to_float32(stored)))
            else:
                add_codes(index, ids, lists, codes)
            if progress is not None:
                progress(int(ids[-1]) + 1, total)


def _tables(index: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the list centroids and the codebook, (codes, ksub, width)."""
    codebook = faiss.vector_to_array(index.pq.centroids).reshape(index.pq.M, index.pq.ksub, index.pq.dsub)
    return index.quantizer.reconstruct_n(0, index.nlist), codebook
