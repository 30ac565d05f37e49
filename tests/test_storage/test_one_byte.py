from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vector_tables import unit_rows

from storage import VectorTable
from storage.errors import CorruptIndexError
from storage.exact_search import exact_search, rerank
from storage.one_byte import MOST, decode, decode_float16, encode, wrong_rows
from storage.vectors import VectorWriter

LEVELS = [*range(64), *range(64, 128, 2), *range(128, 253, 4)]
SCALES = np.arange(1, 0x5C01, dtype=np.uint16).view(np.float16)  # to 256, whose largest product is 64,512


def with_outlier(rows: int, dim: int) -> np.ndarray:
    """Unit vectors of which one value is ten times as large as the others, as those of CLIP have."""
    vectors = unit_rows(rows, dim)
    vectors[:, 3] = 10 / np.sqrt(dim)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_every_level_of_every_scale_is_a_float16() -> None:
    numbers = np.arange(-MOST, MOST + 1, dtype=np.int8)[None]
    scales = SCALES[~wrong_rows(np.zeros((len(SCALES), 1), np.int8), SCALES)]
    assert len(scales) == 31 + 16 * 27 + 1  # up to 31 of the smallest steps, sixteen an octave from there, and 256
    every = np.repeat(numbers, len(scales), axis=0)
    exact = np.multiply.outer(scales.astype(np.float64), [-level for level in LEVELS[:0:-1]] + LEVELS)
    np.testing.assert_array_equal(decode(every, scales), exact)
    np.testing.assert_array_equal(decode_float16(every, scales), exact)
    assert decode_float16(every, scales).dtype == np.float16


@settings(max_examples=60, deadline=None)
@given(
    rows=arrays(
        np.float16, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-65504, 65504, width=16)
    )
)
def test_rows_that_were_rounded_before_stay_as_they_are(rows: np.ndarray) -> None:
    once = encode(rows)
    stored = decode_float16(once.numbers, once.scales)
    assert np.isfinite(stored).all()
    again = encode(stored)
    np.testing.assert_array_equal(again.numbers, once.numbers)
    np.testing.assert_array_equal(again.scales, once.scales)
    assert again.lost == 0


@pytest.mark.parametrize("make", [unit_rows, with_outlier])
def test_lengths_stay_and_no_score_is_further_off_than_what_is_lost(make: object) -> None:
    rows = make(2000, 128).astype(np.float16)  # type: ignore[operator]
    encoded = encode(rows)
    stored, given = (one.astype(np.float64) for one in (decode(encoded.numbers, encoded.scales), rows))
    assert np.abs(np.linalg.norm(stored, axis=1) - np.linalg.norm(given, axis=1)).max() < 1e-4
    off = np.linalg.norm(stored - given, axis=1)
    assert off.max() == pytest.approx(encoded.lost, rel=1e-6)
    assert encoded.lost < 0.02  # evenly spaced levels lose 0.026 of rows with an outlier
    worst = (stored - given)[off.argmax()] / off.max()
    assert abs(worst @ (stored - given).T).max() == pytest.approx(encoded.lost, rel=1e-6)
    queries = unit_rows(50, 128, seed=1)
    assert np.abs(queries @ (stored - given).T).max() <= encoded.lost


@pytest.mark.parametrize("value", [0.0, 2.0**-24, 3 * 2.0**-24, 6e-5, 65504.0])
def test_rows_at_the_ends_of_float16(value: float) -> None:
    rows = np.array([[value, 0, 0], [-value, value, value]], dtype=np.float16)
    encoded = encode(rows)
    stored = decode_float16(encoded.numbers, encoded.scales).astype(np.float64)
    assert (encoded.scales > 0).all()
    np.testing.assert_allclose(stored, rows.astype(np.float64), rtol=0.016, atol=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with VectorWriter(tmp_path / "v", 48, batch_rows=10, dtype="int8") as writer:
        writer.append([f"item {row}" for row in range(25)], with_outlier(25, 48))
    assert 0 < writer.lost < 0.02
    return tmp_path / "v"


def test_a_table_gives_the_rows_that_it_stores_in_every_form(path: Path) -> None:
    encoded = encode(with_outlier(25, 48).astype(np.float16))
    stored = decode_float16(encoded.numbers, encoded.scales)
    with VectorTable.open(path) as table:
        assert (table.rows, table.dim, table.dtype) == (25, 48, "int8")
        wanted = np.array([[24, 0, 9], [10, 10, 19]])
        found = table.gather(wanted)
        assert found.flags.c_contiguous
        assert found.flags.writeable
        np.testing.assert_array_equal(found, stored[wanted])
        np.testing.assert_array_equal(table.gather_float32(wanted), stored[wanted])
        np.testing.assert_array_equal(table.gather_float32(wanted, scaled=True) * np.float32(2.0**112), stored[wanted])
        assert table.gather(np.empty((0, 3), dtype=np.int64)).shape == (0, 3, 48)
        for size in (1, 7, 10, 1000):
            np.testing.assert_array_equal(np.concatenate([block for _, block in table.chunks(size)]), stored)
        assert table.item_ids(np.array([24])).tolist() == ["item 24"]
        assert len(table.wrong_rows(0, 25)) == 0


def test_a_score_is_the_same_however_a_row_is_found(path: Path) -> None:
    queries = unit_rows(3, 48, seed=5)
    with VectorTable.open(path) as table:
        every = exact_search(table, queries, 25)
        few = exact_search(table, queries, 25, rows=np.arange(25))
        again = rerank(table, queries, np.tile(np.arange(25), (3, 1)), 25)
        for ids, scores in (few, again):
            np.testing.assert_array_equal(ids, every[0])
            np.testing.assert_array_equal(scores, every[1])
        truth = queries.astype(np.float64) @ table.gather(np.arange(25)).astype(np.float64).T
        np.testing.assert_allclose(np.take_along_axis(truth, every[0], axis=1), every[1], atol=1e-6)


def test_the_bytes_of_a_file_depend_on_its_rows_alone(path: Path, tmp_path: Path) -> None:
    with VectorWriter(tmp_path / "w", 48, batch_rows=10, dtype="int8") as writer, VectorTable.open(path) as table:
        for row in range(25):
            writer.append([f"item {row}"], table.gather(np.array([row])))
    assert (tmp_path / "w").read_bytes() == path.read_bytes()
    assert writer.lost == 0


@pytest.mark.parametrize("scale", [np.nan, np.inf, 0, -0.01, 0.0101])
def test_a_scale_that_no_row_has_is_found(path: Path, tmp_path: Path, scale: float) -> None:
    damaged = rewritten(path, tmp_path / "w", lambda batch: with_scale(batch, 3, scale))
    with VectorTable.open(damaged) as table:
        assert table.wrong_rows(0, 25).tolist() == [3, 13, 23]
        assert table.wrong_rows(4, 13).tolist() == []


def test_a_level_that_no_value_has_is_found(path: Path, tmp_path: Path) -> None:
    def changed(batch: pa.RecordBatch) -> pa.RecordBatch:
        numbers = np.array(batch.column(1).values)
        numbers[48 + 7] = -128
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers), type=batch.schema.field(1).type)
        return pa.record_batch([batch.column(0), vectors, batch.column(2)], schema=batch.schema)

    with VectorTable.open(rewritten(path, tmp_path / "w", changed)) as table:
        assert table.wrong_rows(0, 25).tolist() == [1, 11, 21]


def test_a_file_without_its_scales_is_refused(path: Path, tmp_path: Path) -> None:
    with pa.ipc.open_file(str(path)) as reader:
        schema, batch = reader.schema.remove(2), reader.get_batch(0)
    with pa.ipc.new_file(str(tmp_path / "w"), schema) as writer:
        writer.write_batch(pa.record_batch(batch.columns[:2], schema=schema))
    with pytest.raises(CorruptIndexError, match="its columns are not item_id and vector"):
        VectorTable.open(tmp_path / "w")


def test_scales_beyond_the_file_are_refused(path: Path, tmp_path: Path) -> None:
    with pa.ipc.open_file(str(path)) as reader:
        schema, batch = reader.schema, reader.get_batch(0)
    with pa.ipc.new_file(str(tmp_path / "w"), schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    with pytest.raises(CorruptIndexError, match="the values of a batch lie outside the file"):
        VectorTable.open(tmp_path / "w")


def with_scale(batch: pa.RecordBatch, row: int, scale: float) -> pa.RecordBatch:
    scales = np.array(batch.column(2))
    scales[row] = scale
    return pa.record_batch([*batch.columns[:2], pa.array(scales)], schema=batch.schema)


def rewritten(path: Path, target: Path, changed: object) -> Path:
    with pa.ipc.open_file(str(path)) as reader, pa.ipc.new_file(str(target), reader.schema) as writer:
        for number in range(reader.num_record_batches):
            writer.write_batch(changed(reader.get_batch(number)))  # type: ignore[operator]
    return target
