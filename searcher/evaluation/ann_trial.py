"""Recall and cost of searches through the approximate index, measured with the calls that a user makes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import ann_recall, evaluate_ranking
from storage.schema import TARGETS, Collection, Direction, OperatingPoint
from storage.version import IndexVersion

from ..operating_points import choose
from ..request import SearchOptions, SearchRequest
from ..searcher import Searcher
from .ground_truth import GroundTruth, Rows

DEPTH = 10  # of ann_recall and of the operating points that are measured
_BATCH = 2048
_TIMED = 64
# The curve is drawn from so many queries at most: each operating point searches with all of them.
_CURVE_QUERIES = 5000


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One direction of an index with its ground truth; only queries with relevant items are searched."""

    searcher: Searcher
    version: IndexVersion
    truth: GroundTruth
    direction: Direction
    k: tuple[int, ...]
    ann_recall: float | None = None

    def figures(self) -> dict[str, Any]:
        """Return what searches find at the setting that the searcher chooses.

        Returns:
            The metrics of `evaluate_ranking` for each k, `ann_recall@10`, `ms_per_query` (the median of single
            queries, wall time), `choice` (how the searcher went about it) and `operating_points`: for each measured
            setting of the index `nprobe`, `oversample`, R@k for each k up to 10, `ann_recall@10`, `ms_per_query` and
            `queries`, a sample of at most 5,000; `curve_exact` holds the R@k of exact search for that same sample.

        Raises:
            SearchError: A k is above what a search may ask for.
        """
        depth = min(max(*self.k, DEPTH), len(self.gallery))
        request = SearchRequest(k=depth, ann_recall=self.ann_recall, where=self.where)
        choice = choose(self._info, self.direction, request, None if self.where is None else len(self.gallery))
        settings: SearchOptions = {"ann_recall": self.ann_recall}
        ranked = self._ranked(self.queries, depth, settings)
        figures = evaluate_ranking(ranked, self.relevant, self.k)
        figures["left_out"] = len(self.truth.rows[self.source]) - len(self.query_positions)
        figures["ann_recall@10"] = 1.0 if choice.exact else ann_recall(ranked[:, :DEPTH], self._exact)
        figures["ms_per_query"] = self._milliseconds(depth, settings)
        curve = self._curve(choice.exact)
        exact = {"curve_exact": self._hits(self._exact[self.sampled])} if curve else {}
        return figures | {"choice": choice.to_json(), "operating_points": curve} | exact

    @property
    def target(self) -> Collection:
        """What is searched."""
        return TARGETS[self.direction]

    @property
    def source(self) -> Collection:
        """The query vectors."""
        return "texts" if self.target == "images" else "images"

    @property
    def where(self) -> str | None:
        """The filter of the split."""
        return self.truth.where[self.target]

    @property
    def gallery(self) -> Rows:
        """Row ids of the gallery."""
        return self.truth.rows[self.target]

    @cached_property
    def query_positions(self) -> Rows:
        """Places within the gallery of the queries that something answers, ascending."""
        return np.unique(self._ends[0])

    @cached_property
    def queries(self) -> NDArray[np.float32]:
        """Their stored vectors, (n, dim)."""
        rows = self.truth.rows[self.source][self.query_positions]
        return self.version.vectors(self.source).gather(rows).astype(np.float32)

    @cached_property
    def relevant(self) -> list[list[int]]:
        """For each query the row ids that answer it."""
        positions, targets = self._ends
        order = np.argsort(positions, kind="stable")
        starts = np.searchsorted(positions[order], self.query_positions)
        rows = self.gallery[targets[order]]
        return [part.tolist() for part in np.split(rows, starts[1:])]

    @cached_property
    def sampled(self) -> Rows:
        """Which of the queries the curve is drawn from."""
        return _sample(len(self.query_positions), _CURVE_QUERIES)

    @property
    def _ends(self) -> tuple[Rows, Rows]:
        images, texts = self.truth.pairs.T
        return (texts, images) if self.target == "images" else (images, texts)

    @property
    def _info(self) -> Any:
        return self.version.manifest.collections[self.target]

    @cached_property
    def _exact(self) -> Rows:
        """The exact ten best rows of each query."""
        return self._ranked(self.queries, min(DEPTH, len(self.gallery)), {"exact": True})

    def _ranked(self, queries: NDArray[np.float32], depth: int, settings: SearchOptions) -> Rows:
        """Row ids (n, depth) that searches give, padded with -1."""
        parts = [self._search(queries[i : i + _BATCH], depth, settings) for i in range(0, len(queries), _BATCH)]
        ids = np.concatenate(parts)
        ranked = np.full(ids.shape, -1, dtype=np.int64)
        known = ids != None  # noqa: E711  an elementwise comparison
        ranked[known] = self.version.vectors(self.target).find(ids[known].tolist())
        return ranked

    def _search(self, queries: NDArray[np.float32], depth: int, settings: SearchOptions) -> NDArray[np.object_]:
        options: SearchOptions = {**settings, "where": self.where}
        return self.searcher.search_vectors(self.target, queries, depth, direction=self.direction, **options)[0]

    def _milliseconds(self, depth: int, settings: SearchOptions) -> float:
        """The median wall time of one query at a time, over a sample; the first, which loads the index, not counted."""
        costs = []
        for row in [0, *_sample(len(self.query_positions), _TIMED).tolist()]:
            started = time.perf_counter()
            self._search(self.queries[row : row + 1], depth, settings)
            costs.append((time.perf_counter() - started) * 1e3)
        return round(float(np.median(costs[1:])), 4)

    def _curve(self, exact: bool) -> list[dict[str, Any]]:
        """Every operating point of the manifest that was measured for ten hits, cheapest first."""
        tuning = self._info.tuning.get(self.direction)
        # Where every vector is compared no setting plays a part.
        if tuning is None or (exact and (self._info.ann.kind == "flat" or self.where is not None)):
            return []
        nearest = min((point.k for point in tuning.points), key=lambda k: (k < DEPTH, abs(k - DEPTH)), default=0)
        return [self._point(point) for point in tuning.points if point.k == nearest]

    def _point(self, point: OperatingPoint) -> dict[str, Any]:
        settings: SearchOptions = {"nprobe": point.nprobe, "oversample": point.oversample}
        depth = min(DEPTH, len(self.gallery))
        ranked = self._ranked(self.queries[self.sampled], depth, settings)
        figures: dict[str, Any] = {"nprobe": point.nprobe, "oversample": point.oversample, **self._hits(ranked)}
        figures["ann_recall@10"] = ann_recall(ranked, self._exact[self.sampled])
        return figures | {"ms_per_query": self._milliseconds(depth, settings), "queries": len(ranked)}

    def _hits(self, ranked: Rows) -> dict[str, float]:
        """R@k of rankings of the sampled queries, for each k that they are deep enough for."""
        shallow = [k for k in self.k if k <= ranked.shape[1]]
        if not shallow:
            return {}
        figures = evaluate_ranking(ranked, [self.relevant[row] for row in self.sampled.tolist()], shallow)
        return {f"R@{k}": figures[f"R@{k}"] for k in shallow}


def through_index(
    searcher: Searcher,
    version: IndexVersion,
    truth: GroundTruth,
    k: Sequence[int],
    ann_recall_target: float | None = None,
) -> dict[str, Any]:
    """Return the figures of both directions, as `Trial.figures` gives them.

    Args:
        searcher: The searcher of the version.
        version: The open version.
        truth: Its ground truth.
        k: How deep to look.
        ann_recall_target: The `ann_recall` to request; None for the searcher's default.
    """
    both: tuple[Direction, ...] = ("text_to_image", "image_to_text")
    common: dict[str, Any] = {"searcher": searcher, "version": version, "truth": truth, "k": tuple(k)}
    return {name: Trial(**common, direction=name, ann_recall=ann_recall_target).figures() for name in both}


def _sample(total: int, limit: int) -> Rows:
    """Return at most `limit` of `total` positions, ascending: a seeded random sample, since captions come in fives."""
    if total <= limit:
        return np.arange(total, dtype=np.int64)
    return np.sort(np.random.default_rng(total).choice(total, limit, replace=False)).astype(np.int64)
