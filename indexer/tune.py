"""Measure what a search costs and finds, with the queries that will come, and keep the settings worth choosing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from storage.ann import AnnIndex
from storage.rerank import Ids, Scores, Vectors, exact_search, score_candidates
from storage.spec import OperatingPoint, Tuning

KS = (10, 100)
_OVERSAMPLES = (1, 2, 4, 8, 16, 32, 64)
_MOST_CANDIDATES = 3200
_MOST_QUERIES = 1000
_TIMED_QUERIES = 24
_BUDGET_SECONDS = 30.0  # wider probing is not tried after this long; what was measured stands
_GOOD_ENOUGH = 0.9995


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """One point of the grid, found but not yet timed."""

    k: int
    nprobe: int
    oversample: int
    ann_recall: float


def tune(
    ann: AnnIndex,
    vectors: Vectors,
    queries: NDArray[Any],
    *,
    source: str,
    ks: Sequence[int] = KS,
    self_rows: Ids | None = None,
) -> Tuning:
    """Measure `ann_recall@k` and milliseconds over a grid of `nprobe` x `oversample`.

    The truth is the exact search over the stored vectors. A hit counts when its exact score reaches that of the k-th
    best row, so that ties cannot lower a recall. Nothing is fitted to the queries but the choice of points, hence no
    held-out part: with 500 queries the standard error of a recall of 0.95 is about half a point.

    Args:
        ann: The index to measure.
        vectors: The vectors it was made of.
        queries: (nq, dim) unit vectors of one direction; at most 1000, evenly spaced, are used.
        source: Where they came from: `corpus`, `bank` or `given`.
        ks: Numbers of hits to measure with; those that the collection cannot give are left out. When none remains,
            all its rows are asked for.
        self_rows: For queries that are stored in this collection themselves: their row ids, which are left out of the
            truth and of the hits.

    Returns:
        The Pareto front for each k, cheapest first; no points when there is nothing to find or to ask.
    """
    picked = np.unique(np.linspace(0, len(queries) - 1, min(len(queries), _MOST_QUERIES)).astype(np.int64))
    queries = np.ascontiguousarray(queries, dtype=np.float32)[picked]
    own = np.full(len(queries), -1, dtype=np.int64) if self_rows is None else np.asarray(self_rows, np.int64)[picked]
    available = vectors.rows - (0 if self_rows is None else 1)
    if not len(queries) or available < 1:
        return Tuning(query_source=source, queries=len(queries), points=())
    fitting = [k for k in ks if k <= available] or [available]
    settings = _settings(ann, vectors, queries, own, fitting)
    points = [point for k in fitting for point in _front(_timed(ann, queries, _worthwhile(settings, k)))]
    return Tuning(query_source=source, queries=len(queries), points=tuple(points))


def _settings(ann: AnnIndex, vectors: Vectors, queries: Scores, own: Ids, ks: Sequence[int]) -> list[_Setting]:
    if ann.plan.kind == "flat":
        return [_Setting(k=k, nprobe=0, oversample=1, ann_recall=1.0) for k in ks]
    if ann.plan.kind == "hnsw":  # asking for 100 widens the walk, which would flatter 10
        return [setting for k in ks for setting in _grid(ann, vectors, queries, own, [k])]
    return _grid(ann, vectors, queries, own, ks)


def _grid(ann: AnnIndex, vectors: Vectors, queries: Scores, own: Ids, ks: Sequence[int]) -> list[_Setting]:
    """Recall of every setting: one search for each nprobe, whose prefixes stand for every oversample."""
    truth = exact_search(vectors, queries, max(ks), exclude=own)[1]
    count = max(k * max(_oversamples(ann, k, vectors.rows)) for k in ks)
    started, settings = time.perf_counter(), list[_Setting]()
    for nprobe in _nprobes(ann, max(ks)):
        scores = _candidate_scores(ann, vectors, queries, own, count, nprobe)
        found = [_recalls(scores, truth[:, k - 1], k, nprobe, _oversamples(ann, k, vectors.rows)) for k in ks]
        settings += [setting for line in found for setting in line]
        reached = min(max(setting.ann_recall for setting in line) for line in found)
        if reached >= _GOOD_ENOUGH or time.perf_counter() - started > _BUDGET_SECONDS:
            break
    return settings


def _recalls(scores: Scores, kth: Scores, k: int, nprobe: int, oversamples: Sequence[int]) -> list[_Setting]:
    found = np.minimum(np.cumsum(scores >= kth[:, None], axis=1), k)
    settings = []
    for oversample in oversamples:
        last = min(k * oversample, scores.shape[1]) - 1
        recall = float(found[:, last].mean() / k)
        settings.append(_Setting(k=k, nprobe=nprobe, oversample=oversample, ann_recall=recall))
    return settings


def _candidate_scores(ann: AnnIndex, vectors: Vectors, queries: Scores, own: Ids, count: int, nprobe: int) -> Scores:
    """Exact scores of the candidates in the order of their codes, the query's own row moved to the end as -inf."""
    found = ann.candidates(queries, min(count + 1, vectors.rows), nprobe=nprobe)
    is_own = found == own[:, None]
    found = np.where(is_own, -1, found)
    order = np.argsort(is_own, axis=1, kind="stable")
    return score_candidates(vectors, queries, np.take_along_axis(found, order, axis=1))


def _oversamples(ann: AnnIndex, k: int, rows: int) -> list[int]:
    """Those within the limit on candidates, up to the first that covers all rows; `hnsw` walks exact scores: one."""
    if ann.plan.kind == "hnsw":
        return [1]
    return [o for o in _OVERSAMPLES if o == 1 or (k * o <= _MOST_CANDIDATES and k * (o // 2) < rows)]


def _nprobes(ann: AnnIndex, k: int) -> list[int]:
    if ann.plan.kind == "hnsw":
        return [ef for ef in (16, 32, 64, 128, 256, 512, 1024, 2048) if ef >= k] or [k]
    powers = [1 << power for power in range(ann.max_nprobe.bit_length())]
    return powers if powers[-1] == ann.max_nprobe else [*powers, ann.max_nprobe]


def _worthwhile(settings: Sequence[_Setting], k: int) -> list[_Setting]:
    """Settings of this k that no setting with as little or less probing and re-ranking equals in recall."""
    mine = [setting for setting in settings if setting.k == k]
    return [setting for setting in mine if not any(_dominates(other, setting) for other in mine)]


def _dominates(one: _Setting, other: _Setting) -> bool:
    return (
        one is not other
        and one.nprobe <= other.nprobe
        and one.oversample <= other.oversample
        and one.ann_recall >= other.ann_recall
    )


def _timed(ann: AnnIndex, queries: Scores, settings: Sequence[_Setting]) -> list[OperatingPoint]:
    """Median milliseconds of one query at a time on one thread, re-rank included."""
    step = max(1, len(queries) // _TIMED_QUERIES)
    points = []
    with _one_thread():
        for setting in settings:
            costs = [_milliseconds(ann, query[None], setting) for query in queries[::step][:_TIMED_QUERIES]]
            points.append(
                OperatingPoint(
                    k=setting.k,
                    nprobe=setting.nprobe,
                    oversample=setting.oversample,
                    ann_recall=round(setting.ann_recall, 5),
                    ms_per_query=round(float(np.median(costs)), 4),
                )
            )
    return points


def _milliseconds(ann: AnnIndex, query: Scores, setting: _Setting) -> float:
    started = time.perf_counter()
    ann.search(query, setting.k, nprobe=setting.nprobe, oversample=setting.oversample)
    return (time.perf_counter() - started) * 1e3


@contextmanager
def _one_thread() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _front(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Cheapest first, each with more recall than all before it."""
    front: list[OperatingPoint] = []
    for point in sorted(points, key=lambda p: (p.ms_per_query, -p.ann_recall)):
        if not front or point.ann_recall > front[-1].ann_recall:
            front.append(point)
    return front
