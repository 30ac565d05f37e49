"""Fitting the calibration of hits on the pairs of the index itself; see `storage.hit_calibration`.

Items with partners stand in for queries. What is present is asked for as it is. What is absent is asked for with the
partners of the query left out of the index, and, for things that are missing as a kind, with all left out whose
partners are most like the query: the nearest 5, 20 and 50 % of a sample.

Where the encoder is at hand, short texts stand in as well (`stand_in_queries`): phrases of captions, which are present
as they are and absent without the images that have their last word or without the half that is most like them, and
things that no image has a word of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage import VectorTable
from storage.catalog import Catalog
from storage.exact_search import exact_search, to_float32
from storage.files.layout import CATALOG, vectors_name, words_name
from storage.hit_calibration import PLAIN_SIGNALS, Calibrations, HitCalibration, HitCurve, Judged, other_collection
from storage.lexical.inverted_index import InvertedIndex
from storage.lexical.terms import terms
from storage.logistic import fit_logistic
from storage.partners import Partners
from storage.schema import COLLECTIONS, Collection, Counts, Direction
from storage.version import IndexVersion

from .progress import Progress
from .stand_in_queries import absent_things, phrases

FEWEST_QUERIES = 50
"""With fewer pairs nothing is fitted, and hits have no probability."""
_MOST_QUERIES, _MOST_PHRASES, _MOST_THINGS = 500, 300, 200
_SAMPLE = 5_000
_KIND_SHARES = (0.05, 0.2, 0.5)
_RIDGE = 1e-4
_HITS = 10
_ROUNDS = 4
_FITTED: Mapping[Direction, Collection] = {"text_to_image": "images", "image_to_text": "texts"}

Rows = NDArray[np.int64]
Values = NDArray[np.float32]
EncodeTexts = Callable[[list[str]], np.ndarray]


class _Query(NamedTuple):
    """What stands in for a query: a vector (dim,), the row that it is or is of, or -1, and its text if it is short."""

    vector: Values
    own: int
    text: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Example:
    """The first hits of a query, rows and cosines (k,), whether one of them fits, and how much the query counts."""

    query: _Query
    rows: Rows
    scores: Values
    fits: bool
    weight: float


# An example, and the signals of its hits (k, d).
_Case = tuple[_Example, Values]


def fit_calibrations(
    folder: Path, counts: Counts, seed: int, progress: Progress, encode: EncodeTexts | None = None
) -> Calibrations:
    """Return the calibrations that the pairs of a draft allow; none where fewer than 50 items have a partner.

    Args:
        folder: Of the draft, where vectors, catalog and lexical indexes are.
        counts: Of its items.
        seed: Of the sample of queries.
        progress: Told that it is done.
        encode: Texts to (n, dim) unit vectors, for short queries; None where the vectors came ready-made.
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
        fitted: dict[Direction, HitCalibration | None] = {}
        for direction, target in _FITTED.items():
            texts = None
            if target == "images" and encode is not None:
                texts = _Texts(folder, catalog, partners["images"], encode)
            fitted[direction] = _Fit(target, tables, partners, np.random.default_rng([seed, 13])).calibration(texts)
    return {direction: calibration for direction, calibration in fitted.items() if calibration is not None}


def kept_calibrations(parent: IndexVersion, folder: Path, progress: Progress) -> Calibrations | None:
    """Return those of the version that is updated where a draft has the same pairs; None where it has others.

    Args:
        parent: The version that is updated, open, whose vectors are those of the draft.
        folder: Of the draft.
        progress: Told that it is so.
    """
    with Catalog.open(folder / CATALOG) as catalog:
        if not catalog.table("pairs").equals(parent.catalog.table("pairs")):
            return None
    if parent.manifest.calibrations:
        progress.note(f"the probability that a hit fits is that of version {parent.manifest.version}")
    return dict(parent.manifest.calibrations)


class _Texts:
    """The words of an index whose images are searched, and an encoder for more."""

    def __init__(self, folder: Path, catalog: Catalog, partners: Partners, encode: EncodeTexts) -> None:
        self.index = InvertedIndex.open(folder / words_name("images"))
        self.encode = encode
        self._captions = catalog.table("texts", ["caption"]).column("caption")
        self._partners = partners
        self._terms: dict[int, frozenset[str]] = {}

    def caption(self, row: int) -> str:
        return str(self._captions[row].as_py() or "")

    def coverage(self, query: _Query, rows: Rows) -> Values:
        """Return how much of the words of a query each image has, the text left out that the query is of."""
        text = query.text or self.caption(query.own)
        if query.own < 0:
            return self.index.coverage(text, rows)
        idfs = self.index.idf(text)
        held: list[set[str]] = [set() for _ in rows]
        for position, partner in zip(*self._partners.among(rows), strict=True):
            if partner != query.own:
                held[position] |= self._terms_of(int(partner))
        whole = max(sum(idfs.values()), 1e-6)
        return np.array([sum(idfs[term] for term in idfs if term in one) / whole for one in held], dtype=np.float32)

    def _terms_of(self, row: int) -> frozenset[str]:
        if row not in self._terms:
            self._terms[row] = frozenset(terms(self.caption(row)))
        return self._terms[row]


class _Fit:
    """The fit of one direction."""

    def __init__(
        self,
        target: Collection,
        tables: Mapping[Collection, VectorTable],
        partners: Mapping[Collection, Partners],
        rng: np.random.Generator,
    ) -> None:
        source = other_collection(target)
        self._table, self._source = tables[target], tables[source]
        self._asked_partners, self._partners = partners[source], partners[target]
        self._judged = Judged(self._table, self._source, self._partners)
        self._background = self._judged.background()
        self._rng = rng

    def calibration(self, texts: _Texts | None) -> HitCalibration | None:
        asked = np.flatnonzero(self._asked_partners.counts())
        if len(asked) < FEWEST_QUERIES:
            return None
        asked = np.sort(self._rng.choice(asked, min(len(asked), _MOST_QUERIES), replace=False))
        vectors = to_float32(self._source.gather(asked))
        items = [_Query(vector, int(row)) for vector, row in zip(vectors, asked, strict=True)]
        self._draw_sample()
        # A hit that has the query for its only partner has none left, which is no way to see what partners say.
        lonely = self._partners.counts()[_first_partners(self._asked_partners, asked)] < 2
        alone = {int(row) for row in asked[lonely]}
        of_items = self._cases([*self._present_and_absent(items), *self._absent_kinds(items)])
        told = [one for one in asked.tolist() if one not in alone]
        of_texts = [] if texts is None else self._cases(self._short_texts(texts, told))
        plain = _curve([(one, signals[:, : len(PLAIN_SIGNALS)]) for one, signals in (*of_items, *of_texts)])
        if plain is None:
            return None
        paired = with_words = None
        if len(told) >= FEWEST_QUERIES:
            companions = [(one, signals) for one, signals in of_items if one.query.own not in alone]
            paired = _curve(companions)
            if texts is not None and of_texts:
                covered = [
                    (one, np.column_stack([signals, texts.coverage(one.query, one.rows)]))
                    for one, signals in (*companions, *of_texts)
                ]
                with_words = _curve(covered)
        return HitCalibration(queries=len(asked), plain=plain, with_partners=paired, with_words=with_words)

    def _cases(self, examples: Sequence[_Example]) -> list[_Case]:
        return [
            (one, self._judged.signals(one.query.vector, one.rows, one.scores, self._background, one.query.own))
            for one in examples
        ]

    def _draw_sample(self) -> None:
        """Draw rows with partners, and compare with those what a whole collection is too large for."""
        rows = np.flatnonzero(self._partners.counts())
        self._rows = np.sort(self._rng.choice(rows, min(len(rows), _SAMPLE), replace=False))
        positions, partners = self._partners.among(self._rows)
        self._starts = np.flatnonzero(np.diff(positions, prepend=-1))
        self._hits, self._others = to_float32(self._table.gather(self._rows)), to_float32(self._source.gather(partners))

    def _present_and_absent(self, queries: Sequence[_Query]) -> Iterator[_Example]:
        """The first hits of each query, and those but for its partners."""
        found, scores = exact_search(
            self._table, np.stack([one.vector for one in queries]), min(self._table.rows, _HITS + 16)
        )
        share = 1 / (1 + len(_KIND_SHARES))
        for query, ids, cosines in zip(queries, found, scores, strict=True):
            yield _Example(query=query, rows=ids[:_HITS], scores=cosines[:_HITS], fits=True, weight=1.0)
            _, own = self._asked_partners.among(np.array([query.own]))
            others = np.flatnonzero(~np.isin(ids, own))[:_HITS]
            if len(others):
                yield _Example(query=query, rows=ids[others], scores=cosines[others], fits=False, weight=share)

    def _absent_kinds(self, queries: Sequence[_Query]) -> Iterator[_Example]:
        """The first hits of each query in a sample without those whose partners are most like the query."""
        share = 1 / (1 + len(_KIND_SHARES))
        for query in queries:
            nearest = self._by_partners(query)
            for kind in _KIND_SHARES:
                yield from self._without(query, nearest[: max(1, round(kind * len(self._rows)))], share)

    def _short_texts(self, texts: _Texts, rows: Sequence[int]) -> list[_Example]:
        """The first hits of phrases, there and left out, and of things that are not there; none for too few phrases."""
        shuffled = self._rng.permutation(np.array(rows, dtype=np.int64)).tolist()
        told = phrases(texts.caption, shuffled, texts.index, _MOST_PHRASES, self._rng)
        things = absent_things(texts.index, min(_MOST_THINGS, max(FEWEST_QUERIES, len(told))), self._rng)
        if min(len(told), len(things)) < FEWEST_QUERIES:
            return []
        vectors = np.asarray(texts.encode([*(one.text for one in told), *things]), dtype=np.float32)
        found, scores = exact_search(self._table, vectors, min(self._table.rows, _HITS))
        examples = []
        for place, phrase in enumerate(told):
            query = _Query(vectors[place], phrase.own, phrase.text)
            examples.append(_Example(query=query, rows=found[place], scores=scores[place], fits=True, weight=1.0))
            named = np.flatnonzero(np.isin(self._rows, phrase.images))
            for left_out in (named, self._by_partners(query)[: len(self._rows) // 2]):
                examples += self._without(query, left_out, 0.5)
        share = len(told) / len(things)
        for place, thing in enumerate(things, len(told)):
            query = _Query(vectors[place], -1, thing)
            examples.append(_Example(query=query, rows=found[place], scores=scores[place], fits=False, weight=share))
        return examples

    def _by_partners(self, query: _Query) -> Rows:
        """Return the positions in the sample, those with the partner nearest to a query first."""
        return np.argsort(-np.maximum.reduceat(self._others @ query.vector, self._starts), kind="stable")

    def _without(self, query: _Query, left_out: Rows, weight: float) -> Iterator[_Example]:
        """The first hits of a query for what is absent: those in the sample but for some positions of it."""
        left = np.setdiff1d(np.arange(len(self._rows)), left_out, assume_unique=True)
        if len(left):
            cosines = self._hits[left] @ query.vector
            best = np.argsort(-cosines, kind="stable")[:_HITS]
            rows, scores = self._rows[left[best]], cosines[best]
            yield _Example(query=query, rows=rows, scores=scores, fits=False, weight=weight)


def _first_partners(partners: Partners, rows: Rows) -> Rows:
    positions, others = partners.among(rows)
    return others[np.flatnonzero(np.diff(positions, prepend=-1))]


def _curve(cases: Sequence[_Case]) -> HitCurve | None:
    """Fit a curve to the most probable hit of each example, which is the first one until there is a curve.

    None where the hits that have all signals are of one kind only.

    Args:
        cases: Examples, and the signals of their hits (k, d).
    """
    able = [(example, signals[np.isfinite(signals).all(axis=1)]) for example, signals in cases]
    able = [(example, signals) for example, signals in able if len(signals)]
    fits = np.array([example.fits for example, _ in able], dtype=np.bool_)
    weights = np.array([example.weight for example, _ in able])
    if len(set(fits.tolist())) < 2:
        return None
    # As many that fit as that do not, whatever was left out on the way.
    weights[fits] *= weights[~fits].sum() / weights[fits].sum()
    chosen = np.stack([signals[0] for _, signals in able])
    for _ in range(_ROUNDS):
        slopes, intercept = fit_logistic(chosen, fits.astype(np.float64), weights, ridge=_RIDGE)
        curve = HitCurve(weights=tuple(round(float(one), 6) for one in slopes), intercept=round(float(intercept), 6))
        chosen = np.stack([signals[int(np.argmax(curve.probability(signals)))] for _, signals in able])
    return curve
