"""Tuning of operating points: recall and cost over a grid of settings, measured with real queries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from storage.ann import AnnIndex
from storage.exact_search import Ids, Scores, Vectors, exact_search, score_candidates
from storage.schema import OperatingPoint, Tuning

from .exact_on_device import exact_search_on

NOWHERE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Truth:
    """The `depth` best rows of each query, by the exact search; made by `of`.

    Where rows have equal scores any of them will do, so that an image that is stored a thousand times cannot lower a
    recall.
    """

    vectors: Vectors
    queries: Scores
    self_rows: Ids
    ids: Ids
    scores: Scores

    @classmethod
    def of(cls, vectors: Vectors, queries: Scores, depth: int, self_rows: Ids, device: str | None = None) -> Truth:
        """Search for the neighbours of `queries`; `self_rows` (nq,) has for each a row that it may not find, or -1."""
        if device is not None:
            with suppress(MemoryError):
                ids, scores = exact_search_on(vectors, queries, depth + 1, self_rows, device=device)
                return cls(vectors, queries, self_rows, ids, scores)
        ids, scores = exact_search(vectors, queries, depth + 1, exclude=self_rows)
        return cls(vectors, queries, self_rows, ids, scores)

    def positions(self, candidates: Ids) -> Ids:
        """Return (nq, depth): the place among a query's candidates of each of its best rows, `NOWHERE` if not there.

        Args:
            candidates: (nq, m) row ids, -1 where there is none; an id may come twice, and then its first place counts.
                The query's own row takes no place.
        """
        depth = self.ids.shape[1] - 1
        positions = np.full((len(candidates), depth), NOWHERE, dtype=np.int64)
        rank = np.full(self.vectors.rows + 1, depth, dtype=np.int32)  # one more for -1, the last
        tied = (self.scores[:, 1:] == self.scores[:, :-1]).any(axis=1)
        for line, (ids, self_row) in enumerate(zip(candidates, self.self_rows, strict=True)):
            ids = ids[ids != self_row] if self_row >= 0 else ids
            if tied[line]:
                positions[line] = self._tied_positions(line, ids)
                continue
            rank[self.ids[line, :depth]] = np.arange(depth)
            ranks = rank[ids]
            hits = np.flatnonzero(ranks < depth)[::-1]  # backwards: the first place is the last to be written
            positions[line, ranks[hits]] = hits
            rank[self.ids[line, :depth]] = depth
        return positions

    def _tied_positions(self, line: int, ids: Ids) -> Ids:
        """The same by score: the first candidates with a score take the ranks with that score."""
        depth = self.ids.shape[1] - 1
        positions = np.full(depth, NOWHERE, dtype=np.int64)
        scores = score_candidates(self.vectors, self.queries[line : line + 1], ids[None])[0]
        again = np.ones(len(ids), dtype=np.bool_)
        again[np.unique(ids, return_index=True)[1]] = False
        scores[again] = -np.inf
        for score in np.unique(self.scores[line, :depth]):
            ranks = np.flatnonzero(self.scores[line, :depth] == score)
            first = np.flatnonzero(scores == score)[: len(ranks)]
            positions[ranks[: len(first)]] = first
        return positions


KS = (10, 100)
_OVERSAMPLES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128)
_FINER = (16, 32, 64, 128, 256)  # between these and the next are four steps and not two: most recalls lie there
_MOST_CANDIDATES = 3200
_MOST_QUERIES = 1000
_TIMED_QUERIES, _ROUNDS = 16, 3
_BUDGET_SECONDS = 30.0  # after this long only powers of two are tried, so that high recalls are still reached
_MOST_SECONDS = 240.0  # wider probing is not tried after this long, once most is found; what was measured stands
_GOOD_ENOUGH = 0.9995  # of the smallest k
_GOOD_FOR_MORE = 0.995  # of the others, whose last half percent would take most of the time
_LITTLE = 0.001  # two wider settings that gain less, at a high recall, say that the codes and not the lists decide
_MOST_FOUND = 0.95
_FEW_SETTINGS = 12
_NEARLY = 1.3  # how much more than the cheapest an estimate may say and the setting still be timed


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """One point of the grid, with its recall, not yet timed."""

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
    device: str | None = None,
) -> Tuning:
    """Measure `ann_recall@k` and milliseconds over a grid of `nprobe` x `oversample`.

    The truth is the exact search over the stored vectors. A hit counts when its exact score reaches that of the k-th
    best row, so that ties cannot lower a recall. Nothing is fitted to the queries but the choice of points, hence no
    held-out part: with 1,000 queries the standard error of a recall of 0.95 is under half a point, and searches take
    the lower end of its interval.

    Args:
        ann: The index to measure.
        vectors: The vectors it was made of.
        queries: (nq, dim) unit vectors of one direction; at most 1000, evenly spaced, are used.
        source: Where they came from: `corpus`, `bank` or `given`.
        ks: Numbers of hits to measure with; those that the collection cannot give are left out. When none remains,
            all its rows are asked for.
        self_rows: For queries that are stored in this collection themselves: their row ids, which are left out of the
            truth and of the hits.
        device: Torch's name of a GPU that finds the truth; None for the CPU.

    Returns:
        The Pareto front for each k, cheapest first; no points when there is nothing to find or to ask.
    """
    picked = np.unique(np.linspace(0, len(queries) - 1, min(len(queries), _MOST_QUERIES)).astype(np.int64))
    queries = np.ascontiguousarray(queries, dtype=np.float32)[picked]
    nowhere = np.full(len(queries), -1, dtype=np.int64)
    excluded = nowhere if self_rows is None else np.asarray(self_rows, np.int64)[picked]
    available = vectors.rows - (0 if self_rows is None else 1)
    if not len(queries) or available < 1:
        return Tuning(query_source=source, queries=len(queries), points=())
    fitting = [k for k in ks if k <= available] or [available]
    settings = _settings(ann, lambda depth: Truth.of(vectors, queries, depth, excluded, device), fitting)
    points = [point for k in fitting for point in _front(_timed(ann, queries, _promising(ann, queries, settings, k)))]
    return Tuning(query_source=source, queries=len(queries), points=tuple(points))


def _settings(ann: AnnIndex, truth_of: Callable[[int], Truth], ks: Sequence[int]) -> list[_Setting]:
    if ann.plan.kind == "flat":
        return [_Setting(k=k, nprobe=0, oversample=1, ann_recall=1.0) for k in ks]
    if ann.plan.kind == "hnsw":  # asking for 100 widens the walk, which would flatter 10
        return [setting for k in ks for setting in _grid(ann, truth_of(k), [k])]
    return _grid(ann, truth_of(max(ks)), ks)


def _grid(ann: AnnIndex, truth: Truth, ks: Sequence[int]) -> list[_Setting]:
    """Recall of every setting: a search for each nprobe and k, whose prefixes stand for every oversample."""
    rows = truth.vectors.rows
    started, settings, history = time.perf_counter(), list[_Setting](), list[list[float]]()
    for nprobe in _nprobes(ann, max(ks)):
        seconds = time.perf_counter() - started
        if seconds > _BUDGET_SECONDS and nprobe & (nprobe - 1):
            continue
        grid = [_recalls(ann, truth, k, nprobe, _oversamples(ann, k, rows)) for k in ks]
        settings += [setting for line in grid for setting in line]
        history.append([max(setting.ann_recall for setting in line) for line in grid])
        if _is_enough(history) or (seconds > _MOST_SECONDS and history[-1][0] >= _MOST_FOUND):
            break
    return settings


def _is_enough(history: Sequence[Sequence[float]]) -> bool:
    """Whether wider probing can add next to nothing, from the best recall of each k at each width so far."""
    reached = history[-1]
    if reached[0] >= _GOOD_ENOUGH and min(reached) >= _GOOD_FOR_MORE:
        return True
    if len(history) < 3 or min(reached) < _MOST_FOUND:
        return False
    return all(now - before < _LITTLE for now, before in zip(reached, history[-3], strict=True))


def _recalls(ann: AnnIndex, truth: Truth, k: int, nprobe: int, oversamples: Sequence[int]) -> list[_Setting]:
    count = min(k * max(oversamples) + 1, truth.vectors.rows + ann.plan.spilled)
    positions = truth.positions(ann.candidates(truth.queries, count, nprobe=nprobe, k=k))
    return [
        _Setting(k=k, nprobe=nprobe, oversample=o, ann_recall=float((positions[:, :k] < k * o).mean()))
        for o in oversamples
    ]


def _oversamples(ann: AnnIndex, k: int, rows: int) -> list[int]:
    """Those within the limit on candidates, up to the first that covers all rows; `hnsw` walks exact scores: one."""
    if ann.plan.kind == "hnsw":
        return [1]
    fitting = [o for o in _OVERSAMPLES if o == 1 or k * o <= _MOST_CANDIDATES]
    return [o for i, o in enumerate(fitting) if i == 0 or k * fitting[i - 1] < rows]


def _nprobes(ann: AnnIndex, k: int) -> list[int]:
    if ann.plan.kind == "hnsw":
        return [ef for ef in (16, 32, 64, 128, 256, 512, 1024, 2048) if ef >= k] or [k]
    powers = [1 << power for power in range(ann.max_nprobe.bit_length())]
    finer = [power * part // 4 for power in powers if power in _FINER for part in (5, 7)]
    steps = sorted({*powers, *(power * 3 // 2 for power in powers), *finer, ann.max_nprobe})
    return [nprobe for nprobe in steps if nprobe <= ann.max_nprobe]


def _worthwhile(settings: Sequence[_Setting], k: int) -> list[_Setting]:
    """Settings of this k that no setting with as little or less probing and re-ranking equals in recall."""
    candidates_at_k = [setting for setting in settings if setting.k == k]
    return [setting for setting in candidates_at_k if not any(_dominates(other, setting) for other in candidates_at_k)]


def _promising(ann: AnnIndex, queries: Scores, settings: Sequence[_Setting], k: int) -> list[_Setting]:
    """Those of them that could be the cheapest for their recall, by a cost that grows with lists and candidates.

    Of many lists the later ones are passed over more often, which the root stands for.
    """
    candidates_at_k = _worthwhile(settings, k)
    if len(candidates_at_k) <= _FEW_SETTINGS:
        return candidates_at_k
    shape = np.array([[1, one.oversample, one.nprobe, math.sqrt(one.nprobe)] for one in candidates_at_k])
    between = {len(candidates_at_k) * part // 4 for part in (1, 2, 3)}
    probes = sorted({int(pick(shape[:, axis])) for axis in (1, 2) for pick in (np.argmin, np.argmax)} | between)
    known = [point.ms_per_query for point in _timed(ann, queries, [candidates_at_k[position] for position in probes])]
    costs = np.maximum(shape @ np.maximum(np.linalg.lstsq(shape[probes], np.array(known))[0], 0), 1e-3)
    recalls = np.array([setting.ann_recall for setting in candidates_at_k])
    best = np.array([costs[recalls >= recall].min() for recall in recalls])
    return [
        setting for setting, cost, least in zip(candidates_at_k, costs, best, strict=True) if cost <= _NEARLY * least
    ]


def _dominates(one: _Setting, other: _Setting) -> bool:
    return (
        one is not other
        and one.nprobe <= other.nprobe
        and one.oversample <= other.oversample
        and one.ann_recall >= other.ann_recall
    )


def _timed(ann: AnnIndex, queries: Scores, settings: Sequence[_Setting]) -> list[OperatingPoint]:
    """Median milliseconds of one query at a time on one thread, re-rank included: the least of a few rounds."""
    step = max(1, len(queries) // _TIMED_QUERIES)
    asked = queries[::step][:_TIMED_QUERIES]
    with _one_thread():
        rounds = [
            [np.median([_milliseconds(ann, query[None], setting) for query in asked]) for setting in settings]
            for _ in range(_ROUNDS)
        ]
    return [
        OperatingPoint(
            k=setting.k,
            nprobe=setting.nprobe,
            oversample=setting.oversample,
            ann_recall=round(setting.ann_recall, 5),
            ms_per_query=round(float(cost), 4),
        )
        for setting, cost in zip(settings, np.min(rounds, axis=0), strict=True)
    ]


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
