"""What the catalog alone tells: leaks across splits, repeated captions, items without partner, columns, rejections."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.duplicates.texts import normalized
from storage.partners import Partners
from storage.schema import IMAGE_INFO_COLUMNS, ITEM_COLUMNS, Collection
from storage.version import IndexVersion

from ..evaluation.ground_truth import known_split_column
from ..evaluation.leaks import SideLeaks

Rows = NDArray[np.int64]
MOST_TEXTS = 1_000_000
MOST_SPLITS = 10
MOST_VALUES = 30
"""A column with more values is no list of classes."""
_NO_CLASSES = frozenset({*ITEM_COLUMNS, *IMAGE_INFO_COLUMNS} - {"camera", "lens", "rating"})


def describe(version: IndexVersion, collection: Collection, rows: Rows | list[int]) -> list[dict[str, Any]]:
    """Return `item_id`, `uri` and `caption` of rows, in their order."""
    return version.catalog.rows(collection, np.asarray(rows, dtype=np.int64), ["item_id", "uri", "caption"])


def equal_captions(version: IndexVersion) -> list[list[int]]:
    """Return the row ids of captions that stand more than once in the same words, the most frequent ones first.

    Of more than a million texts the first million are compared.
    """
    captions = version.catalog.table("texts", ["caption"]).column("caption").slice(0, MOST_TEXTS).to_pylist()
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, caption in enumerate(captions):
        if caption:
            rows[normalized(caption)].append(row)
    return sorted((same for same in rows.values() if len(same) > 1), key=len, reverse=True)


def repeated_captions(version: IndexVersion, equal: Sequence[Sequence[int]], most: int) -> dict[str, Any]:
    """Return how many captions repeat, and the most frequent of them.

    Args:
        version: An open version with texts.
        equal: What `equal_captions` gives.
        most: How many are listed.
    """
    texts = version.catalog.counts["texts"]
    first = describe(version, "texts", [rows[0] for rows in equal[:most]])
    return {
        "looked_at": min(texts, MOST_TEXTS),
        "of": texts,
        "count": len(equal),
        "captions": [
            {"caption": item["caption"], "count": len(rows)} for item, rows in zip(first, equal, strict=False)
        ],
    }


def leaks_across_splits(
    version: IndexVersion, groups: Mapping[Collection, Sequence[Sequence[int]]]
) -> list[dict[str, Any]]:
    """Return for each split (ten at most) the items of which a duplicate stands in another one, as JSON values.

    Args:
        version: An open version.
        groups: Of each collection the row ids of duplicates, a list a group.
    """
    found: dict[str, dict[str, Any]] = {}
    for collection, duplicates in groups.items():
        column = known_split_column(version, collection)
        if column is None:
            continue
        names = version.catalog.table(collection, [column]).column(column).combine_chunks().dictionary_encode()
        codes = np.asarray(pc.fill_null(names.indices, -1))
        across = _across(duplicates, codes)
        for code, split in list(enumerate(names.dictionary.to_pylist()))[:MOST_SPLITS]:
            of_split = across[codes[across[:, 0]] == code]
            rows = np.flatnonzero(codes == code)
            side = SideLeaks.of(version, collection, column, rows, (of_split[:, 0], of_split[:, 1]))
            found.setdefault(str(split), {})[collection] = side.to_json(version, collection)
    return [{"split": split, **sides} for split, sides in found.items()]


def _across(groups: Sequence[Sequence[int]], codes: NDArray[Any]) -> Rows:
    """Each item of a group with the first one of each other split in it, (p, 2) row ids."""
    pairs = []
    for rows in groups:
        first = {code: row for row, code in reversed([(row, int(codes[row])) for row in rows])}
        if len(first) > 1:
            pairs += [(row, other) for row in rows for code, other in first.items() if code != codes[row]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


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
