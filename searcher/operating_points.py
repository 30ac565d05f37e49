"""Choosing an operating point: the cheapest measured setting that is sure to reach the recall asked for.

A recall is measured on some hundred queries, and the cheapest of many settings that reach what was asked for is one
that was lucky with these. So a setting counts from the lower end of its interval: one-sided, 95 of 100, by Wilson's
formula ("Probable inference, the law of succession, and statistical inference", JASA 1927). A query's share of its k
neighbours varies less than one throw of a coin and more than the mean of k independent ones: on CLIP-like and on
real vectors its variance was at most .42 of r (1 - r) for k = 10 and .18 for k = 100; `_variance` says as much or more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from storage.schema import CollectionInfo, Direction, OperatingPoint, Tuning

from .request import SearchRequest

NOT_WIDENED: Mapping[Direction, int] = MappingProxyType({})

_Z = 1.645  # 95 of 100 of a normal distribution lie below so many standard deviations
_NARROW_ROWS = 5_000
_NARROW_SHARE = 0.01
_DEFAULT_OVERSAMPLE = 16


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a search is carried out, and what may be expected of it.

    Attributes:
        kind: The family of the approximate index.
        exact: Every vector (that passes the filter) is compared; `nprobe` and `oversample` then mean nothing.
        nprobe: Lists visited a query at most.
        oversample: Candidates are `k * oversample`.
        ann_recall: What this setting found when it was measured; None where it never was.
        k: The number of hits that it was measured with; None where it never was.
        reason: Why this setting, in a few words.
        filtered_rows: Rows that pass the filter; None without a filter.
        score_within: How far a score may be from that of the float16 vector, where the index stores one byte a value;
            else None.
    """

    kind: str
    exact: bool
    nprobe: int = 0
    oversample: int = 0
    ann_recall: float | None = None
    k: int | None = None
    reason: str
    filtered_rows: int | None = None
    score_within: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a flat JSON object; the settings that play no part are null, `score_within` is left out."""
        said = {} if self.score_within is None else {"score_within": self.score_within}
        return said | {
            "kind": self.kind,
            "exact": self.exact,
            "nprobe": None if self.exact else self.nprobe,
            "oversample": None if self.exact else self.oversample,
            "ann_recall": self.ann_recall,
            "k": self.k,
            "reason": self.reason,
            "filtered_rows": self.filtered_rows,
        }


def choose(
    info: CollectionInfo,
    direction: Direction | None,
    request: SearchRequest,
    filtered_rows: int | None = None,
    widened: Mapping[Direction, int] = NOT_WIDENED,
) -> Choice:
    """Return the setting for one search.

    In this order: `exact=True`, a `flat` index and a narrow filter compare every vector. `nprobe` and `oversample`
    given by the caller are taken as they are. Otherwise it is the cheapest measured point of this direction that is
    sure to reach the recall asked for. Where too few queries were measured to be sure, it is the point of the highest
    recall, and where none reaches it at all, or nothing was measured, every vector is compared again.

    A filter that lets through the share s of the rows leaves the k best at about rank k / s of the whole collection, so
    the lists to visit are those that were measured for so many hits.

    Args:
        info: The collection that is searched.
        direction: What is searched with what; None for vectors of unknown origin, which take the weakest direction.
        request: What the caller asked for.
        filtered_rows: Rows that pass the filter; None without one.
        widened: How many operating points wider than the cheapest to go, by direction, where searches were found to
            miss more than was measured. Each is the cheapest that misses at most half as much as the one before;
            beyond the last every vector is compared.
    """
    reason = _why_exact(info, request, filtered_rows)
    if reason is None and request.nprobe is None and request.oversample is None:
        choice = _measured(info, direction, request, filtered_rows, widened)
    elif reason is None:
        choice = _given(info, direction, request)
    else:
        choice = _exact(info, reason)
    return replace(choice, filtered_rows=filtered_rows)


def _exact(info: CollectionInfo, reason: str) -> Choice:
    return Choice(kind=info.ann.kind, exact=True, ann_recall=1.0, reason=reason)


def _why_exact(info: CollectionInfo, request: SearchRequest, filtered_rows: int | None) -> str | None:
    if request.exact:
        return "asked for"
    if info.ann.kind == "flat":
        return "a flat index compares every vector"
    if filtered_rows is not None and filtered_rows <= max(_NARROW_ROWS, int(_NARROW_SHARE * info.rows)):
        return "the filter leaves few enough rows to compare them all"
    return None


def _measured(
    info: CollectionInfo,
    direction: Direction | None,
    request: SearchRequest,
    filtered_rows: int | None,
    widened: Mapping[Direction, int],
) -> Choice:
    tunings = _tunings(info.tuning, direction)
    if not tunings:
        return _exact(info, f"{direction or 'no direction'} was never measured in this index")
    share = 1.0 if filtered_rows is None else filtered_rows / info.rows
    depth = math.ceil(request.k / share)
    recall, steps = request.expected_recall, max(widened.get(name, 0) for name in tunings)
    beyond = f", {steps} wider, since searches found less" if steps else ""
    found = [cheapest(one, depth, recall, widened.get(name, 0)) for name, one in tunings.items()]
    points = [point for point in found if point]
    if len(points) < len(tunings):
        return _exact(info, f"no measured setting reaches ann_recall {recall:g}{beyond}")
    point = max(points, key=lambda point: point.ms_per_query)
    return Choice(
        kind=info.ann.kind,
        exact=False,
        nprobe=_widened(info, point, depth, filtered_rows),
        oversample=point.oversample,
        ann_recall=point.ann_recall if filtered_rows is None else None,
        k=point.k,
        reason=f"the cheapest measured setting that reaches ann_recall {recall:g}{beyond}",
    )


def _tunings(tuning: Mapping[Direction, Tuning], direction: Direction | None) -> dict[Direction, Tuning]:
    return {name: one for name, one in tuning.items() if direction in (None, name) and one.points}


def points_for(tuning: Tuning, k: int) -> list[OperatingPoint]:
    """Return the points measured for the smallest measured k that covers `k`, else for the largest; cheapest first."""
    measured = sorted({point.k for point in tuning.points})
    nearest = next((one for one in measured if one >= k), measured[-1])
    return sorted((point for point in tuning.points if point.k == nearest), key=lambda point: point.ms_per_query)


def cheapest(tuning: Tuning, k: int, recall: float, steps: int = 0) -> OperatingPoint | None:
    """Return the cheapest point that is sure to reach a recall, else the best of those that do.

    For each step the cheapest beyond it that misses half as much.
    """
    points = points_for(tuning, k)
    reaching = [point for point in points if point.ann_recall >= recall]
    sure = (point for point in reaching if _at_least(point, tuning.queries) >= recall)
    found = next(sure, max(reaching, key=lambda point: point.ann_recall, default=None))
    for _ in range(steps):
        if found is None:
            break
        wanted, least = (1 + found.ann_recall) / 2, found.ann_recall
        found = next((point for point in points if point.ann_recall >= wanted and point.ann_recall > least), None)
    return found


def _at_least(point: OperatingPoint, queries: int) -> float:
    """The lower end of the interval of a recall that was measured on so many queries."""
    throws = queries / _variance(point.k)
    middle = point.ann_recall + _Z**2 / (2 * throws)
    spread = _Z * math.sqrt(point.ann_recall * (1 - point.ann_recall) / throws + (_Z / (2 * throws)) ** 2)
    return (middle - spread) / (1 + _Z**2 / throws)


def _variance(k: int) -> float:
    """Of one query's recall r, as a share of r (1 - r)."""
    return min(1.0, max(0.2, 4 / k))


def _widened(info: CollectionInfo, point: OperatingPoint, depth: int, filtered_rows: int | None) -> int:
    """More lists where the filter reaches deeper than was measured: as many times more as there are more ranks."""
    if filtered_rows is None or depth <= point.k:
        return point.nprobe
    return min(math.ceil(point.nprobe * depth / point.k), info.ann.nlist or info.rows)


def _given(info: CollectionInfo, direction: Direction | None, request: SearchRequest) -> Choice:
    points = [point for tuning in _tunings(info.tuning, direction).values() for point in points_for(tuning, request.k)]
    best = max(points, key=lambda point: (point.ann_recall, -point.ms_per_query), default=None)
    nprobe = request.nprobe or (best.nprobe if best else info.ann.nlist or 64)
    oversample = request.oversample or (best.oversample if best else _DEFAULT_OVERSAMPLE)
    same = [point for point in points if (point.nprobe, point.oversample) == (nprobe, oversample)]
    return Choice(
        kind=info.ann.kind,
        exact=False,
        nprobe=min(nprobe, info.ann.nlist) if info.ann.nlist else nprobe,
        oversample=oversample,
        ann_recall=min((point.ann_recall for point in same), default=None),
        k=same[0].k if same else None,
        reason="nprobe or oversample given by the caller",
    )
