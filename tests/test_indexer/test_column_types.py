"""Every Arrow type that a column may have: what the catalog keeps of it, as metadata, id, caption and vector."""

from __future__ import annotations

import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from colour import ColourEncoder, paint

from indexer import build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, Item, SourceOptions, open_source
from indexer.corpus.tables.column_types import catalog_type, common_type, from_file, json_text
from indexer.errors import SourceError
from storage import IndexStore

KEY = uuid.uuid5(uuid.NAMESPACE_URL, "0")


def extension(kind: pa.DataType, values: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


class Unknown(pa.ExtensionType):
    """An extension of somebody's own."""

    def __init__(self) -> None:
        super().__init__(pa.int32(), "test.unknown")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


COLUMNS = [
    (pa.array([KEY.bytes, None], pa.uuid()), pa.string(), str(KEY)),
    (pa.array(['{"a":1}', None], pa.json_()), pa.string(), '{"a":1}'),
    (extension(pa.bool8(), [1, None]), pa.bool_(), True),
    (extension(pa.opaque(pa.string(), "point", "x"), ["q", None]), pa.string(), "q"),
    (extension(pa.fixed_shape_tensor(pa.float32(), [2]), [[1, 2.5], None]), pa.string(), "[1.0, 2.5]"),
    (extension(Unknown(), [7, None]), pa.int32(), 7),
    (pa.array(["a", None]).dictionary_encode(), pa.string(), "a"),
    (pa.array([5, None]).dictionary_encode(), pa.int64(), 5),
    (pc.run_end_encode(pa.array(["a", None])), pa.string(), "a"),
    (pa.array(["a", None], pa.large_string()), pa.string(), "a"),
    (pa.array(["a", None], pa.string_view()), pa.string(), "a"),
    (pa.array([["a"], None], pa.list_view(pa.string())), pa.string(), '["a"]'),
    (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), pa.string(), '{"k": 1}'),
    (pa.array([Decimal("1.50"), None], pa.decimal256(50, 2)), pa.string(), "1.50"),
    (pa.array([Decimal("1.50"), None], pa.decimal32(5, 2)), pa.decimal128(5, 2), Decimal("1.50")),
    (pa.array([2**64 - 1, None], pa.uint64()), pa.uint64(), 2**64 - 1),
    (pa.array([5, None], pa.time32("ms")), pa.string(), "00:00:00.005"),
    (pa.array([90, None], pa.duration("s")), pa.string(), "0:01:30"),
    (pa.nulls(2), pa.string(), None),
]


@pytest.mark.parametrize(("column", "kind", "value"), COLUMNS, ids=[str(one[0].type)[:30] for one in COLUMNS])
def test_every_type_has_one_in_the_catalog(column: pa.Array, kind: pa.DataType, value: Any) -> None:
    assert catalog_type(column.type) == kind
    assert from_file(column).type == kind
    assert from_file(column).to_pylist() == [value, None]


PARQUET = [one for one in COLUMNS if not pa.types.is_run_end_encoded(one[0].type)]


@pytest.mark.parametrize(("column", "kind", "value"), PARQUET, ids=[str(one[0].type)[:30] for one in PARQUET])
def test_every_type_that_parquet_holds_is_indexed(
    tmp_path: Path, column: pa.Array, kind: pa.DataType, value: Any
) -> None:
    images = [paint(tmp_path / f"{colour}.png", colour).name for colour in ("red", "blue")]
    pq.write_table(pa.table({"image": images, "extra": column}), tmp_path / "t.parquet")
    build_index(tmp_path / "t.parquet", tmp_path / "out", encoder=ColourEncoder())
    with IndexStore.open(tmp_path / "out").open_version() as version:
        rows = version.catalog.rows("images", [0, 1])
    found = rows[0]["extra"]
    assert (str(found) if str(kind) == "string" and found is not None else found) == value
    assert rows[1]["extra"] is None


def test_a_uuid_is_an_id_a_caption_and_a_path(tmp_path: Path) -> None:
    column = pa.array([KEY.bytes], pa.uuid())
    pq.write_table(pa.table({"id": column, "image": column, "text": column}), tmp_path / "t.parquet")
    options = SourceOptions(id="id", image="image", text="text")
    image, text = open_source(tmp_path / "t.parquet", options).items()
    assert isinstance(image, Item)
    assert (image.item_id, image.content) == (str(KEY), tmp_path / str(KEY))
    assert isinstance(text, Item)
    assert text.content == str(KEY)


def test_nested_values_hold_no_representation_of_python() -> None:
    value = {"key": KEY, "raw": b"\xff\xd8", "name": b"x", "no": float("nan"), "map": [("k", b"v")]}
    assert json_text(value) == f'{{"key": "{KEY}", "raw": "(2 bytes)", "name": "x", "no": null, "map": {{"k": "v"}}}}'


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([pa.int32(), pa.int64()], pa.int64()),
        ([pa.null(), pa.int16()], pa.int16()),
        ([pa.int8(), pa.float32()], pa.float32()),
        ([pa.int64(), pa.float64()], pa.string()),
        ([pa.uint64(), pa.int64()], pa.string()),
        ([pa.string(), pa.int64()], pa.string()),
        ([pa.null()], pa.string()),
        ([pa.dictionary(pa.int8(), pa.string()), pa.large_string()], pa.string()),
    ],
)
def test_parts_of_a_table_have_a_type_in_common_that_loses_nothing(
    kinds: list[pa.DataType], expected: pa.DataType
) -> None:
    assert common_type(kinds) == expected


def test_a_date_beyond_the_calendar_is_one_clear_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"], "day": pa.array([400_000 * 365], pa.date32())}), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=r"column 'day' of t\.parquet holds a date .* outside the years 1 to 9999"):
        list(open_source(tmp_path / "t.parquet").items())


def test_ids_and_metadata_beside_vectors_may_have_any_type(tmp_path: Path) -> None:
    vectors = extension(pa.fixed_shape_tensor(pa.float32(), [3]), np.eye(3, dtype=np.float32)[:2].tolist())
    keys = pa.array([KEY.bytes, uuid.UUID(int=1).bytes], pa.uuid())
    table = {"vector": vectors, "id": keys, "owner": keys, "state": pa.array(["a", "b"]).dictionary_encode()}
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    source = EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=tmp_path / "v.parquet")))
    (chunk,) = source.chunks("images")
    assert chunk.item_ids == [str(KEY), str(uuid.UUID(int=1))]
    np.testing.assert_array_equal(chunk.vectors, np.eye(3)[:2])
    assert chunk.metadata.to_pylist()[0] == {"owner": str(KEY), "state": "a"}


def test_whole_float_ids_beside_vectors_have_no_point(tmp_path: Path) -> None:
    pq.write_table(pa.table({"vector": [[1.0, 0.0]], "id": [3.0]}), tmp_path / "v.parquet")
    source = EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=tmp_path / "v.parquet")))
    (chunk,) = source.chunks("images")
    assert chunk.item_ids == ["3"]
