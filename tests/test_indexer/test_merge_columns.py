"""The columns of many shards become those of the catalog, and empty ones take no memory on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from indexer.encode.shards import ITEM_FIELDS
from indexer.errors import BuildError
from indexer.merge import Merger
from storage.catalog import Catalog


def shard(first: int, count: int = 3, **given: list) -> pa.Table:
    ids = [f"item {number}" for number in range(first, first + count)]
    known = {"collection": ["images"] * count, "item_id": ids, "uri": ids} | given
    columns = {
        field.name: pa.array(known.get(field.name, [None] * count), field.type)
        for field in [*ITEM_FIELDS, *(pa.field(name, pa.int64()) for name in known if name.startswith("metadata."))]
    }
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.full(4 * count, 0.5, np.float16)), 4)
    return pa.table({**columns, "vector": vectors})


def test_a_column_that_some_shards_have_values_in_is_whole(tmp_path: Path) -> None:
    merger = Merger(tmp_path, 4)
    merger.add(shard(0))
    merger.add(shard(3, width=[640, None, 320]))
    merger.add(shard(6, 1))
    counts = merger.finish()
    assert (counts.images, counts.rejected) == (7, 0)
    with Catalog.open(tmp_path / "catalog.duckdb") as catalog:
        table = catalog.table("images", ["row_id", "item_id", "width", "height", "taken_at"])
    assert table.column("item_id").to_pylist() == [f"item {number}" for number in range(7)]
    assert table.column("width").to_pylist() == [None, None, None, 640, None, 320, None]
    assert table.column("height").null_count == table.column("taken_at").null_count == 7


def test_what_is_kept_of_a_shard_has_no_empty_columns(tmp_path: Path) -> None:
    merger = Merger(tmp_path, 4)
    for first in range(0, 30, 3):
        merger.add(shard(first))
    kept = {name for table in merger._tables["images"] for name in table.column_names}
    merger.finish()
    assert kept == {"item_id", "uri"}


def test_shards_of_unlike_columns_are_refused(tmp_path: Path) -> None:
    merger = Merger(tmp_path, 4)
    merger.add(shard(0, **{"metadata.price": [1, 2, 3]}))
    with pytest.raises(BuildError, match="shards of images have unlike columns"):
        merger.add(shard(3))
    merger.finish()
