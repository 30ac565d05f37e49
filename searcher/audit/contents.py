"""What the catalog alone tells: leaks across splits, repeated captions, items without partner, columns, rejections."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.duplicates.pairs import ImageFacts, copies_between
from storage.duplicates.texts import normalized
from storage.partners import Partners
from storage.schema import IMAGE_INFO_COLUMNS, ITEM_COLUMNS, Collection
from storage.version import IndexVersion

from ..evaluation.ground_truth import known_split_column
from ..evaluation.leaks import SideLeaks, repeated_texts

Rows = NDArray[np.int64]
MOST_TEXTS = 1_000_000
MOST_SPLITS = 10
MOST_VALUES = 30
"""A column with more values is no list of classes."""
_NO_CLASSES = frozenset({*ITEM_COLUMNS, *IMAGE_INFO_COLUMNS} - {"camera", "lens", "rating"})


def describe(version: IndexVersion, collection: Collection, rows: Rows | list[int]) -> list[dict[str, Any]]:
    """Return `item_id`, `uri` and `caption` of rows, in their order."""
    return version.catalog.rows(collection, np.asarray(rows, dtype=np.int64), ["item_id", "uri", "caption"])


def leaks_across_splits(version: IndexVersion) -> list[dict[str, Any]]:
    """Return for each split (ten at most) the items that stand in another one too, by collection, as JSON values."""
    found: dict[str, dict[str, Any]] = {}
    for collection in version.manifest.collections:
        column = known_split_column(version, collection)
        if column is None:
            continue
        names = version.catalog.table(collection, [column]).column(column).combine_chunks().dictionary_encode()
        codes = np.asarray(pc.fill_null(names.indices, -1))
        facts = ImageFacts.read(version) if collection == "images" else None
        for code, split in list(enumerate(names.dictionary.to_pylist()))[:MOST_SPLITS]:
            here, there = np.flatnonzero(codes == code), np.flatnonzero(codes != code)
            pairs = (
                repeated_texts(version, here, there) if facts is None else copies_between(version, facts, here, there)
            )
            side = SideLeaks.of(version, collection, column, here, pairs)
            found.setdefault(str(split), {})[collection] = side.to_json(version, collection)
    return [{"split": split, **sides} for split, sides in found.items()]


def repeated_captions(version: IndexVersion, most: int) -> dict[str, Any]:
    """Return the captions that stand more than once in the same words, the most frequent first.

    Args:
        version: An open version with texts.
        most: How many are listed.
    """
    captions = version.catalog.table("texts", ["caption"]).column("caption").slice(0, MOST_TEXTS).to_pylist()
    said: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for caption in captions:
        if caption:
            words = normalized(caption)
            counted[words] += 1
            said.setdefault(words, caption)
    repeated = [(words, count) for words, count in counted.most_common() if count > 1]
    return {
        "looked_at": len(captions),
        "of": version.catalog.counts["texts"],
        "count": len(repeated),
        "captions": [{"caption": said[words], "count": count} for words, count in repeated[:most]],
    }


def without_partner(version: IndexVersion, collection: Collection, most: int) -> dict[str, Any]:
    """Return how many items of a collection are in no pair, and the first of them."""
    pairs = version.catalog.table("pairs")
    alone = np.flatnonzero(Partners.of(pairs, collection, version.vectors(collection).rows).counts() == 0)
    return {"count": len(alone), "items": describe(version, collection, alone[:most])}


def class_sizes(version: IndexVersion, collection: Collection) -> list[dict[str, Any]]:
    """Return the columns of a collection with 2 to 30 values, and how many items have each, the most frequent first."""
    found = []
    for name, _ in version.catalog.columns(collection):
        if name in _NO_CLASSES:
            continue
        column = version.catalog.table(collection, [name]).column(name)
        if pa.types.is_nested(column.type) or pa.types.is_floating(column.type):
            continue
        values = column.drop_null().value_counts()
        sizes = [(str(one["values"]), int(one["counts"])) for one in values.to_pylist()[: MOST_VALUES + 1]]
        if 2 <= len(sizes) <= MOST_VALUES:
            values_by_size = [
                {"value": value, "count": count} for value, count in sorted(sizes, key=lambda one: -one[1])
            ]
            found.append({"column": name, "missing": column.null_count, "values": values_by_size})
    return found


def rejections(version: IndexVersion) -> list[dict[str, Any]]:
    """Return how many items were rejected for each reason, the most frequent first, with one of them."""
    table = version.catalog.table("rejected", ["item_id", "collection", "reason", "detail"]).to_pylist()
    counted = Counter((row["collection"], row["reason"]) for row in table)
    first = {(row["collection"], row["reason"]): row for row in reversed(table)}
    return [
        {
            "collection": collection,
            "reason": reason,
            "count": count,
            "example": first[collection, reason]["item_id"],
            "detail": first[collection, reason]["detail"],
        }
        for (collection, reason), count in counted.most_common()
    ]
