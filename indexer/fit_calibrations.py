"""Fitting the calibration of hits on the pairs of the index itself; see `storage.hit_calibration`.

Items with partners stand in for queries. What is present is asked for as it is. What is absent is asked for with the
partners of the query left out of the index, and, for things that are missing as a kind, with all left out whose
partners are most like the query: the nearest 5, 20 and 50 % of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage import VectorTable
from storage.catalog import Catalog
from storage.exact_search import exact_search, to_float32
from storage.files.layout import CATALOG, vectors_name
from storage.hit_calibration import PLAIN_SIGNALS, Calibrations, HitCalibration, HitCurve, Judged, other_collection
from storage.logistic import fit_logistic
from storage.partners import Partners
from storage.schema import COLLECTIONS, Collection, Counts, Direction

from .progress import Progress

FEWEST_QUERIES = 50
"""With fewer pairs nothing is fitted, and hits have no probability."""
_MOST_QUERIES = 500
_SAMPLE = 5_000
_KIND_SHARES = (0.05, 0.2, 0.5)
_RIDGE = 1e-4
_HITS = 10
_ROUNDS = 4
_FITTED: Mapping[Direction, Collection] = {"text_to_image": "images", "image_to_text": "texts"}

Rows = NDArray[np.int64]
Values = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Example:
    """The first hits of a query, rows and cosines (k,), whether one of them fits, and how much the query counts."""

    query: int
    rows: Rows
    scores: Values
    fits: bool
    weight: float


def fit_calibrations(folder: Path, counts: Counts, seed: int, progress: Progress) -> Calibrations:
    """Return the calibrations that the pairs of a draft allow; none where fewer than 50 items have a partner.

    Args:
        folder: Of the draft, where vectors and catalog are.
        counts: Of its items.
        seed: Of the sample of queries.
        progress: Told that it is done.
    """
    if counts.pairs < FEWEST_QUERIES or min(counts.images, counts.texts) < FEWEST_QUERIES:
        return {}
    progress.note("fitting the probability that a hit fits")
    with ExitStack() as stack:
        catalog = stack.enter_context(Catalog.open(folder / CATALOG))
        tables = {
            name: stack.enter_context(closing(VectorTable.open(folder / vectors_name(name)))) for name in COLLECTIONS
        }
        pairs = catalog.table("pairs")
        partners = {name: Partners.of(pairs, name, table.rows) for name, table in tables.items()}
        fitted = {direction: _fit(target, tables, partners, seed) for direction, target in _FITTED.items()}
    return {direction: calibration for direction, calibration in fitted.items() if calibration is not None}


def _fit(
    target: Collection, tables: Mapping[Collection, VectorTable], partners: Mapping[Collection, Partners], seed: int
) -> HitCalibration | None:
    source = other_collection(target)
    asked = np.flatnonzero(partners[source].counts())
    if len(asked) < FEWEST_QUERIES:
        return None
    rng = np.random.default_rng([seed, 13])
    asked = np.sort(rng.choice(asked, min(len(asked), _MOST_QUERIES), replace=False))
    queries = to_float32(tables[source].gather(asked))
    judged = Judged(tables[target], tables[source], partners[target])
    examples = [
        *_present_and_absent(tables[target], queries, asked, partners[source]),
        *_absent_kinds(judged, queries, rng),
    ]
    background = judged.background()
    signals = [
        judged.signals(queries[one.query], one.rows, one.scores, background, own=int(asked[one.query]))
        for one in examples
    ]
    plain = _curve([one[:, : len(PLAIN_SIGNALS)] for one in signals], examples)
    if plain is None:
        return None
    # A hit that has the query for its only partner has none left, which is no way to see what partners say.
    companions = partners[target].counts()[_first_partners(partners[source], asked)] > 1
    usable = [place for place, one in enumerate(examples) if companions[one.query]]
    paired = _curve([signals[place] for place in usable], [examples[place] for place in usable])
    enough = companions.sum() >= FEWEST_QUERIES
    return HitCalibration(queries=len(asked), plain=plain, with_partners=paired if enough else None)


def _present_and_absent(table: VectorTable, queries: Values, asked: Rows, partners: Partners) -> Iterator[_Example]:
    """The first hits of each query, and those but for its partners."""
    ids, scores = exact_search(table, queries, min(table.rows, _HITS + 16))
    share = 1 / (1 + len(_KIND_SHARES))
    positions, rows = partners.among(asked)
    for query in range(len(queries)):
        yield _Example(query=query, rows=ids[query, :_HITS], scores=scores[query, :_HITS], fits=True, weight=1.0)
        others = np.flatnonzero(~np.isin(ids[query], rows[positions == query]))[:_HITS]
        if len(others):
            found, reached = ids[query, others], scores[query, others]
            yield _Example(query=query, rows=found, scores=reached, fits=False, weight=share)


def _absent_kinds(judged: Judged, queries: Values, rng: np.random.Generator) -> Iterator[_Example]:
    """The first hits of each query in a sample without those whose partners are most like the query."""
    assert judged.partners is not None
    assert judged.others is not None
    rows = np.flatnonzero(judged.partners.counts())
    rows = np.sort(rng.choice(rows, min(len(rows), _SAMPLE), replace=False))
    positions, partners = judged.partners.among(rows)
    starts = np.flatnonzero(np.diff(positions, prepend=-1))
    vectors, others = to_float32(judged.hits.gather(rows)), to_float32(judged.others.gather(partners))
    share = 1 / (1 + len(_KIND_SHARES))
    for number, query in enumerate(queries):
        cosines = vectors @ query
        nearest = np.argsort(-np.maximum.reduceat(others @ query, starts), kind="stable")
        for kind in _KIND_SHARES:
            left = nearest[max(1, round(kind * len(rows))) :]
            if len(left):
                best = left[np.argsort(-cosines[left], kind="stable")[:_HITS]]
                yield _Example(query=number, rows=rows[best], scores=cosines[best], fits=False, weight=share)


def _first_partners(partners: Partners, rows: Rows) -> Rows:
    positions, others = partners.among(rows)
    return others[np.flatnonzero(np.diff(positions, prepend=-1))]


def _curve(signals: Sequence[Values], examples: Sequence[_Example]) -> HitCurve | None:
    """Fit a curve to the most probable hit of each query, which is the first one until there is a curve.

    None where the hits that have all signals are of one kind only.
    """
    known = [place for place, one in enumerate(signals) if np.isfinite(one[:, -1]).any()]
    able = [signals[place][np.isfinite(signals[place][:, -1])] for place in known]
    fits = np.array([examples[place].fits for place in known], dtype=np.bool_)
    weights = np.array([examples[place].weight for place in known])
    if len(set(fits.tolist())) < 2:
        return None
    # As many that fit as that do not, whatever was left out on the way.
    weights[fits] *= weights[~fits].sum() / weights[fits].sum()
    chosen = np.stack([one[0] for one in able])
    for _ in range(_ROUNDS):
        slopes, intercept = fit_logistic(chosen, fits.astype(np.float64), weights, ridge=_RIDGE)
        curve = HitCurve(weights=tuple(round(float(one), 6) for one in slopes), intercept=round(float(intercept), 6))
        chosen = np.stack([one[int(np.argmax(curve.probability(one)))] for one in able])
    return curve
