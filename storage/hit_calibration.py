"""Calibration of hits: how probable it is that a hit fits its query, from what the index knows of both.

A cosine alone says little: for one query 0.28 is the best there is, for another it is what any image gets. Six signals
of a query and a hit are weighed by a logistic regression, which is fitted on the index's own pairs:

- `cosine`: of query and hit;
- `standing`: how many standard deviations the cosine is above those of the query with the collection at large;
- `lead`: the cosine less the mean one of the hit with its own partners, an image's captions or a text's images: a query
  that fits comes near to what they reach;
- `partner`: the largest cosine of the query with a partner of the hit;
- `partner_standing`: how many standard deviations that is above the query's cosines with all that could be partners;
- `coverage`: the share of the query's words that the captions of the hit have, a rare word counting more (its idf).

A hit without partners is judged by the first two, and a query that is no text by the first five.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .logistic import sigmoid
from .partners import Partners
from .schema import Collection, Direction

Rows = NDArray[np.int64]
Values = NDArray[np.float32]
PLAIN_SIGNALS = ("cosine", "standing")
PARTNER_SIGNALS = (*PLAIN_SIGNALS, "lead", "partner", "partner_standing")
WORD_SIGNALS = (*PARTNER_SIGNALS, "coverage")
# Rows of a collection that stand for all of it: the standing is then exact to some hundredths.
_BACKGROUND_ROWS = 512
_HITS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class HitCurve:
    """A logistic curve: probability = 1 / (1 + exp(-(weights . signals + intercept))).

    Attributes:
        weights: Of the signals, in the order of `PLAIN_SIGNALS`, `PARTNER_SIGNALS` or `WORD_SIGNALS`.
        intercept: Of the curve.
    """

    weights: tuple[float, ...]
    intercept: float

    def probability(self, signals: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probabilities (n,) of signals (n, d)."""
        return sigmoid(signals.astype(np.float64) @ np.array(self.weights) + self.intercept)


@dataclass(frozen=True, kw_only=True)
class HitCalibration:
    """The curves of one direction of search.

    The probability is that of queries of which half have something that fits in the index, and half do not.

    Attributes:
        queries: How many items of the index stood in for queries when it was fitted.
        plain: For hits without partners.
        with_partners: For hits with partners; None where too few have two or more, and `plain` is used for all.
        with_words: For hits with partners of queries whose words are known; None where the encoder was not at hand or
            captions have too few words in common, and `with_partners` is used.
    """

    queries: int
    plain: HitCurve
    with_partners: HitCurve | None
    with_words: HitCurve | None

    def check(self) -> None:
        """Raise ValueError where a curve has another number of weights than there are signals."""
        curves = ((self.plain, PLAIN_SIGNALS), (self.with_partners, PARTNER_SIGNALS), (self.with_words, WORD_SIGNALS))
        for curve, signals in curves:
            if curve is not None and len(curve.weights) != len(signals):
                raise ValueError(f"a calibration has {len(curve.weights)} weights for the signals {signals}")

    def probability(self, signals: Values, coverage: Values | None = None) -> Values:
        """Return the probability (n,) float32 that each hit fits.

        Args:
            signals: (n, 5), those of partners NaN for a hit without any.
            coverage: (n,) how much of the query's words each hit has; None where the query has no words.
        """
        probabilities = self.plain.probability(signals[:, : len(PLAIN_SIGNALS)])
        curve = self.with_partners
        if coverage is not None and self.with_words is not None:
            curve, signals = self.with_words, np.column_stack([signals, coverage])
        known = np.isfinite(signals).all(axis=1)
        if curve is not None and known.any():
            probabilities[known] = curve.probability(signals[known])
        return probabilities.astype(np.float32)


Calibrations = dict[Direction, HitCalibration]


class Gatherable(Protocol):
    """What is needed of a table of stored vectors."""

    @property
    def rows(self) -> int:
        """How many vectors there are."""

    def gather_float32(self, row_ids: Rows) -> Values:
        """Vectors of these rows, in this order, `row_ids.shape + (dim,)`."""


class Background(NamedTuple):
    """Rows (n, dim) that stand for the collection that is searched, and for the other one; None without partners."""

    hits: Values
    others: Values | None


class Judged(NamedTuple):
    """What hits are judged by: the vectors of both collections, and who belongs to whom.

    Attributes:
        hits: The vectors of the collection that is searched.
        others: Those of the other; None where the index has none.
        partners: Of the rows of the collection that is searched; None where the index has no pairs.
    """

    hits: Gatherable
    others: Gatherable | None
    partners: Partners | None

    def background(self) -> Background:
        """Return what the standings are reckoned from."""
        others = None if self.others is None or self.partners is None else evenly(self.others)
        return Background(evenly(self.hits), others)

    def signals(self, query: Values, rows: Rows, scores: Values, background: Background, own: int = -1) -> Values:
        """Return the signals of the hits of one query, (k, 5); those of partners are NaN for hits without any.

        Args:
            query: (dim,), unit length.
            rows: (k,) row ids of the hits.
            scores: (k,) their cosines.
            background: From `background`.
            own: A row of the other collection that is left out of the partners: the query itself.
        """
        signals = np.full((len(rows), len(PARTNER_SIGNALS)), np.nan, dtype=np.float32)
        signals[:, 0] = scores
        signals[:, 1] = _standings(scores, background.hits @ query)
        for part in _parts(len(rows)):
            self._add_partners(signals[part], query, rows[part], own)
        if background.others is not None:
            signals[:, 4] = _standings(signals[:, 3], background.others @ query)
        return signals

    def _add_partners(self, signals: Values, query: Values, rows: Rows, own: int) -> None:
        if self.partners is None or self.others is None:
            return
        positions, partners = self.partners.among(rows)
        if own >= 0:
            kept = partners != own
            positions, partners = positions[kept], partners[kept]
        if not len(partners):
            return
        vectors = self.others.gather_float32(partners)
        hits = self.hits.gather_float32(rows)
        own_cosines = np.vecdot(vectors, hits[positions])
        starts = np.flatnonzero(np.diff(positions, prepend=-1))  # where the partners of the next hit begin
        counts = np.diff(starts, append=len(positions))
        known = positions[starts]
        signals[known, 2] = signals[known, 0] - np.add.reduceat(own_cosines, starts) / counts
        signals[known, 3] = np.maximum.reduceat(vectors @ query, starts)


def evenly(table: Gatherable) -> Values:
    """Return rows that stand for a whole collection, (n, dim), evenly spaced, some 512 at most."""
    step = max(1, -(-table.rows // _BACKGROUND_ROWS))
    return table.gather_float32(np.arange(0, table.rows, step, dtype=np.int64))


def evenly_spaced(rows: int, most: int) -> Rows:
    """Return `most` evenly spaced row ids of so many rows, ascending; all where there are no more."""
    count = min(rows, most)
    return np.arange(count, dtype=np.int64) * rows // max(1, count)


def _standings(cosines: Values, at_large: Values) -> Values:
    """Return how many standard deviations cosines (k,) are above the mean of those at large."""
    standings: Values = (cosines - at_large.mean()) / max(float(at_large.std()), 1e-6)
    return standings


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _HITS_AT_ONCE) for start in range(0, count, _HITS_AT_ONCE))


def other_collection(collection: Collection) -> Collection:
    """Return the other half of an index."""
    return "texts" if collection == "images" else "images"
