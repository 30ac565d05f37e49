"""Ranking queries against responses, scored by a table of what is relevant to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import evaluate_ranking

from .cells import cell_key, is_missing
from .errors import DataError, MatcherError

RANKING_METRICS = ("ndcg", "map", "recall", "precision", "mrr", "R")
# `graded_ndcg` is there where labels are more than 0 and 1.
_KNOWN = (*RANKING_METRICS, "graded_ndcg")
_ALIASES = {"hit_rate": "R"}


@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """Which figures a ranking is to give.

    Attributes:
        metrics: Of ndcg, map, recall, precision, mrr, R (also called hit_rate) and graded_ndcg, in this order.
        cutoffs: How deep to look, one figure of each metric for each.
    """

    metrics: Sequence[str] = RANKING_METRICS
    cutoffs: Sequence[int] = (1, 5, 10)

    def __post_init__(self) -> None:
        """Refuse unknown metrics and empty cutoffs.

        Raises:
            MatcherError: One is wrong; the message names it.
        """
        if isinstance(self.metrics, str):
            raise MatcherError(f"metrics={self.metrics!r} is one name; give a list: [{self.metrics!r}]")
        unknown = next((name for name in self.metrics if _ALIASES.get(name, name) not in _KNOWN), None)
        if unknown is not None or not self.metrics:
            raise MatcherError(f"ranking metric {unknown!r} is unknown; give some of {', '.join(_KNOWN)}")
        wrong = next((k for k in self.cutoffs if not isinstance(k, int | np.integer) or k < 1), None)
        if wrong is not None or not len(self.cutoffs):
            raise MatcherError(f"cutoffs={list(self.cutoffs)!r} must be whole numbers from 1 on, such as (1, 5, 10)")


@dataclass(frozen=True, kw_only=True)
class Items:
    """Distinct items of one side: their keys in order, and where each first stood in the data."""

    place: dict[Any, int]
    rows: list[int]

    @classmethod
    def of(cls, cells: Sequence[Any]) -> Items:
        """Take a column; an item that comes again is the same item."""
        place: dict[Any, int] = {}
        rows = []
        for row, cell in enumerate(cells):
            key = cell_key(cell)
            if key not in place:
                place[key] = len(place)
                rows.append(row)
        return cls(place=place, rows=rows)

    def find(self, cells: Sequence[Any], what: str) -> NDArray[np.int64]:
        """Return for each cell which item it is.

        Raises:
            DataError: One is none of them.
        """
        found = [self.place.get(cell_key(cell), -1) for cell in cells]
        if -1 in found:
            row = found.index(-1)
            raise DataError(f"row {row} of the relevance table names {str(cells[row])[:80]!r}, which is not in {what}")
        return np.array(found, dtype=np.int64)


def relevance_gains(values: Sequence[Any], name: str) -> list[float]:
    """Return labels of a relevance table as gains: 0 is not relevant, 1 is, more is more.

    Raises:
        DataError: One is no number from 0 on.
    """
    gains = [_gain(value) for value in values]
    row = next((row for row, gain in enumerate(gains) if not np.isfinite(gain) or gain < 0), None)
    if row is not None:
        raise DataError(f"row {row}, column {name!r}: {values[row]!r} is no relevance; give numbers from 0 on")
    return gains


def ranking_figures(
    ranked: NDArray[np.int64], relevant: Sequence[Mapping[int, float]], options: RankingOptions
) -> dict[str, float | int]:
    """Return `metric@k` for each cutoff and metric, cutoffs outermost, then `queries` and `left_out`.

    Args:
        ranked: (n, m) rows of responses, best first.
        relevant: For each query its responses and their gains.
        options: Which figures.

    Raises:
        DataError: No query has a relevant response.
    """
    deepest = max(options.cutoffs)
    padded = np.full((len(ranked), deepest), -1, dtype=np.int64)
    width = min(deepest, ranked.shape[1])
    padded[:, :width] = ranked[:, :width]
    graded = any(gain not in (0, 1) for gains in relevant for gain in gains.values())
    truth: Any = relevant if graded else [[row for row, gain in gains.items() if gain] for gains in relevant]
    try:
        found = evaluate_ranking(padded, truth, options.cutoffs)
    except ValueError as error:
        raise DataError(f"the relevance table cannot be used: {error}") from error
    wanted = [(name, k) for k in options.cutoffs for name in options.metrics]
    figures = {f"{name}@{k}": found[f"{_ALIASES.get(name, name)}@{k}"] for name, k in wanted if _there(name, graded)}
    return figures | {"queries": found["queries"], "left_out": found["left_out"]}


def gains_of(
    query: NDArray[np.int64], response: NDArray[np.int64], gains: Sequence[float], queries: int
) -> list[dict[int, float]]:
    """Return for each query the gain of each response; of a pair that comes twice the larger."""
    relevant: list[dict[int, float]] = [{} for _ in range(queries)]
    for asked, found, gain in zip(query.tolist(), response.tolist(), gains, strict=True):
        relevant[asked][found] = max(gain, relevant[asked].get(found, 0.0))
    return relevant


def _there(name: str, graded: bool) -> bool:
    return graded or name != "graded_ndcg"


def _gain(value: Any) -> float:
    try:
        return float("nan") if is_missing(value) else float(value)
    except (TypeError, ValueError):
        return float("nan")
