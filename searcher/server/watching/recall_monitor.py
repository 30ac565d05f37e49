"""The recall of a server's own searches: some are compared with the exact search while there is nothing else to do.

A build measures operating points with queries that it has; those that come may be others. So one search in N is put
aside, its query vector and the scores of its hits, and a thread looks for the exact hits of these whenever no request
is worked on. Where searches find less than was asked for, the direction is widened.

The thread makes way by itself, and has the priority of all others: one that the system lets wait while it holds
Python's lock would hold up every request.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.exact_search import Vectors, exact_search
from storage.schema import TARGETS, Collection, direction_of

from ...hits import Hits
from ...query import ResolvedQuery
from ...request import SearchRequest
from ..live_index import LiveIndex
from ..metrics import Metrics
from ..snapshot import Snapshot
from .recall_windows import Cell, Estimate, RecallWindow, cell_of

log = logging.getLogger(__name__)

# The share of the time that exact searches may run, whatever the size of the index and the traffic.
_SHARE = 0.01
# Reading the vectors costs more than comparing them: so many queries share one pass.
_BATCH = 16
# What waits beyond this is dropped: the server is too busy, or the index too large, to compare one query in N.
_MOST_WAITING = 64
# How long to wait for the requests that are worked on before the next block, at first and at most.
_PAUSE, _LONGEST_PAUSE = 0.002, 0.1


class Sample(NamedTuple):
    """A search that is to be compared.

    Attributes:
        snapshot: What was searched.
        cell: Where it counts.
        widened: How wide its direction was searched then.
        vector: (dim,) float32, the query.
        scores: (n,) float32, the exact cosines of its hits, in any order.
        k: Hits that were asked for.
        own_row: The item that the query is, which is no hit; -1 for none.
    """

    snapshot: Snapshot
    cell: Cell
    widened: int
    vector: NDArray[np.float32]
    scores: NDArray[np.float32]
    k: int
    own_row: int

    @property
    def into(self) -> Collection:
        """What was searched."""
        return TARGETS[self.cell.direction]


class RecallMonitor:
    """Compares one search in `every` with the exact search, and widens a direction that finds too little.

    `offer` belongs to the event loop; the rest is safe from many threads.
    """

    def __init__(self, live: LiveIndex, metrics: Metrics, every: int) -> None:
        """Set up a monitor, whose thread starts with the first search that is to be compared.

        Args:
            live: The index.
            metrics: What is found is shown there, and whether requests are worked on.
            every: One search in so many is compared, by chance; 0 for none.
        """
        self._live = live
        self._metrics = metrics
        self._every = every
        self._waiting: deque[Sample] = deque()
        self._arrived = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._windows: dict[Cell, RecallWindow] = {}
        self._widened: dict[str, int] = {}
        live.add_listener(self)

    def offer(self, snapshot: Snapshot, request: SearchRequest, query: ResolvedQuery, hits: Hits) -> None:
        """Put a search aside, by chance, where it is one that can be compared."""
        if not self._every or random.random() * self._every >= 1 or not _is_plain(snapshot, request, hits):
            return
        sample = self._sample(snapshot, request, query, hits)
        if sample is None:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._metrics.compared.labels("dropped").inc()
            return
        self._waiting.append(sample)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="twinlens-recall", daemon=True)
            self._thread.start()
        self._arrived.set()

    def swapped(self, snapshot: Snapshot) -> None:
        """Begin anew: another version has other settings."""
        with self._lock:
            self._windows.clear()
            self._widened.clear()
            self._metrics.forget_recall()
            for collection in snapshot.collections:
                for direction in snapshot.searcher.manifest.collections[collection].tuning:
                    self._metrics.fallback.labels(direction).set(0)

    def failed(self) -> None:
        """A version that cannot be opened changes nothing."""

    def close(self) -> None:
        """End the thread; what waits is not compared."""
        self._ended.set()
        self._arrived.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self, snapshot: Snapshot, request: SearchRequest, query: ResolvedQuery, hits: Hits) -> Sample | None:
        own = query.rows_in(hits.collection)
        if query.modality is None or len(own) > 1:
            return None
        direction = direction_of(query.modality, hits.collection)
        cell = cell_of(direction, request.expected_recall, request.k + len(own))
        if cell is None:
            return None
        return Sample(
            snapshot=snapshot,
            cell=cell,
            widened=self._widened.get(direction, 0),
            vector=query.vector,
            scores=hits.scores,
            k=request.k,
            own_row=own[0] if own else -1,
        )

    def _run(self) -> None:
        while not self._ended.is_set():
            self._arrived.wait()
            self._arrived.clear()
            while (batch := self._take()) and not self._ended.is_set():
                began = time.thread_time()
                try:
                    outcome = "measured" if self._compare(batch) else "dropped"
                except Exception as error:  # noqa: BLE001 - whatever goes wrong here is no reason to stop serving
                    log.warning("searches could not be compared with the exact search: %s", error)
                    outcome = "dropped"
                spent = time.thread_time() - began
                self._metrics.compared.labels(outcome).inc(len(batch))
                self._metrics.comparing.inc(spent)
                self._ended.wait(spent * (1 / _SHARE - 1))

    def _take(self) -> list[Sample]:
        """Take what waits and can share one pass over the vectors."""
        batch: list[Sample] = []
        while self._waiting and len(batch) < _BATCH:
            if batch and _pass_of(self._waiting[0]) != _pass_of(batch[0]):
                break
            batch.append(self._waiting.popleft())
        return batch

    def _compare(self, batch: Sequence[Sample]) -> bool:
        """Count what was found by searches of one version; False where another version came meanwhile."""
        with self._live.acquire() as snapshot:
            if snapshot is not batch[0].snapshot:
                return False
            try:
                shares = found_shares(_InTurns(snapshot.vectors(batch[0].into), snapshot, self), batch)
            except _AbandonedError:
                return False
            self._count(snapshot, batch, shares)
        return True

    def _count(self, snapshot: Snapshot, batch: Sequence[Sample], shares: Sequence[tuple[float, int]]) -> None:
        with self._lock:
            if snapshot is not self._live.current:
                return
            counted = set()
            for sample, (share, hits) in zip(batch, shares, strict=True):
                if sample.widened == self._widened.get(sample.cell.direction, 0) and hits:
                    self._windows.setdefault(sample.cell, RecallWindow()).add(share, hits)
                    counted.add(sample.cell)
            for cell in sorted(counted):
                if (window := self._windows.get(cell)) is None:
                    continue  # its direction has just been widened for another recall that was asked for
                self._metrics.show_recall(cell.labels, *window.estimate)
                if window.is_under(cell.ann_recall):
                    self._widen(snapshot, cell, window.estimate)

    def _widen(self, snapshot: Snapshot, cell: Cell, found: Estimate) -> None:
        steps = self._widened[cell.direction] = snapshot.searcher.widen(cell.direction)
        self._metrics.fallback.labels(cell.direction).set(steps)
        for other in [one for one in self._windows if one.direction == cell.direction]:
            del self._windows[other]
            self._metrics.forget_recall(other.labels)
        log.warning(
            "%s: searches for up to %d hits that ask for ann_recall %g found %.3f (%.3f to %.3f, %d of them compared "
            "with the exact search); they take %s from now on, until another version is published",
            *(cell.direction, cell.k, cell.ann_recall, *found),
            "the next wider operating point" if steps == 1 else f"the operating point that is {steps} wider",
        )

    def wait_for_turn(self, snapshot: Snapshot) -> None:
        """Wait until no request is worked on.

        Raises:
            _AbandonedError: The server ends, or the version was replaced.
        """
        pause = _PAUSE
        while not self._ended.is_set() and not snapshot.retired:
            if not self._metrics.at_work:
                return
            self._ended.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise _AbandonedError


class _AbandonedError(Exception):
    """An exact search that nobody needs any more."""


class _InTurns:
    """The vectors of a collection, read only while no request is worked on: a block takes about half a millisecond."""

    def __init__(self, vectors: Vectors, snapshot: Snapshot, monitor: RecallMonitor) -> None:
        self._vectors = vectors
        self._snapshot = snapshot
        self._monitor = monitor
        self.rows, self.dim = vectors.rows, vectors.dim
        self.gather, self.gather_float32 = vectors.gather, vectors.gather_float32

    def chunks(self, size: int = 4096) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield all vectors in row order, each block once it is its turn."""
        for block in self._vectors.chunks(size):
            self._monitor.wait_for_turn(self._snapshot)
            yield block


def found_shares(vectors: Vectors, batch: Sequence[Sample]) -> list[tuple[float, int]]:
    """Return for each search which share of its exact hits it found, and how many those are.

    A hit counts where its score reaches that of the k-th best row: any of equal rows will do.
    """
    queries = np.stack([sample.vector for sample in batch])
    own = np.array([sample.own_row for sample in batch], dtype=np.int64)
    most = min(max(sample.k for sample in batch), vectors.rows)
    _, scores = exact_search(vectors, queries, most, exclude=own)
    # As searches give them: rounding to float16 may leave a cosine just beyond 1.
    np.clip(scores, -1, 1, out=scores, where=np.isfinite(scores))
    shares = []
    for sample, exact in zip(batch, scores, strict=True):
        hits = min(sample.k, int(np.isfinite(exact).sum()))
        found = np.count_nonzero(sample.scores >= exact[hits - 1]) if hits else 0
        shares.append((min(int(found), hits) / max(hits, 1), hits))
    return shares


def _is_plain(snapshot: Snapshot, request: SearchRequest, hits: Hits) -> bool:
    """Whether the hits are the best that an operating point found: all of them, and no others."""
    altered = request.diversity or request.collapse or request.offset or request.words is not None
    floor = (request.min_score, request.min_probability) != (None, None)
    given = (request.nprobe, request.oversample) != (None, None)
    approximate = not hits.choice.exact and request.where is None
    return approximate and not (altered or floor or given) and len(snapshot.versions) == 1


def _pass_of(sample: Sample) -> tuple[int, Collection]:
    return id(sample.snapshot), sample.into
