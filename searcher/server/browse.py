"""What the page opens on: what a collection is about, when it was taken, and its columns with few values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.catalog import quoted
from storage.hit_calibration import evenly_spaced
from storage.schema import Collection

from ..clusters import find_clusters

if TYPE_CHECKING:
    from storage.version import IndexVersion

_SAMPLED = 4096  # images that clusters are found among
_MOST_CLUSTERS, _SHOWN = 8, 3
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
    """Return clusters of the images, the largest first."""
    if "images" not in version.manifest.collections:
        return []
    found = find_clusters(version, "images", sampled=_SAMPLED, most=_MOST_CLUSTERS)
    return [
        Cluster(rows=found.rows[members[:_SHOWN]].tolist(), name=name, count=found.estimated(members))
        for members, name in zip(found.members, found.names, strict=True)
    ]


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
    sample = catalog.arrow(name, evenly_spaced(total, _LOOKED_AT), chosen)
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


def _literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
