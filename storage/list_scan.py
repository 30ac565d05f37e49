"""The scan of inverted lists in one compiled call: what a query touches fits a core's own cache.

FAISS and NumPy answer a query in five steps, each with tables of its own: 1 MiB for the rotation, as much for the
centroids, and what is read for one pushes the others out of the cache. `list_scan.c` does all in one call, with the
rotation and the widest dimensions of the centroids as one byte a value. It reads the codes where FAISS holds them and
finds the same candidates but for rounding, and scores them to the last bit as `exact_search` does. Where it was not
compiled, on other processors and for other codes, searches go through FAISS.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from . import compiled
from .exact_search import Ids, Ranking, Scores, Vectors
from .vectors import VectorTable

_NARROW = 192  # dimensions by which lists are first chosen: they hold .99 of what tells CLIP-like centroids apart
_BLOCK = 32
_THREADED = 16  # queries from which on a second thread pays
_SHARE = 32  # queries that a thread takes at a time
_COMPARED = 32  # results of this scan and of FAISS, when an index is opened
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
        mapped = vectors.mapped() if isinstance(vectors, VectorTable) else None
        flat, starts, batch_rows = mapped or (None, None, 1)
        self.scores_rows = mapped is not None  # else it finds candidates, and others score them
        centroids = np.ascontiguousarray(lists.quantizer.reconstruct_n(0, lists.nlist))
        narrow_dims = _widest(centroids)
        narrow, narrow_scale = _bytes(centroids[:, narrow_dims] - centroids[:, narrow_dims].mean(axis=0))
        turned, turned_scale = (None, None) if rotation is None else _bytes(rotation)
        held, numbers = lists.invlists, range(lists.nlist)
        self._scan = compiled.list_scan.prepare(
            *(lanes, vectors.dim, lists.nlist, lists.pq.M, len(narrow_dims), vectors.rows, batch_rows),
            *(turned, turned_scale, narrow, narrow_scale, narrow_dims, centroids),
            _codebook(lists.pq),
            np.array([int(held.get_codes(number) or 0) for number in numbers], dtype=np.uint64),
            np.array([int(held.get_ids(number) or 0) for number in numbers], dtype=np.uint64),
            np.array([held.list_size(number) for number in numbers], dtype=np.int64),
            starts,
            flat,
        )

    @classmethod
    def of(cls, lists: Any, rotation: Scores | None, vectors: Vectors) -> Self | None:
        """Return the scan of these lists; None where it was not compiled, is switched off, or cannot scan them."""
        lanes = compiled.scan_lanes()
        if not lanes or not isinstance(lists, faiss.IndexIVFPQFastScan) or lists.bbs != _BLOCK or lists.pq.M % 4:
            return None
        if not lists.by_residual or not lists.ntotal:
            return None
        scan = cls(lists, rotation, vectors, lanes)
        return scan if scan._finds_what_faiss_finds(lists, rotation) else None

    def candidates(self, queries: Scores, count: int, nprobe: int, allowed: NDArray[np.uint8] | None = None) -> Ids:
        """Return the row ids that the codes rank first, best first, each once; (nq, count) int64, -1 for none."""
        return self._search(queries, (nprobe, count, 1), allowed, exact=False)[0]

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
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(some, (slice(start, start + _SHARE) for start in range(0, len(queries), _SHARE))))
        return ids, scores

    def _finds_what_faiss_finds(self, lists: Any, rotation: Scores | None) -> bool:
        """Whether both find the same rows of a list: the layout of codes is FAISS's own, and a later one may differ."""
        longest = int(np.argmax([lists.invlists.list_size(number) for number in range(lists.nlist)]))
        turned = lists.quantizer.reconstruct(longest)[None]
        query = turned if rotation is None else turned @ rotation
        probing = faiss.SearchParametersIVF(nprobe=1)
        expected = set(lists.search(turned, _COMPARED, params=probing)[1][0].tolist())
        return len(expected & {*self.candidates(query, _COMPARED, 1)[0].tolist()}) >= _ALIKE * len(expected)


def _widest(centroids: Scores) -> NDArray[np.int32]:
    """The dimensions along which the centroids differ most, in their order."""
    return np.sort(np.argsort(-centroids.var(axis=0), kind="stable")[:_NARROW]).astype(np.int32)


def _bytes(rows: Scores) -> tuple[NDArray[np.int8], Scores]:
    """Rows as one byte a value, and what a step of each row's bytes is worth."""
    steps = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    return np.rint(rows / steps[:, None]).astype(np.int8, order="C"), steps.astype(np.float32)


def _codebook(quantizer: Any) -> Scores:
    """The centroids of the codes, (codes, dimensions of a code, centroids) float32."""
    centroids = faiss.vector_to_array(quantizer.centroids).reshape(quantizer.M, quantizer.ksub, quantizer.dsub)
    return np.ascontiguousarray(centroids.transpose(0, 2, 1), dtype=np.float32)
