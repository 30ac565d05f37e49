"""Fitting the calibration of hits on the pairs of the index itself; see `storage.hit_calibration`.

Items with partners stand in for queries. What is present is asked for as it is. What is absent is asked for with the
partners of the query left out of the index, and, for things that are missing as a kind, with all left out whose
partners are most like the query: the nearest 5, 20 and 50 % of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
_FITTED: Mapping[Direction, Collection] = {"text_to_image": "images", "image_to_text": "texts"}

Rows = NDArray[np.int64]
Values = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Example:
    """The best hit of a query: its row and cosine, whether it fits, and how much it counts."""

    query: int
    row: int
    score: float
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
    if all(one.fits for one in examples):
        return None
    background = judged.background()
    signals = np.concatenate(
        [
            judged.signals(
                queries[one.query],
                np.array([one.row]),
                np.array([one.score], dtype=np.float32),
                background,
                own=int(asked[one.query]),
            )
            for one in examples
        ]
    )
    plain = _curve(signals[:, : len(PLAIN_SIGNALS)], examples)
    # A hit that has the query for its only partner has none left, which is no way to see what partners say.
    own = _first_partners(partners[source], asked)
    companions = partners[target].counts()[own] > 1
    usable = np.array([bool(companions[one.query]) for one in examples]) & np.isfinite(signals[:, -1])
    enough = companions.sum() >= FEWEST_QUERIES and len({ones.fits for ones in _picked(examples, usable)}) == 2
    paired = _curve(signals[usable], list(_picked(examples, usable))) if enough else None
    return HitCalibration(queries=len(asked), plain=plain, with_partners=paired)


def _present_and_absent(table: VectorTable, queries: Values, asked: Rows, partners: Partners) -> Iterator[_Example]:
    """The best hit of each query, and the best one but for its partners."""
    ids, scores = exact_search(table, queries, min(table.rows, 17))
    share = 1 / (1 + len(_KIND_SHARES))
    positions, rows = partners.among(asked)
    for query in range(len(queries)):
        yield _Example(query=query, row=int(ids[query, 0]), score=float(scores[query, 0]), fits=True, weight=1.0)
        others = np.flatnonzero(~np.isin(ids[query], rows[positions == query]))
        if len(others):
            best = int(others[0])
            found = int(ids[query, best]), float(scores[query, best])
            yield _Example(query=query, row=found[0], score=found[1], fits=False, weight=share)


def _absent_kinds(judged: Judged, queries: Values, rng: np.random.Generator) -> Iterator[_Example]:
    """The best hit of each query in a sample without those whose partners are most like the query."""
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
                best = int(left[np.argmax(cosines[left])])
                yield _Example(query=number, row=int(rows[best]), score=float(cosines[best]), fits=False, weight=share)


def _first_partners(partners: Partners, rows: Rows) -> Rows:
    positions, others = partners.among(rows)
    return others[np.flatnonzero(np.diff(positions, prepend=-1))]


def _picked(examples: list[_Example], usable: NDArray[np.bool_]) -> Iterator[_Example]:
    return (one for one, kept in zip(examples, usable.tolist(), strict=True) if kept)


def _curve(signals: Values, examples: list[_Example]) -> HitCurve:
    fits = np.array([one.fits for one in examples])
    weights = np.array([one.weight for one in examples])
    # As many that fit as that do not, whatever was left out on the way.
    weights[fits] *= weights[~fits].sum() / weights[fits].sum()
    slopes, intercept = fit_logistic(signals, fits.astype(np.float64), weights, ridge=_RIDGE)
    return HitCurve(weights=tuple(round(float(one), 6) for one in slopes), intercept=round(intercept, 6))
