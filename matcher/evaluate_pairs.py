"""Labelled pairs, true pairs and relevance tables to figures and calibrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluation import evaluate_ranking

from .calibration import Calibration
from .embed import Column
from .errors import DataError, MatcherError
from .matches import Matches
from .negatives import Sampling, cosines, sample_pairs
from .pair_metrics import PAIR_METRICS, pair_figures
from .pairs import Pairs, Reader, column_of, facing, read_pairs
from .tables import SIDES, Roles, Side, cell_key, is_missing, read_table
from .vector_search import InIndex, InMemory

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
    """Distinct items of one side: their number by key, and the row where each comes first."""

    numbers: dict[Any, int]
    rows: list[int]

    @classmethod
    def of(cls, cells: Sequence[Any]) -> Items:
        """Take a column; an item that comes again is the same item."""
        numbers: dict[Any, int] = {}
        rows = []
        for row, cell in enumerate(cells):
            key = cell_key(cell)
            if key not in numbers:
                numbers[key] = len(numbers)
                rows.append(row)
        return cls(numbers=numbers, rows=rows)

    def find(self, cells: Sequence[Any], what: str) -> NDArray[np.int64]:
        """Return for each cell which item it is.

        Raises:
            DataError: One is none of them.
        """
        items = [self.numbers.get(cell_key(cell), -1) for cell in cells]
        if -1 in items:
            row = items.index(-1)
            raise DataError(f"row {row} of the relevance table names {str(cells[row])[:80]!r}, which is not in {what}")
        return np.array(items, dtype=np.int64)


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
    ranked: NDArray[Any], relevant: Sequence[Mapping[Any, float]], options: RankingOptions
) -> dict[str, float | int]:
    """Return `metric@k` for each cutoff and metric, cutoffs outermost, then `queries` and `left_out`.

    Args:
        ranked: (n, m) responses, best first: their rows, or item ids of an index.
        relevant: For each query its responses, named alike, and their gains.
        options: Which figures.

    Raises:
        DataError: No query has a relevant response.
    """
    deepest = max(options.cutoffs)
    padded = np.full((len(ranked), deepest), None if ranked.dtype == object else -1, dtype=ranked.dtype)
    width = min(deepest, ranked.shape[1])
    padded[:, :width] = ranked[:, :width]
    graded = any(gain not in (0, 1) for gains in relevant for gain in gains.values())
    truth: Any = relevant if graded else [[row for row, gain in gains.items() if gain] for gains in relevant]
    try:
        values = evaluate_ranking(padded, truth, options.cutoffs)
    except ValueError as error:
        raise DataError(f"the relevance table cannot be used: {error}") from error
    names = [(name, k) for k in options.cutoffs for name in options.metrics]
    figures = {f"{name}@{k}": values[f"{_ALIASES.get(name, name)}@{k}"] for name, k in names if _applies(name, graded)}
    return figures | {"queries": values["queries"], "left_out": values["left_out"]}


def gains_of(
    query: NDArray[np.int64], response: Sequence[Any], gains: Sequence[float], queries: int
) -> list[dict[Any, float]]:
    """Return for each query the gain of each response; of a pair that comes twice the larger."""
    relevant: list[dict[Any, float]] = [{} for _ in range(queries)]
    for one, other, gain in zip(query.tolist(), response, gains, strict=True):
        relevant[one][other] = max(gain, relevant[one].get(other, 0.0))
    return relevant


def _applies(name: str, graded: bool) -> bool:
    return graded or name != "graded_ndcg"


def _gain(value: Any) -> float:
    try:
        return float("nan") if is_missing(value) else float(value)
    except (TypeError, ValueError):
        return float("nan")


_NO_PAIRS = "there are no labelled pairs to judge"


def judge(
    scores: NDArray[np.float64], calibration: Calibration | None, threshold: float | None, **rest: Any
) -> Matches:
    """Return cosines with what a calibration makes of them; without one they stand alone."""
    if calibration is None:
        nothing = np.full(len(scores), np.nan)
        return Matches(cosine=scores, probability=nothing, match=np.zeros(len(scores), bool), threshold=None, **rest)
    probability, limit = calibration.probability(scores), calibration.threshold if threshold is None else threshold
    return Matches(cosine=scores, probability=probability, match=probability >= limit, threshold=limit, **rest)


def match_readable(reader: Reader, pairs: Pairs) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return (n,) cosines, NaN for pairs that cannot be read, and for each of those the reason."""
    query, response = reader.cells.embed(pairs.query), reader.cells.embed(pairs.response)
    scores = cosines(query.vectors, response.vectors)
    errors: dict[int, str] = {}
    for side, column in ((query, pairs.query), (response, pairs.response)):
        for row, reason in side.errors.items():
            # A row of a file that could not be read is a reason of both columns.
            if reason not in errors.get(row, ""):
                errors[row] = "; ".join(filter(None, (errors.get(row), f"{column.name}: {reason}")))
    scores[sorted(errors)] = np.nan
    return scores, dict(sorted(errors.items()))


def known_pairs(
    reader: Reader, pairs: Pairs, sampling: Sampling | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return cosines and labels, of labelled pairs their own; to true pairs wrong ones are drawn from them."""
    queries, responses = reader.pairs(pairs)
    if pairs.labels is not None:
        return cosines(queries, responses), pairs.labels
    sides = [Items.of(pairs.keys[side]) for side in SIDES]
    rows = [items.find(pairs.keys[side], side) for items, side in zip(sides, SIDES, strict=True)]
    distinct = np.unique(np.stack(rows, axis=1), axis=0)
    sample = sample_pairs(queries[sides[0].rows], responses[sides[1].rows], distinct, sampling)
    return sample.cosine, sample.label


def pair_report(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], threshold: float, metrics: Sequence[str] | None
) -> dict[str, float]:
    """Return figures of judged pairs by name.

    Raises:
        MatcherError: A metric is unknown.
        DataError: All labels are equal.
    """
    names = PAIR_METRICS if metrics is None else tuple(metrics)
    unknown = next((name for name in names if name not in PAIR_METRICS), None)
    if unknown is not None:
        raise MatcherError(f"pair metric {unknown!r} is unknown; give some of {', '.join(PAIR_METRICS)}")
    figures = pair_figures(probabilities, labels, threshold)
    return {name: figures[name] for name in names}


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """What is ranked, and how it is scored.

    Attributes:
        data: The relevance table, or true pairs.
        query_data: The queries; None takes those of `data`.
        response_data: The responses; None takes those of an index, else those of `data`.
        options: Which figures.
    """

    data: Any
    query_data: Any = None
    response_data: Any = None
    options: RankingOptions

    def turned(self) -> Ranking:
        """Return the same with the sides exchanged."""
        return replace(self, query_data=self.response_data, response_data=self.query_data)


def rank(reader: Reader, ranking: Ranking, directions: Literal["one", "both"], index: Path | None) -> dict[str, Any]:
    """Return the figures of one direction, or of both by name.

    Args:
        reader: Reads and encodes; its roles are the direction where the tables say no other.
        ranking: What is ranked.
        directions: One or both.
        index: Where to search in place of response data.

    Raises:
        MatcherError: An index is to be searched in both directions.
        DataError: The tables do not fit together.
    """
    roles = facing(reader.roles, ranking.query_data, ranking.response_data)
    if directions == "one":
        return _figures(reader.facing(roles), ranking, index)
    if index is not None:
        raise MatcherError("an index is searched in one direction; leave directions out, or evaluate without the index")
    both = [(roles, ranking), (roles.swapped(), ranking.turned())]
    return {one.direction: _figures(reader.facing(one), asked, None) for one, asked in both}


def _figures(reader: Reader, ranking: Ranking, index: Path | None) -> dict[str, float | int]:
    if ranking.query_data is None and ranking.response_data is None and index is None:
        return _rank_distinct(reader, ranking.data, ranking.options)
    return _rank_tables(reader, ranking, index)


def _rank_distinct(reader: Reader, data: Any, options: RankingOptions) -> dict[str, float | int]:
    """Rank the distinct queries of true pairs against their distinct responses."""
    pairs = read_pairs(data, reader.roles, reader.mappings, labelled=False, several=True)
    query_items, response_items = (Items.of(pairs.keys[side]) for side in SIDES)
    queries = _vectors_of(reader, pairs.query, query_items)
    responses = _vectors_of(reader, pairs.response, response_items)
    rows, named = query_items.find(pairs.keys["query"], ""), response_items.find(pairs.keys["response"], "").tolist()
    relevant = gains_of(rows, named, [1.0] * len(pairs), len(queries))
    hits = InMemory(responses).search(queries, max(options.cutoffs))
    return ranking_figures(hits.ids, relevant, options)


def _rank_tables(reader: Reader, ranking: Ranking, index: Path | None) -> dict[str, float | int]:
    """Rank queries against responses, or in an index, and score that by a relevance table."""
    query_data, response_data, options = ranking.query_data, ranking.response_data, ranking.options
    relevance = _Relevance(ranking.data, reader.roles)
    queries = _items(reader, relevance.cells["query"] if query_data is None else query_data, "query")
    query_rows = queries[0].find(relevance.cells["query"], "query_data")
    vectors = _vectors_of(reader, queries[1], queries[0])
    if index is not None and response_data is None:
        hits = InIndex(index, reader.roles, reader.cells.encoder).search(vectors, max(options.cutoffs))
        ranked, named = hits.ids, list(map(str, relevance.cells["response"]))
    else:
        given = relevance.cells["response"] if response_data is None else response_data
        responses = _items(reader, given, "response")
        named = responses[0].find(relevance.cells["response"], "response_data").tolist()
        gallery = InMemory(_vectors_of(reader, responses[1], responses[0]))
        ranked = gallery.search(vectors, max(options.cutoffs)).ids
    relevant = gains_of(query_rows, named, relevance.gains, len(vectors))
    return ranking_figures(ranked, relevant, options)


class _Relevance:
    """The columns of a relevance table: keys of both sides, and the gain of each row."""

    def __init__(self, data: Any, roles: Roles) -> None:
        names = [roles.query, roles.response, *([roles.label] if roles.label else [])]
        table = read_table(data, names, quoting=roles.quoting)
        self.cells: dict[Side, list[Any]] = {side: table.column(roles.column(side)) for side in SIDES}
        self.gains = [1.0] * table.rows
        if roles.label is not None and roles.label in table.columns:
            self.gains = relevance_gains(table.column(roles.label), roles.label)


def _items(reader: Reader, data: Any, side: Side) -> tuple[Items, Column]:
    table = reader.table(data, side)
    cells = table.column(reader.roles.column(side))
    return Items.of(cells), column_of(table, reader.roles, side, cells, reader.mappings)


def _vectors_of(reader: Reader, column: Column, items: Items) -> NDArray[np.float32]:
    return reader.vectors(column)[items.rows]


def check_labels(labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the labels.

    Raises:
        DataError: There are none.
    """
    if labels is None:
        raise DataError(f"{_NO_PAIRS}; name the label column: Matcher(..., label=...)")
    return labels
