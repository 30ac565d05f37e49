"""Clusters of a collection: spherical k-means over evenly spaced vectors, named by the nearest captions or classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import faiss
import numpy as np
from numpy.typing import NDArray

from storage.exact_search import to_float32
from storage.hit_calibration import evenly_spaced
from storage.partners import Partners
from storage.schema import IMAGE_INFO_COLUMNS, ITEM_COLUMNS, Collection

if TYPE_CHECKING:
    from storage.version import IndexVersion

Rows = NDArray[np.int64]
# A cluster needs so many rows on the average; fewer than two clusters are none.
_ROWS_A_CLUSTER = 8
_ROUNDS = 12
_NAMED = 20_000  # texts that may name a cluster of images without captions
_TELLING = 24  # items at the centroid of a cluster whose captions may name it
_MOST_CLASSES = 30
# Columns that do not say what an image shows.
_NO_CLASSES = frozenset({*ITEM_COLUMNS, *IMAGE_INFO_COLUMNS, "split", "film"})
# Of a cluster that is named by a class so many are of it at least, and so many more than of all.
_OF_A_CLASS, _MORE_THAN_OF_ALL = 0.5, 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """Clusters of up to so many rows of a collection, the largest first.

    Attributes:
        rows: (n,) row ids that were clustered, ascending.
        vectors: (n, dim) float32, their vectors.
        members: For each cluster the positions in `rows` of its items, the most central first.
        names: For each cluster a caption or a class; empty where nothing names it.
        total: How many rows the collection has.
    """

    rows: Rows
    vectors: NDArray[np.float32]
    members: Sequence[Rows]
    names: Sequence[str]
    total: int

    def estimated(self, members: Rows) -> int:
        """Return about how many items of the whole collection are in a cluster with these members."""
        return round(len(members) * self.total / len(self.rows))


def find_clusters(version: IndexVersion, collection: Collection, *, sampled: int, most: int) -> Clusters:
    """Return at most `most` clusters of `sampled` evenly spaced rows; none for fewer than sixteen."""
    table = version.vectors(collection)
    rows = evenly_spaced(table.rows, sampled)
    vectors = to_float32(table.gather(rows))
    count = min(most, len(rows) // _ROWS_A_CLUSTER)
    if count < 2:
        return Clusters(rows=rows, vectors=vectors, members=[], names=[], total=table.rows)
    means = faiss.Kmeans(
        vectors.shape[1], count, niter=_ROUNDS, seed=7, spherical=True, min_points_per_centroid=1, verbose=False
    )
    means.train(vectors)
    centroids = np.asarray(means.centroids)
    cosines = vectors @ centroids.T
    nearest = cosines.argmax(axis=1)
    members = []
    for number in np.argsort(-np.bincount(nearest, minlength=count), kind="stable"):
        own = np.flatnonzero(nearest == number)
        if len(own):
            members.append(own[np.argsort(-cosines[own, number], kind="stable")])
    centroids = centroids[[nearest[own[0]] for own in members]]
    names = _names(version, collection, centroids, [rows[own] for own in members])
    return Clusters(rows=rows, vectors=vectors, members=members, names=names, total=table.rows)


def _names(
    version: IndexVersion, collection: Collection, centroids: NDArray[np.float32], members: Sequence[Rows]
) -> list[str]:
    """Return for each cluster the caption of its central items that is near to its centroid and less so to others.

    Images without captions are named by whatever text is; without texts by the class that most of a cluster are of.
    """
    if "texts" not in version.manifest.collections:
        return _class_names(version, collection, members)
    table = version.vectors("texts")
    partners = None
    if collection == "images":
        partners = Partners.of(version.catalog.table("pairs"), "images", version.vectors("images").rows)
    names: list[str] = []
    for number, rows in enumerate(members):
        central = rows[:_TELLING]
        told = central if partners is None else np.unique(partners.among(central)[1])
        told = told if len(told) else evenly_spaced(table.rows, _NAMED)
        cosines = to_float32(table.gather(told)) @ centroids.T
        ordered = told[np.argsort(cosines.mean(axis=1) - cosines[:, number], kind="stable")][: len(centroids)]
        entries = version.catalog.rows("texts", np.sort(ordered), ["row_id", "caption"])
        captions = {entry["row_id"]: str(entry["caption"] or "").strip() for entry in entries}
        found = (captions[row] for row in ordered.tolist())
        names.append(next((name for name in found if name not in names), ""))
    return names


def _class_names(version: IndexVersion, collection: Collection, members: Sequence[Rows]) -> list[str]:
    """Return for each cluster the value of a column with up to 30 that stands out most, if half have it."""
    names, standing_out = [""] * len(members), [_MORE_THAN_OF_ALL] * len(members)
    everywhere = np.concatenate(members)
    for column, kind in version.catalog.columns(collection):
        if kind != "VARCHAR" or column in _NO_CLASSES:
            continue
        values = version.catalog.table(collection, [column]).column(column).combine_chunks().dictionary_encode()
        classes = values.dictionary.to_pylist()
        if not 2 <= len(classes) <= _MOST_CLASSES:
            continue
        codes = values.indices.fill_null(len(classes)).to_numpy(zero_copy_only=False)
        base = np.bincount(codes[everywhere], minlength=len(classes) + 1)[: len(classes)] / len(everywhere)
        for number, rows in enumerate(members):
            shares = np.bincount(codes[rows], minlength=len(classes) + 1)[: len(classes)] / len(rows)
            best = int(np.argmax(shares - base))
            if shares[best] >= _OF_A_CLASS and shares[best] - base[best] > standing_out[number]:
                names[number], standing_out[number] = str(classes[best]), float(shares[best] - base[best])
    return names
