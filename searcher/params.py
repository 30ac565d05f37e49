"""What a caller may ask of a search, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypedDict

from .errors import SearchError

MAX_K = 10_000
DEFAULT_ANN_RECALL = 0.95
_MAX_NPROBE = 1 << 24
_MAX_OVERSAMPLE = 10_000


class SearchOptions(TypedDict, total=False):
    """The keyword arguments of every search; `SearchParams` says what they mean."""

    where: str | None
    ann_recall: float | None
    nprobe: int | None
    oversample: int | None
    exact: bool
    columns: Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class SearchParams:
    """One search, as asked.

    Attributes:
        k: Hits wanted a query, 1 to 10,000; fewer come back where the collection or the filter has fewer.
        where: A DuckDB predicate on catalog columns, e.g. `width >= 640`; None for all items.
        ann_recall: Share of the exact top k that the search should find, above 0, at most 1; None means 0.95. The
            cheapest measured setting that reaches it is used. Recall and time rise together; 0.9 to 0.99 is usual.
        nprobe: Lists visited a query (`efSearch` for `hnsw`), in place of the measured setting. Leave it alone unless
            you measure.
        oversample: Candidates are `k * oversample`, in place of the measured setting; 4 to 32 is usual with PQ codes.
        exact: Compare every vector: slower, and nothing is missed.
        columns: Metadata columns to bring back with each hit; None for all.
    """

    k: int = 10
    where: str | None = None
    ann_recall: float | None = None
    nprobe: int | None = None
    oversample: int | None = None
    exact: bool = False
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what no index can do.

        Raises:
            SearchError: A value is outside its range; the message names both.
        """
        _check_whole("k", self.k, MAX_K)
        if self.nprobe is not None:
            _check_whole("nprobe", self.nprobe, _MAX_NPROBE)
        if self.oversample is not None:
            _check_whole("oversample", self.oversample, _MAX_OVERSAMPLE)
        if self.ann_recall is not None:
            _check_share(self.ann_recall)
        if isinstance(self.columns, str):
            raise SearchError(
                f"columns={self.columns!r} is one string; give a list of names: columns=[{self.columns!r}]"
            )

    @property
    def wanted_recall(self) -> float:
        """The `ann_recall` asked for, or the default."""
        return DEFAULT_ANN_RECALL if self.ann_recall is None else float(self.ann_recall)


def _check_whole(name: str, value: Any, most: int) -> None:
    if type(value) is int and 1 <= value <= most:
        return  # almost always, and ten times as quick
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= int(value) <= most:
        raise SearchError(f"{name}={value!r} must be a whole number from 1 to {most:,}")


def _check_share(value: Any) -> None:
    # `not 0 < x <= 1` also refuses NaN.
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) <= 1:
        raise SearchError(
            f"ann_recall={value!r} must be above 0 and at most 1, e.g. 0.95; use exact=True to miss nothing"
        )
