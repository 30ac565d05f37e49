"""The scan of inverted lists in one compiled call: what a query touches fits a core's own cache.

FAISS and NumPy answer a query in five steps, each with tables of its own: 1 MiB for the rotation, as much for the
centroids, and what is read for one pushes the others out of the cache. `list_scan.c` does all in one call, with the
rotation and the centroids as one byte a value; of many centroids 4-bit codes say first which are worth comparing. It
reads the codes where FAISS holds them and finds the same candidates but for rounding, and scores them to the last bit
as `exact_search` does. Queries that come together go through the lists together. Where it was not compiled, on other
processors and for other codes, searches go through FAISS.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from math import lcm
from typing import Any, NamedTuple, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from . import compiled
from .exact_search import Ids, Ranking, Scores, Vectors
from .files.mapped import MappedRows
from .vectors import VectorTable

_NARROW = 192  # dimensions by which lists are first chosen: they hold .99 of what tells CLIP-like centroids apart
_BLOCK = 32
_THREADED = 16  # queries from which on a second thread pays
_SHARE = 128  # queries that a thread takes at most at a time, which go through the lists together
_LISTS, _ROWS, _COMPARED = 32, 600, 32  # of the lists that both are compared in, and results of each
_ALIKE = 0.75  # that they must have in common: rounding changes one of thirty


class ListScan:
    """Finds the rows nearest to queries in an index of kind `ivf-pq4`; read only, safe from many threads.

    Args:
        lists: FAISS's lists, an `IndexIVFPQFastScan`, which the caller keeps alive as long as this.
        rotation: (dim, dim) float32, or None for none.
        vectors: The stored rows.
        lanes: 512 or 256, the bits of the processor's lanes that are used.
    """

    def __init__(self, lists: Any, rotation: Scores | None, vectors: Vectors, lanes: int) -> None:
        stored = vectors.mapped() if isinstance(vectors, VectorTable) else MappedRows()
        self.scores_rows = stored.values is not None  # else it finds candidates, and others score them
        centroids = _centroids(lists.quantizer)
        centre_codes, centre_codebook, centre_blocks = _centre_codes(lists.quantizer)
        narrow_dims = np.arange(vectors.dim, dtype=np.int32) if centre_codes else _widest(centroids)
        narrow_mean = centroids[:, narrow_dims].mean(axis=0)
        narrow, narrow_scale = _bytes(centroids[:, narrow_dims] - narrow_mean)
        turned, turned_scale = (None, None) if rotation is None else _bytes(rotation)
        self.reads_centroids = not centre_codes  # else their bytes tell which lists are visited
        held, numbers = lists.invlists, range(lists.nlist)
        self._scan = compiled.list_scan.prepare(
            *(lanes, vectors.dim, lists.nlist, lists.pq.M, centre_codes, len(narrow_dims)),
            *(vectors.rows, stored.batch_rows, stored.is_large),
            *(turned, turned_scale, narrow, narrow_scale, narrow_mean, narrow_dims),
            centroids if self.reads_centroids else None,
            _codebook(lists.pq),
            np.array([int(held.get_codes(number) or 0) for number in numbers], dtype=np.uint64),
            np.array([int(held.get_ids(number) or 0) for number in numbers], dtype=np.uint64),
            np.array([held.list_size(number) for number in numbers], dtype=np.int64),
            *(centre_codebook, centre_blocks, *stored[2:]),
        )

    @classmethod
    def of(cls, lists: Any, rotation: Scores | None, vectors: Vectors) -> Self | None:
        """Return the scan of these lists; None where it was not compiled, is switched off, or cannot scan them."""
        lanes = compiled.scan_lanes()
        if not lanes or not isinstance(lists, faiss.IndexIVFPQFastScan) or lists.bbs != _BLOCK or lists.pq.M % 4:
            return None
        if not lists.by_residual or not lists.ntotal:
            return None
        if _reads(lists.pq.M, _centre_codes(lists.quantizer)[0], lanes):
            return cls(lists, rotation, vectors, lanes)
        warnings.warn(
            f"FAISS {faiss.__version__} keeps its lists in another way than the compiled scan reads them, so searches "
            "go through FAISS, at half the speed; install another version of either",
            RuntimeWarning,
            stacklevel=2,
        )
        return None

    def let_centroids_go(self, lists: Any) -> None:
        """Free FAISS's floats of the centroids, which are most of what lists take beside their codes, if none is read.

        FAISS cannot search these lists from then on.
        """
        if self.reads_centroids:
            return
        refined = faiss.downcast_index(lists.quantizer)
        held, nothing = faiss.downcast_index(refined.refine_index), faiss.IndexFlatIP(lists.d)
        nothing.this.disown()
        refined.refine_index = nothing
        held.this.own(True)  # and so goes with this frame

    def candidates(
        self, queries: Scores, k: int, count: int, nprobe: int, allowed: NDArray[np.uint8] | None = None
    ) -> Ids:
        """Return the row ids that the codes rank first, best first; (nq, count) int64, -1 for none.

        A row that stands in two lists may come twice, as it takes the place of another in a search.

        A list is passed over where nothing it may have would be among so many of the best found so far as `k` hits
        and `nprobe` lists call for, so that `count` has no part in what is found, but in how much of it is returned.
        """
        return self._search(queries, (nprobe, count, k), allowed, exact=False)[0]

    def search(
        self, queries: Scores, k: int, count: int, nprobe: int, allowed: NDArray[np.uint8] | None = None
    ) -> Ranking:
        """Return what `exact_search.rerank` makes of those candidates: row ids and exact scores, (nq, k) each."""
        return self._search(queries, (nprobe, count, k), allowed, exact=True)

    def _search(
        self, queries: Scores, setting: tuple[int, int, int], allowed: NDArray[np.uint8] | None, *, exact: bool
    ) -> Ranking:
        shape = (len(queries), setting[2] if exact else setting[1])
        ids, scores = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32)

        def some(part: slice) -> None:
            compiled.list_scan.search(
                self._scan, queries[part], len(ids[part]), *setting, allowed, exact, ids[part], scores[part]
            )

        threads = min(faiss.omp_get_max_threads(), len(queries) // _THREADED) if len(queries) > _THREADED else 1
        if threads <= 1:
            some(slice(None))
        else:
            parts = -(-len(queries) // _SHARE)
            parts += -parts % threads  # as many for each thread
            share = -(-len(queries) // parts)
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(some, (slice(start, start + share) for start in range(0, len(queries), share))))
        return ids, scores


@lru_cache
def _reads(codes: int, centre_codes: int, lanes: int) -> bool:
    """Whether lists of so many codes are read as FAISS reads them, whose layout of blocks is its own and may change.

    Found out in small lists of random vectors far from one another: among photographs that look all alike the rounding
    of scores decides who is found, and FAISS and this scan round apart.
    """
    random = np.random.default_rng(codes)
    dim = lcm(2 * codes, max(1, centre_codes))
    centroids = random.standard_normal((_LISTS, dim), dtype=np.float32)
    flat = faiss.IndexFlatIP(dim)
    if centre_codes:
        coded = faiss.IndexPQFastScan(dim, centre_codes, 4, faiss.METRIC_INNER_PRODUCT)
        _set_codebook(coded, random)
        quantizer = faiss.IndexRefineFlat(coded)
        quantizer.k_factor = _LISTS
    else:
        quantizer = flat
    quantizer.add(centroids)
    lists = faiss.IndexIVFPQFastScan(quantizer, dim, _LISTS, codes, 4, faiss.METRIC_INNER_PRODUCT, _BLOCK)
    lists.by_residual = True
    _set_codebook(lists, random)
    rows, query = (random.standard_normal((count, dim), dtype=np.float32) for count in (_ROWS, 1))
    lists.add(rows)
    unstored: Any = _Unstored(_ROWS, dim)
    scan = ListScan(lists, None, unstored, lanes)
    expected = lists.search(query, _COMPARED, params=faiss.SearchParametersIVF(nprobe=_LISTS // 2))[1][0]
    found = scan.candidates(query, _COMPARED, _COMPARED, _LISTS // 2)[0]
    return len({*found.tolist()} & {*expected.tolist()}) >= _ALIKE * _COMPARED


def _set_codebook(coded: Any, random: np.random.Generator) -> None:
    """Make an index ready for codes without training it: random centroids do where only their layout counts."""
    faiss.copy_array_to_vector(random.standard_normal(coded.pq.centroids.size(), dtype=np.float32), coded.pq.centroids)
    coded.is_trained = True


class _Unstored(NamedTuple):
    """Rows that are nowhere stored, of which only candidates are found."""

    rows: int
    dim: int


def _widest(centroids: Scores) -> NDArray[np.int32]:
    """The dimensions along which the centroids differ most, in their order."""
    return np.sort(np.argsort(-centroids.var(axis=0), kind="stable")[:_NARROW]).astype(np.int32)


def _bytes(rows: Scores) -> tuple[NDArray[np.int8], Scores]:
    """Rows as one byte a value, and what a step of each row's bytes is worth."""
    steps = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    return np.rint(rows / steps[:, None]).astype(np.int8, order="C"), steps.astype(np.float32)


def _centroids(quantizer: Any) -> Scores:
    """The centroids where FAISS holds them, (lists, dim) float32; they live as long as the quantizer."""
    quantizer = faiss.downcast_index(quantizer)
    flat = faiss.downcast_index(getattr(quantizer, "refine_index", quantizer))
    if not isinstance(flat, faiss.IndexFlat):
        return np.ascontiguousarray(quantizer.reconstruct_n(0, quantizer.ntotal))
    held: Scores = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    return held


def _centre_codes(quantizer: Any) -> tuple[int, Scores | None, NDArray[np.uint8] | None]:
    """How many codes a centroid has, their codebook, and their blocks; 0, None, None where centroids have none."""
    base = getattr(faiss.downcast_index(quantizer), "base_index", None)
    codes = None if base is None else faiss.downcast_index(base)
    if not isinstance(codes, faiss.IndexPQFastScan) or codes.bbs != _BLOCK or codes.pq.M % 4 or codes.pq.nbits != 4:
        return 0, None, None
    size = -(-codes.ntotal // _BLOCK) * codes.pq.M * _BLOCK // 2
    blocks = faiss.rev_swig_ptr(codes.codes.get(), size).copy()
    return codes.pq.M, _codebook(codes.pq), blocks


def _codebook(quantizer: Any) -> Scores:
    """The centroids of the codes, (codes, dimensions of a code, centroids) float32."""
    centroids = faiss.vector_to_array(quantizer.centroids).reshape(quantizer.M, quantizer.ksub, quantizer.dsub)
    return np.ascontiguousarray(centroids.transpose(0, 2, 1), dtype=np.float32)
