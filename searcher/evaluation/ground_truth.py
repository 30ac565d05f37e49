"""The ground truth of an index: which images and texts are pairs, in one split or in all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.schema import COLLECTIONS, Collection
from storage.version import IndexVersion

from ..errors import EvaluationError

Rows = NDArray[np.int64]

# The second is what a column `split` that came beside ready-made vectors is called in the catalog.
_SPLIT_COLUMNS = ("split", "split_meta")


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """The part of an index that is measured: galleries, and the pairs between them.

    Attributes:
        split: Its name; None for the whole index.
        rows: For each collection the row ids of its gallery, ascending.
        where: For each collection the filter that leaves just this gallery; None where it is all of the collection.
        pairs: (p, 2) positions within the galleries (image, text) that belong together.
        crossing: Pairs with only one end in the split, which do not count.
    """

    split: str | None
    rows: dict[Collection, Rows]
    where: dict[Collection, str | None]
    pairs: Rows
    crossing: int

    @classmethod
    def read(cls, version: IndexVersion, location: str, split: str | None = None) -> GroundTruth:
        """Read the ground truth of a version.

        Args:
            version: An open version.
            location: The index, for messages.
            split: Only the images and texts of this split, as queries and as gallery; None for all.

        Raises:
            EvaluationError: A collection is missing, nothing is paired, or the split is unknown or empty on one side.
        """
        _check_both(version, location)
        galleries = {name: _gallery(version, name, split, location) for name in COLLECTIONS}
        rows = {name: row_ids for name, (row_ids, _) in galleries.items()}
        pairs, crossing = _pairs_within(version, rows)
        if not len(pairs):
            raise EvaluationError(_no_pairs(version, location, split))
        where = {name: condition for name, (_, condition) in galleries.items()}
        return cls(split=split, rows=rows, where=where, pairs=pairs, crossing=crossing)

    def vectors(self, version: IndexVersion, collection: Collection) -> NDArray[np.float32]:
        """Return the stored vectors of a gallery, (n, dim) float32."""
        return version.vectors(collection).gather(self.rows[collection]).astype(np.float32)


def _check_both(version: IndexVersion, location: str) -> None:
    held = list(version.manifest.collections)
    if len(held) < len(COLLECTIONS):
        missing = next(name for name in COLLECTIONS if name not in held)
        raise EvaluationError(
            f"the index {location} has {held[0]} but no {missing}, so nothing can be scored against its pairs; "
            f"build it from a corpus with images and captions"
        )


def _gallery(
    version: IndexVersion, collection: Collection, split: str | None, location: str
) -> tuple[Rows, str | None]:
    """Row ids, and the filter that gives them, of one side."""
    total = version.vectors(collection).rows
    if split is None:
        return np.arange(total, dtype=np.int64), None
    column = split_column(version, collection, location, split)
    condition = f"{column} = '{split.replace(chr(39), 2 * chr(39))}'"
    row_ids = version.catalog.filter_rows(collection, condition)
    if not len(row_ids):
        known = Counter(version.catalog.table(collection).column(column).to_pylist())
        names = ", ".join(f"{name} ({count:,})" for name, count in sorted(known.items(), key=str) if name is not None)
        raise EvaluationError(f"the {collection} of {location} have no split {split!r}; their splits: {names}")
    return row_ids, None if len(row_ids) == total else condition


def split_column(version: IndexVersion, collection: Collection, location: str, split: str) -> str:
    """Return the column with the splits of a collection.

    Raises:
        EvaluationError: There is none.
    """
    name = known_split_column(version, collection)
    if name is None:
        raise EvaluationError(
            f"the {collection} of {location} have no splits, so there is no {split!r}; leave out the split, "
            "or build the index from a corpus that names one for each item"
        )
    return name


def known_split_column(version: IndexVersion, collection: Collection) -> str | None:
    """Return the column with the splits of a collection; None where it has no splits."""
    columns = {name for name, _ in version.catalog.columns(collection)}
    return next(
        (
            name
            for name in _SPLIT_COLUMNS
            if name in columns and len(version.catalog.filter_rows(collection, f"{name} IS NOT NULL"))
        ),
        None,
    )


def _pairs_within(version: IndexVersion, rows: dict[Collection, Rows]) -> tuple[Rows, int]:
    """Places of the pairs whose two ends are in the galleries, and how many have only one end there."""
    table = version.catalog.table("pairs")
    ends = [_positions(np.asarray(table.column(column)), rows[name]) for column, name in _PAIR_ENDS]
    inside = np.stack([known for _, known in ends], axis=1)
    both = inside.all(axis=1)
    return np.stack([positions[both] for positions, _ in ends], axis=1), int((inside.any(axis=1) & ~both).sum())


_PAIR_ENDS: tuple[tuple[str, Collection], ...] = (("image_row", "images"), ("text_row", "texts"))


def _positions(ids: Rows, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    positions = np.minimum(np.searchsorted(rows, ids), len(rows) - 1)
    return positions, rows[positions] == ids


def _no_pairs(version: IndexVersion, location: str, split: str | None) -> str:
    if split is not None and version.manifest.counts.pairs:
        return (
            f"no image of split {split!r} in {location} is paired with a text of that split; choose another split, "
            "or score the whole index"
        )
    return (
        f"the index {location} has no pairs of image and text, so there is nothing to score it against; build it from "
        "a corpus with captions, or name --pairs beside ready-made vectors"
    )
