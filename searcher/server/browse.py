"""What the page opens on: what a collection is about, when it was taken, and its columns with few values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.catalog import quoted
from storage.exact_search import to_float32
from storage.partners import Partners
from storage.schema import Collection

if TYPE_CHECKING:
    from storage.version import IndexVersion

# Rows that are looked at for clusters and for their names, evenly spaced.
_SAMPLED, _NAMED = 4096, 20_000
_MOST_CLUSTERS, _ROWS_A_CLUSTER, _SHOWN = 8, 8, 3
_TELLING = 24  # images at the centre of a cluster whose captions may name it
_ROUNDS = 12
_MOST_VALUES, _MOST_FACETS = 12, 6
# A column has few values if these rows have few.
_LOOKED_AT = 2_000
_LARGEST_FACET_TABLE = 2_000_000
_KINDS = ("VARCHAR", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_NO_FACETS = frozenset(
    {
        *("row_id", "item_id", "uri", "caption", "sha256", "file_bytes", "mtime_ns", "perceptual_hash"),
        *("width", "height", "title", "taken_at_offset", "iso"),
    }
)
_MOST_YEARS, _MONTHS_UP_TO = 60, 2


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One value of a facet or a time line: its filter, how many items there are, and their share of the largest."""

    label: str
    where: str
    count: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Facet:
    """A column with few values, or a time line."""

    title: str
    choices: Sequence[Choice]
    is_time: bool = False


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Images that are alike: rows to show, the most central first; their name, if texts give one; about how many."""

    rows: Sequence[int]
    name: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What a version has to browse by."""

    clusters: Sequence[Cluster] = ()
    facets: Mapping[Collection, Sequence[Facet]] = field(default_factory=dict)


def overview(version: IndexVersion) -> Overview:
    """Return what an open version has to browse by; takes a second for a million images, so once a version."""
    facets = {name: _facets(version, name) for name in version.manifest.collections}
    return Overview(clusters=_clusters(version), facets=facets)


def _clusters(version: IndexVersion) -> list[Cluster]:
    """Return clusters of the images by spherical k-means over some thousand of them, the largest first."""
    if "images" not in version.manifest.collections:
        return []
    table = version.vectors("images")
    rows = _spread(table.rows, _SAMPLED)
    count = min(_MOST_CLUSTERS, len(rows) // _ROWS_A_CLUSTER)
    if count < 2:
        return []
    vectors = to_float32(table.gather(rows))
    means = faiss.Kmeans(
        vectors.shape[1], count, niter=_ROUNDS, seed=7, spherical=True, min_points_per_centroid=1, verbose=False
    )
    means.train(vectors)
    centroids = np.asarray(means.centroids)
    cosines = vectors @ centroids.T
    nearest = cosines.argmax(axis=1)
    groups = []
    for number in range(count):
        own = np.flatnonzero(nearest == number)
        groups.append(own[np.argsort(-cosines[own, number], kind="stable")])
    names = _names(version, centroids, [rows[own[:_TELLING]] for own in groups])
    clusters = [
        Cluster(rows=rows[own[:_SHOWN]].tolist(), name=name, count=round(len(own) * table.rows / len(rows)))
        for own, name in zip(groups, names, strict=True)
        if len(own)
    ]
    return sorted(clusters, key=lambda one: -one.count)


def _names(version: IndexVersion, centroids: NDArray[np.float32], central: Sequence[NDArray[np.int64]]) -> list[str]:
    """Return for each cluster the caption of its central images that is near to its centroid and less so to others.

    Images without captions are named by whatever text is; without texts names are empty.
    """
    if "texts" not in version.manifest.collections:
        return [""] * len(centroids)
    partners = Partners.of(version.catalog.table("pairs"), "images", version.vectors("images").rows)
    table = version.vectors("texts")
    names: list[str] = []
    for number, rows in enumerate(central):
        told = np.unique(partners.among(rows)[1])
        told = told if len(told) else _spread(table.rows, _NAMED)
        cosines = to_float32(table.gather(told)) @ centroids.T
        ordered = told[np.argsort(cosines.mean(axis=1) - cosines[:, number], kind="stable")][: len(centroids)]
        entries = version.catalog.rows("texts", np.sort(ordered), ["row_id", "caption"])
        captions = {entry["row_id"]: str(entry["caption"] or "").strip() for entry in entries}
        found = (captions[row] for row in ordered.tolist())
        names.append(next((name for name in found if name not in names), ""))
    return names


def _facets(version: IndexVersion, name: Collection) -> list[Facet]:
    catalog = version.catalog
    total = version.manifest.counts.images if name == "images" else version.manifest.counts.texts
    columns = [(column, kind) for column, kind in catalog.columns(name) if column not in _NO_FACETS]
    facets = []
    if name == "images" and ("taken_at", "TIMESTAMP") in columns:
        facets += _time_line(catalog.table(name, ["taken_at"]).column("taken_at"))
    chosen = [column for column, kind in columns if kind in _KINDS]
    if not chosen or total > _LARGEST_FACET_TABLE:
        return facets
    sample = catalog.arrow(name, _spread(total, _LOOKED_AT), chosen)
    few = [column for column in chosen if 0 < pc.count_distinct(sample.column(column)).as_py() <= _MOST_VALUES]
    for column in few[: 2 * _MOST_FACETS]:
        facets += _facet(column, catalog.table(name, [column]).column(0))
    return facets[: _MOST_FACETS + 1]


def _facet(column: str, values: pa.ChunkedArray) -> list[Facet]:
    counted = sorted(
        ((one["values"], one["counts"]) for one in values.value_counts().to_pylist() if one["values"] is not None),
        key=lambda one: (-one[1], str(one[0])),
    )
    if not 2 <= len(counted) <= _MOST_VALUES:
        return []
    choices = [
        Choice(
            label=str(value), where=f"{quoted(column)} = {_literal(value)}", count=count, share=count / counted[0][1]
        )
        for value, count in counted
    ]
    return [Facet(title=column, choices=choices)]


def _time_line(taken: pa.ChunkedArray) -> list[Facet]:
    """Return how many images are of each year, or of each month where there are few years; none without dates."""
    times = taken.drop_null().cast(pa.timestamp("s"), safe=False).to_numpy()
    if not len(times):
        return []
    unit = "Y" if len(np.unique(times.astype("datetime64[Y]"))) > _MONTHS_UP_TO else "M"
    starts, counts = np.unique(times.astype(f"datetime64[{unit}]"), return_counts=True)
    if not 2 <= len(starts) <= _MOST_YEARS:
        return []
    choices = []
    for start, count in zip(starts, counts.tolist(), strict=True):
        first, after = (one.astype("datetime64[D]") for one in (start, start + 1))
        where = f"taken_at >= DATE '{first}' AND taken_at < DATE '{after}'"
        choices.append(Choice(label=str(start), where=where, count=count, share=count / int(counts.max())))
    return [Facet(title="When", choices=choices, is_time=True)]


def _spread(total: int, most: int) -> NDArray[np.int64]:
    """Return rows from all over a collection, at most so many."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).astype(np.int64))


def _literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
