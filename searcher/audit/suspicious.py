"""Suspicious pairs: captions that probably do not belong to their image, told by vectors alone.

A cosine by itself misleads: some images and some captions are near to everything. So each pair is judged by

- its **fit**: how many standard deviations the cosine is above those of the image with texts at large, and above those
  of the text with images at large, the mean of the two;
- its **company**: the largest cosine of the caption with another caption of the same image, or of the image with
  another image of the same caption, in standard deviations of both above texts (images) at large.

The score is fit + 2 company, low ones first. The weight was chosen on Flickr8k train. On dev, with 1 % of the captions
swapped at random and the vectors of `lite`, 95 % of these are among the 2 % with the lowest score, 44 % by fit alone.
Where a pair has no company (one caption an image), it counts as the mean of those that have; where none has, fit
decides.

Captions that were exchanged together, all of an image, are company to one another. Such an image is told by the mean
fit of its captions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from storage.exact_search import exact_search, to_float32
from storage.hit_calibration import evenly, evenly_spaced, other_collection
from storage.partners import Partners
from storage.schema import Collection
from storage.vectors import VectorTable
from storage.version import IndexVersion

Rows = NDArray[np.int64]
Values = NDArray[np.float32]
# More pairs take longer than a minute on two cores; of these evenly spaced ones are judged.
MOST_PAIRS = 200_000
COMPANY_WEIGHT = 2.0
_AT_ONCE = 1024
_BETTER = 3
_CANDIDATES = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedPairs:
    """Pairs of an index with what they are judged by, in the order of the catalog.

    Attributes:
        images: (p,) row ids.
        texts: (p,) row ids.
        cosines: (p,) of image and text.
        fit: (p,) standard deviations above the cosines with the collection at large.
        company: (p,) likewise of the nearest other caption or image; NaN where there is none.
        of: How many pairs the index has; p of them were judged.
    """

    images: Rows
    texts: Rows
    cosines: Values
    fit: Values
    company: Values
    of: int

    @property
    def scores(self) -> Values:
        """(p,), the lowest for the most suspicious."""
        known = np.isfinite(self.company)
        usual = self.company[known].mean() if known.any() else np.float32(0)
        return (self.fit + COMPANY_WEIGHT * np.where(known, self.company, usual)).astype(np.float32)

    def worst(self, count: int) -> Rows:
        """Return the positions of the most suspicious pairs, the worst first."""
        return np.argsort(self.scores, kind="stable")[:count]

    def images_by_fit(self) -> tuple[Rows, Values]:
        """Return the images with two pairs or more and the mean fit of their pairs, the lowest first, (n,) each."""
        rows, at, counts = np.unique(self.images, return_inverse=True, return_counts=True)
        means = (np.bincount(at, self.fit, minlength=len(rows)) / counts).astype(np.float32)
        order = np.argsort(means, kind="stable")
        order = order[counts[order] > 1]
        return rows[order], means[order]


class _Side:
    """The vectors of a collection and what stands for all of it."""

    def __init__(self, table: VectorTable) -> None:
        self.table = table
        self.at_large = evenly(table)

    def vectors(self, rows: Rows) -> Values:
        return to_float32(self.table.gather(rows))

    def standings(self, cosines: Values, vectors: Values) -> Values:
        """How many deviations the cosine of each of (n, dim) vectors is above those with this side at large, (n,)."""
        at_large = vectors @ self.at_large.T
        standings: Values = (cosines - at_large.mean(axis=1)) / np.maximum(at_large.std(axis=1), 1e-6)
        return standings

    def company(self, own: Rows, positions: Rows, others: Rows) -> Values:
        """The best mutual standing of rows (n,) with their companions, (n,); -inf where one has none.

        Args:
            own: (n,) row ids.
            positions: (m,) which of them each companion belongs to, ascending.
            others: (m,) row ids of the companions.
        """
        best = np.full(len(own), -np.inf, dtype=np.float32)
        kept = others != own[positions]
        positions, others = positions[kept], others[kept]
        if not len(others):
            return best
        rows, at = np.unique(np.concatenate([own[positions], others]), return_inverse=True)
        vectors = self.vectors(rows)
        at_large = vectors @ self.at_large.T
        means, deviations = at_large.mean(axis=1), np.maximum(at_large.std(axis=1), 1e-6)
        left, right = at[: len(others)], at[len(others) :]
        cosines = np.vecdot(vectors[left], vectors[right])
        standings = ((cosines - means[left]) / deviations[left] + (cosines - means[right]) / deviations[right]) / 2
        np.maximum.at(best, positions, standings.astype(np.float32))
        return best


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judge:
    images: _Side
    texts: _Side
    texts_of: Partners
    images_of: Partners

    @classmethod
    def of(cls, version: IndexVersion, image_rows: Rows, text_rows: Rows) -> Self:
        images, texts = _Side(version.vectors("images")), _Side(version.vectors("texts"))
        return cls(
            images=images,
            texts=texts,
            texts_of=Partners(image_rows, text_rows, images.table.rows),
            images_of=Partners(text_rows, image_rows, texts.table.rows),
        )

    def judge(self, image_rows: Rows, text_rows: Rows) -> tuple[Values, Values, Values]:
        """Cosine, fit and company of pairs (n,)."""
        images, texts = self.images.vectors(image_rows), self.texts.vectors(text_rows)
        cosines = np.vecdot(images, texts)
        fit = np.float32(0.5) * (self.texts.standings(cosines, images) + self.images.standings(cosines, texts))
        company = np.maximum(
            self.texts.company(text_rows, *self.texts_of.among(image_rows)),
            self.images.company(image_rows, *self.images_of.among(text_rows)),
        )
        company[~np.isfinite(company)] = np.nan
        return cosines, fit, company


def judge_pairs(version: IndexVersion, most: int = MOST_PAIRS) -> JudgedPairs | None:
    """Return what every pair of a version is judged by; None where it has no pairs.

    Args:
        version: An open version.
        most: Of more pairs so many, evenly spaced, are judged: some 10 s for 200,000 of 512 dimensions on two cores.
    """
    table = version.catalog.table("pairs")
    images, texts = (np.asarray(table.column(name)).astype(np.int64) for name in ("image_row", "text_row"))
    if not len(images):
        return None
    judge = _Judge.of(version, images, texts)
    chosen = evenly_spaced(len(images), most)
    parts = [judge.judge(images[part], texts[part]) for part in _parts(chosen)]
    cosines, fit, company = (np.concatenate(values) for values in zip(*parts, strict=True))
    return JudgedPairs(
        images=images[chosen], texts=texts[chosen], cosines=cosines, fit=fit, company=company, of=len(images)
    )


def _parts(chosen: Rows) -> Iterator[Rows]:
    return (chosen[start : start + _AT_ONCE] for start in range(0, len(chosen), _AT_ONCE))


def better_items(version: IndexVersion, into: Collection, queries: Rows, fit: Values) -> list[list[tuple[int, float]]]:
    """Return for each suspicious pair up to three items of a collection that fit its other half better than it does.

    Of the 50 with the largest cosines those with the best fit, which lets no hub come first that is near to everything.

    Args:
        version: An open version.
        into: The collection that is searched, all of it, exactly.
        queries: (n,) rows of the other collection.
        fit: (n,) that of the pairs, which is to be beaten.

    Returns:
        For each pair row ids and fit, the best first.
    """
    found, asked = _Side(version.vectors(into)), _Side(version.vectors(other_collection(into)))
    vectors = asked.vectors(queries)
    rows, cosines = exact_search(found.table, vectors, min(_CANDIDATES, found.table.rows))
    flat = cosines.ravel()
    one = found.standings(flat, np.repeat(vectors, rows.shape[1], axis=0))
    other = asked.standings(flat, found.vectors(rows.ravel()))
    fits = ((one + other) / 2).reshape(rows.shape)
    best = np.argsort(-fits, axis=1, kind="stable")[:, :_BETTER]
    return [
        [(int(rows[line, at]), float(fits[line, at])) for at in order if fits[line, at] > fit[line]]
        for line, order in enumerate(best)
    ]
