from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from storage import VectorTable, compiled
from storage.errors import CorruptIndexError, SearchParameterError, StorageError
from storage.vectors import VectorWriter

ROWS, DIM = 25, 6


def rows(count: int = ROWS) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, DIM)).astype(np.float32)


def ids(count: int = ROWS) -> list[str]:
    return [f"item {row} ü" for row in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with VectorWriter(tmp_path / "vectors.arrow", DIM, batch_rows=10) as writer:
        writer.append(ids(), rows())
    return tmp_path / "vectors.arrow"


def test_rows_come_back_rounded_to_half_precision(path: Path) -> None:
    with VectorTable.open(path) as table:
        assert (table.rows, table.dim) == (ROWS, DIM)
        np.testing.assert_array_equal(table.gather(np.arange(ROWS)), rows().astype(np.float16))


def test_gather_keeps_order_duplicates_and_shape(path: Path) -> None:
    wanted = np.array([[24, 0, 9], [10, 10, 19]])
    found = VectorTable.open(path).gather(wanted)
    assert found.shape == (2, 3, DIM)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, rows().astype(np.float16)[wanted])


def test_gather_of_nothing_has_the_shape_of_nothing(path: Path) -> None:
    assert VectorTable.open(path).gather(np.empty((0, 3), dtype=np.int64)).shape == (0, 3, DIM)


@pytest.mark.parametrize("row", [-1, ROWS])
def test_a_row_that_is_not_there_is_named(path: Path, row: int) -> None:
    table = VectorTable.open(path)
    with pytest.raises(SearchParameterError, match=f"row id {row} is not in .*rows 0 to 24"):
        table.gather(np.array([0, row]))
    with pytest.raises(SearchParameterError, match=f"row id {row} is not in"):
        table.item_ids(np.array([row]))


@pytest.mark.parametrize("size", [1, 7, 10, 20, 1000])
def test_chunks_cover_all_rows_in_order_as_float32(path: Path, size: int) -> None:
    chunks = list(VectorTable.open(path).chunks(size))
    assert [start for start, _ in chunks] == list(range(0, ROWS, size))
    whole = np.concatenate([block for _, block in chunks])
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, rows().astype(np.float16).astype(np.float32))


def test_a_chunk_has_at_least_one_row(path: Path) -> None:
    with pytest.raises(SearchParameterError, match="chunk size is 0; give 1 or more"):
        next(VectorTable.open(path).chunks(0))


@pytest.mark.parametrize("count", [0, 1, 128, 500])
def test_item_ids_are_the_same_without_a_compiler(path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(count).integers(0, ROWS, count)
    found = VectorTable.open(path).item_ids(rows).tolist()
    monkeypatch.setattr(compiled, "list_scan", None)
    assert found == VectorTable.open(path).item_ids(rows).tolist() == [f"item {row} ü" for row in rows]


@pytest.mark.skipif(compiled.list_scan is None, reason="nothing was compiled")
def test_compiled_strings_never_read_outside_their_bytes() -> None:
    strings = compiled.list_scan.open_strings(
        3, 2, (np.array([0, 1, 99], np.int32), b"ab", np.array([-4, 1], "i4"), b"c")
    )
    assert compiled.list_scan.strings_at(strings, np.array([0])) == ["a"]
    for row in (1, 2):
        with pytest.raises(ValueError, match="lies outside its bytes"):
            compiled.list_scan.strings_at(strings, np.array([0, row]))
    assert compiled.list_scan.strings_at(strings, np.array([3])) is None
    for wrong in [(np.array([0], np.int32), b"a"), ()]:
        with pytest.raises(ValueError, match="rows"):
            compiled.list_scan.open_strings(1, 2, wrong)
    with pytest.raises(ValueError, match="can't decode"):
        compiled.list_scan.strings_at(
            compiled.list_scan.open_strings(1, 1, (np.array([0, 1], np.int32), b"\xff")), np.array([0])
        )


def test_item_ids_come_in_the_order_and_shape_asked(path: Path) -> None:
    found = VectorTable.open(path).item_ids(np.array([[24, 3], [3, 10]]))
    assert found.tolist() == [["item 24 ü", "item 3 ü"], ["item 3 ü", "item 10 ü"]]
    assert VectorTable.open(path).item_ids(np.array([], dtype=np.int64)).shape == (0,)


def test_find_gives_row_ids_and_minus_one_for_strangers(path: Path) -> None:
    table = VectorTable.open(path)
    assert table.find(["item 24 ü", "nobody", "item 0 ü", "item 24 ü"]).tolist() == [24, -1, 0, 24]
    assert table.find([]).tolist() == []


def test_an_open_table_outlives_its_file_and_rows_outlive_the_table(path: Path) -> None:
    table = VectorTable.open(path)
    path.unlink()
    found = table.gather(np.array([3]))
    table.close()
    np.testing.assert_array_equal(found[0], rows().astype(np.float16)[3])
    with pytest.raises(SearchParameterError, match="row id 3 is not in"):
        table.gather(np.array([3]))


@settings(max_examples=30, deadline=None)
@given(
    vectors=arrays(np.float16, st.tuples(st.integers(0, 30), st.just(3)), elements=st.floats(-1, 1, width=16)),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    batch_rows=st.integers(1, 12),
)
def test_the_bytes_depend_only_on_the_rows(
    tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray, cuts: list[int], batch_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("vectors")
    names = ids(len(vectors))
    with VectorWriter(folder / "whole", 3, batch_rows) as writer:
        writer.append(pa.array(names, pa.string()), vectors)
    with VectorWriter(folder / "parts", 3, batch_rows) as writer:
        edges = [0, *sorted(min(cut, len(vectors)) for cut in cuts), len(vectors)]
        for start, stop in pairwise(edges):
            writer.append(names[start:stop], vectors[start:stop].astype(np.float32))
    assert (folder / "whole").read_bytes() == (folder / "parts").read_bytes()
    with VectorTable.open(folder / "whole") as table:
        np.testing.assert_array_equal(table.gather(np.arange(table.rows)), vectors)
        assert table.item_ids(np.arange(table.rows)).tolist() == names


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_value_that_half_precision_cannot_hold_is_refused_with_its_item(tmp_path: Path, value: float) -> None:
    vectors = rows()
    vectors[12, 3] = value
    with (
        VectorWriter(tmp_path / "v", DIM, batch_rows=10) as writer,
        pytest.raises(StorageError, match="item 'item 12 ü' holds NaN, infinity or a value beyond float16"),
    ):
        writer.append(ids(), vectors)


def test_ids_and_vectors_must_be_as_many(tmp_path: Path) -> None:
    with VectorWriter(tmp_path / "v", DIM) as writer:
        with pytest.raises(StorageError, match=r"shape \(25, 6\) do not fit 3 item ids"):
            writer.append(ids(3), rows())
        with pytest.raises(StorageError, match="item_id None is not a string"):
            writer.append([None], rows(1))  # type: ignore[list-item]
        with pytest.raises(StorageError, match="item_id 7 is not a string"):
            writer.append(["", 7], rows(2))  # type: ignore[list-item]


def test_a_closed_writer_takes_no_more_and_may_be_closed_again(tmp_path: Path) -> None:
    writer = VectorWriter(tmp_path / "v", DIM)
    writer.append(ids(), rows())
    writer.close()
    writer.close()
    assert writer.rows == ROWS
    with pytest.raises(StorageError, match="is closed"):
        writer.append(ids(), rows())


def test_a_writer_that_fails_leaves_no_readable_file(tmp_path: Path) -> None:
    writer = VectorWriter(tmp_path / "v", DIM, batch_rows=20)
    writer.append(ids(), rows())
    with pytest.raises(StorageError, match="do not fit"), writer:
        writer.append([*ids(), "one too many"], rows())
    with pytest.raises(CorruptIndexError, match="is not a whole file of vectors"):
        VectorTable.open(tmp_path / "v")


def test_a_file_that_exists_is_not_overwritten(path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*vectors.arrow: File exists"):
        VectorWriter(path, DIM)


def test_a_writer_needs_a_dim(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="vectors of dim 0"):
        VectorWriter(tmp_path / "v", 0)


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "v"
    writer = VectorWriter(script, DIM, batch_rows=10)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._file.fileno())  # what is written from here on finds no space
    os.close(full)
    writer.append(ids(5), rows(5))
    with pytest.raises(StorageError, match=r"cannot write .*: No space left on device; free some space"):
        writer.close()


def test_what_is_no_file_of_vectors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v"
    with pytest.raises(CorruptIndexError, match="is missing"):
        VectorTable.open(path)
    path.touch()
    with pytest.raises(CorruptIndexError, match="is empty"):
        VectorTable.open(path)
    path.write_bytes(b"something else")
    with pytest.raises(CorruptIndexError, match="is not a whole file of vectors"):
        VectorTable.open(path)


def other_file(path: Path, batches: list[pa.RecordBatch], metadata: dict[str, str] | None) -> None:
    schema = batches[0].schema.with_metadata(metadata)
    with pa.ipc.new_file(str(path), schema) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(metadata))


def test_an_arrow_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    other_file(tmp_path / "v", [pa.record_batch({"x": [1, 2]})], {"dim": "2", "batch_rows": "2"})
    with pytest.raises(CorruptIndexError, match="its columns are not item_id and vector"):
        VectorTable.open(tmp_path / "v")


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(CorruptIndexError, match="it is a symbolic link"):
        VectorTable.open(tmp_path / "link")


def test_batches_of_unequal_size_are_refused(path: Path, tmp_path: Path) -> None:
    with pa.ipc.open_file(str(path)) as reader:
        batches = [reader.get_batch(number) for number in (2, 0, 1)]  # the short one first
        with pa.ipc.new_file(str(tmp_path / "v"), reader.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    with pytest.raises(CorruptIndexError, match="batch 0 has 5 rows and not 10"):
        VectorTable.open(tmp_path / "v")


def test_missing_values_and_compressed_values_are_refused(path: Path, tmp_path: Path) -> None:
    with pa.ipc.open_file(str(path)) as reader:
        schema, batch = reader.schema, reader.get_batch(0)
    with pa.ipc.new_file(str(tmp_path / "v"), schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    with pytest.raises(CorruptIndexError, match="the values of a batch lie outside the file"):
        VectorTable.open(tmp_path / "v")
    nulls = pa.RecordBatch.from_arrays([pa.nulls(10, pa.string()), batch.column(1)], schema=schema)
    with pa.ipc.new_file(str(tmp_path / "w"), schema) as writer:
        writer.write_batch(nulls)
    with pytest.raises(CorruptIndexError, match="batch 0 holds missing values"):
        VectorTable.open(tmp_path / "w")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_ends_in_an_error_or_in_a_table_that_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "v"
    with VectorWriter(path, DIM, batch_rows=10) as writer:
        writer.append(ids(), rows())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        table = VectorTable.open(path)
    except CorruptIndexError:
        return
    table.gather(np.arange(table.rows))
    table.item_ids(np.arange(table.rows))
