"""The approximate index of one collection: candidates from FAISS, hits from the exact re-rank."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from .errors import CorruptIndexError, SearchParameterError
from .exact_search import Ids, Ranking, Scores, Vectors, exact_search, rerank
from .faiss_file import read_ann
from .list_scan import ListScan
from .schema import AnnPlan

# A filter that leaves at most this many values (rows x dim) is answered by comparing them all, exactly: 4 ms on one
# core, which is where probing with a filter, at the width that such a filter needs, costs as much.
NARROW_VALUES = 2_500_000
_MAX_EF = 4096  # a walk through an `hnsw` graph beyond this costs more than comparing every row of most filters

# FAISS's number for the scan that goes through the lists of one query after the other: a tenth quicker for one query
# than the one that shares lists among queries, and equal for many.
_ONE_QUERY_AT_A_TIME = 11


def _one_thread_in_a_fork() -> None:
    """A forked process has none of its parent's OpenMP threads, and GNU's OpenMP would wait for them without end."""
    faiss.omp_set_num_threads(1)


os.register_at_fork(after_in_child=_one_thread_in_a_fork)


class AnnIndex:
    """Answers top-k queries over the vectors of one collection; read only, safe from many threads.

    Search settings travel with each call and are never set on the shared FAISS index. One query runs on the calling
    thread alone; a batch is spread over FAISS's OpenMP threads, whose number is a setting of the calling thread
    (`faiss.omp_set_num_threads`), so a server that searches from many threads sets it to 1 in each of them. In a
    process that was forked the thread that goes on has it at 1; threads that it starts have their own.
    """

    def __init__(self, plan: AnnPlan, vectors: Vectors, index: Any = None) -> None:
        self.plan = plan
        self._vectors = vectors
        self._file = index  # it owns what the two below are parts of
        # The rotation of one query is a product of ours, 14 us; inside FAISS it costs twice that.
        self._index, self._rotation = _lists(index), _rotation(index)
        if isinstance(self._index, faiss.IndexIVFPQFastScan):
            self._index.implem = _ONE_QUERY_AT_A_TIME
        self._scan = ListScan.of(self._index, self._rotation, vectors)
        if self._scan is not None:
            self._scan.let_centroids_go(self._index)
        self._plain_parameters: dict[int, Any] = {}  # by nprobe, of which there are at most as many as lists

    @classmethod
    def open(cls, path: Path | None, plan: AnnPlan, vectors: Vectors) -> AnnIndex:
        """Open the index file that belongs to `vectors`; the kind `flat` has no file, and `path` is not looked at.

        Raises:
            CorruptIndexError: The file is missing, damaged, or was made of other vectors than these.
        """
        if plan.kind == "flat":
            return cls(plan, vectors)
        if path is None:
            raise CorruptIndexError(f"an index of kind {plan.kind!r} needs a file and none was named; build it again")
        rows, entries = vectors.rows, vectors.rows + plan.spilled
        index = read_ann(path, plan.kind, rows=entries, dim=vectors.dim, nlist=plan.nlist, items=rows)
        _check(path, index, plan, vectors)
        return cls(plan, vectors, index)

    @property
    def max_nprobe(self) -> int:
        """The largest `nprobe` that changes anything: all lists, for `hnsw` at most 4096, for `flat` 0."""
        return min(_MAX_EF, self._vectors.rows) if self.plan.kind == "hnsw" else self.plan.nlist

    def search(
        self, queries: NDArray[Any], k: int, *, nprobe: int, oversample: int, rows: Ids | None = None
    ) -> Ranking:
        """Return the `k` best rows of each query, by exact score.

        Args:
            queries: (nq, dim) unit vectors.
            k: How many hits a query.
            nprobe: Lists visited at most (`efSearch` for `hnsw`; not used by `flat`); more is better and dearer. With
                `rows` it stands for the allowed rows that are looked at: a filter that keeps a tenth visits ten times
                as many lists. It grows further for a query that would come back with fewer than min(k, rows) hits.
            oversample: `k * oversample` candidates are scored exactly. 4 to 32 is usual with PQ codes.
            rows: Row ids that a hit may have, ascending; None for all. Few rows are compared one by one, exactly.

        Returns:
            Row ids (nq, k) int64, padded with -1 when the collection (or `rows`) has fewer, and scores (nq, k) float32,
            padded with -inf; best first, equal scores by lower row id.

        Raises:
            SearchParameterError: `k`, `nprobe`, `oversample`, `queries` or `rows` is out of range.
        """
        queries = _checked_queries(queries, self._vectors.dim)
        rows = None if rows is None else _checked_rows(rows, self._vectors.rows)
        flat = self.plan.kind == "flat"
        _check_positive(k=k, oversample=oversample, nprobe=1 if flat else nprobe)
        if flat or (rows is not None and len(rows) <= max(NARROW_VALUES // self._vectors.dim, k)):
            return exact_search(self._vectors, queries, k, rows)
        return self._probe(queries, _ProbeSettings(k=k, nprobe=nprobe, oversample=oversample), rows)

    def candidates(self, queries: NDArray[Any], count: int, *, nprobe: int, k: int) -> Ids:
        """Return the row ids that the codes alone rank first, (nq, count) int64, -1 where there are fewer.

        This is what the re-rank of a search for `k` hits works on; tuning looks at its prefixes. A row that was spilled
        may come twice.

        Raises:
            SearchParameterError: `flat` has no codes; or `queries`, `count`, `nprobe` or `k` is out of range.
        """
        if self.plan.kind == "flat":
            raise SearchParameterError("an index of kind 'flat' has no candidates; use search")
        _check_positive(count=count, nprobe=nprobe, k=k)
        return self._search_codes(_checked_queries(queries, self._vectors.dim), k, count, nprobe, None)

    def _probe(self, queries: Scores, probing: _ProbeSettings, rows: Ids | None) -> Ranking:
        available = self._vectors.rows if rows is None else len(rows)
        # A spilled row may come twice, so that as many more candidates stand for all rows.
        entries = available + self.plan.spilled
        expected, count = min(probing.k, available), min(probing.k * probing.oversample, entries)
        nprobe = -(-probing.nprobe * self._vectors.rows // available)
        allowed = None if rows is None else _mask(rows, self._vectors.rows)
        ids, scores = self._ranked(queries, probing.k, count, nprobe, allowed)
        if _all_found(ids[:, expected - 1]):
            return ids, scores
        widest = entries if self.plan.spilled else count
        while (short := _incomplete(ids, expected)).size and (nprobe < self.max_nprobe or count < widest):
            nprobe, count = 4 * nprobe, min(4 * count, widest)
            ids[short], scores[short] = self._ranked(queries[short], probing.k, count, nprobe, allowed)
        if short.size:
            ids[short], scores[short] = exact_search(self._vectors, queries[short], probing.k, rows)
        return ids, scores

    def _ranked(self, queries: Scores, k: int, count: int, nprobe: int, allowed: NDArray[np.bool_] | None) -> Ranking:
        """Rank the `count` candidates of each query exactly: all of them, or those that a scan says can be hits."""
        if self._scan is not None and self._scan.scores_rows:
            return self._scan.search(queries, k, count, min(nprobe, self.max_nprobe), _bits(allowed))
        return rerank(self._vectors, queries, self._search_codes(queries, k, count, nprobe, allowed), k)

    def _search_codes(self, queries: Scores, k: int, count: int, nprobe: int, allowed: NDArray[np.bool_] | None) -> Ids:
        bits = _bits(allowed)
        if self._scan is not None:
            return self._scan.candidates(queries, k, count, min(nprobe, self.max_nprobe), bits)
        # The selector points into `bits`, which this frame keeps until the search is over.
        selector = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
        parameters = self._parameters(count, min(nprobe, self.max_nprobe), selector)
        if self._rotation is not None:
            queries = self._rotated(queries)
        ids: Ids = self._index.search(queries, count, params=parameters)[1]
        if allowed is not None:
            # FAISS's filters have had holes: nothing leaves here that the filter does not allow.
            ids = np.where((ids >= 0) & allowed[ids], ids, -1)
        return ids

    def _rotated(self, queries: Scores) -> Scores:
        rotated: Scores
        if len(queries) == 1 and self._rotation is not None:
            rotated = (self._rotation @ queries[0])[None]
            return rotated
        # numpy's threads, which wait in a loop for more work, would take half of the cores from FAISS for a while.
        rotated = faiss.downcast_VectorTransform(self._file.chain.at(0)).apply(queries)
        return rotated

    def _parameters(self, count: int, nprobe: int, selector: Mapping[str, Any]) -> Any:
        if self.plan.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(nprobe, count), **selector)
        if selector:
            return faiss.SearchParametersIVF(nprobe=nprobe, **selector)
        # FAISS only reads them, so searches may share them; making one takes a tenth of a quick search.
        if nprobe not in self._plain_parameters:
            self._plain_parameters[nprobe] = faiss.SearchParametersIVF(nprobe=nprobe)
        return self._plain_parameters[nprobe]


def _lists(index: Any) -> Any:
    """The inverted lists behind a rotation; the index itself where there is none."""
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def _rotation(index: Any) -> Scores | None:
    if not isinstance(index, faiss.IndexPreTransform):
        return None
    numbers: Scores = faiss.vector_to_array(faiss.downcast_VectorTransform(index.chain.at(0)).A)
    return numbers.reshape(index.d, index.d)


class _ProbeSettings(NamedTuple):
    """The settings of one search."""

    k: int
    nprobe: int
    oversample: int


def _all_found(ids: Ids) -> bool:
    return (ids.item(0) if len(ids) == 1 else ids.min(initial=0)) >= 0  # a reduction costs more than a few lists


def _incomplete(ids: Ids, expected: int) -> Ids:
    """Queries with fewer hits than there could be."""
    return np.flatnonzero((ids >= 0).sum(axis=1) < expected)


def _mask(rows: Ids, total: int) -> NDArray[np.bool_]:
    allowed = np.zeros(total, dtype=np.bool_)
    allowed[rows] = True
    return allowed


def _bits(allowed: NDArray[np.bool_] | None) -> NDArray[np.uint8] | None:
    return None if allowed is None else np.packbits(allowed, bitorder="little")


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise SearchParameterError(f"{name} is {value!r}; give 1 or more")


def _checked_queries(queries: NDArray[Any], dim: int) -> Scores:
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise SearchParameterError(f"queries have shape {queries.shape}; this index takes (n, {dim}) unit vectors")
    if not np.isfinite(np.vdot(queries, queries)):  # which is not where one number is not, in one pass
        raise SearchParameterError("queries hold NaN or infinity; give unit vectors")
    return queries


def _checked_rows(rows: Ids, total: int) -> Ids:
    rows = np.asarray(rows, dtype=np.int64)
    if rows.size and (rows[0] < 0 or rows[-1] >= total or (np.diff(rows) <= 0).any()):
        raise SearchParameterError(f"rows must be row ids from 0 to {total - 1}, ascending, none twice")
    return rows


def _check(path: Path, index: Any, plan: AnnPlan, vectors: Vectors) -> None:
    """Refuse an index that does not fit the vectors and the plan."""
    checks = [
        ("dim", index.d, vectors.dim),
        ("rows", index.ntotal - plan.spilled, vectors.rows),
        ("metric", index.metric_type, faiss.METRIC_INNER_PRODUCT),
        ("trained", index.is_trained, True),
    ]
    if plan.kind != "hnsw":
        lists = _lists(index)
        checks += [("nlist", lists.nlist, plan.nlist), ("list centroids", lists.quantizer.ntotal, plan.nlist)]
        checks += [("dim", lists.d, vectors.dim), ("rows", lists.ntotal - plan.spilled, vectors.rows)]
        checks += [("metric", lists.metric_type, faiss.METRIC_INNER_PRODUCT)]
    for name, actual, expected in checks:
        if actual != expected:
            raise CorruptIndexError(f"{path} has {name} {actual!r} where {expected!r} is expected; build it again")
