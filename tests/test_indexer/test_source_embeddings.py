"""Ready-made vectors with their ids, captions, metadata and pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.corpus import EmbeddingChunk, EmbeddingFiles, EmbeddingOptions, EmbeddingSource
from indexer.corpus.item import Rejection
from indexer.errors import SourceError
from storage.errors import DuplicateItemError

# Of a value under one: what rounding to float16 changes at most, and a little of float32.
HALF_ULP = 2.0**-12 + 1e-6


def unit(rows: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def save(path: Path, vectors: np.ndarray) -> Path:
    np.save(path, vectors)
    return path


def images(path: Path, **files: Any) -> EmbeddingSource:
    return EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=path, **files)))


def chunks(source: EmbeddingSource) -> list[EmbeddingChunk]:
    return list(source.chunks("images"))


def rejected(source: EmbeddingSource) -> list[Rejection]:
    return [one for chunk in chunks(source) for one in chunk.rejected]


def as_lists(vectors: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(vectors.tolist(), kind or pa.list_(pa.float32()))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_vectors_come_back_in_order_as_unit_float16(tmp_path: Path, kind: type) -> None:
    vectors = unit(10)
    (chunk,) = chunks(images(save(tmp_path / "v.npy", vectors.astype(kind))))
    assert chunk.vectors.dtype == np.float16
    np.testing.assert_allclose(chunk.vectors, vectors, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(chunk.vectors.astype(np.float32), axis=1), 1, atol=2.0**-11)
    assert chunk.item_ids == [str(row) for row in range(10)]
    assert chunk.uris[3] == "v.npy#3"


@pytest.mark.parametrize("order", ["C", "F"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 40), size=st.integers(1, 50))
def test_any_chunk_size_gives_the_same_vectors(tmp_path: Path, order: str, rows: int, size: int) -> None:
    vectors = unit(rows)
    path = save(tmp_path / "v.npy", np.asarray(vectors, order=order))
    source = EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=path), chunk_rows=size))
    parts = chunks(source)
    assert all(len(part.rows) <= size for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), np.arange(rows))
    np.testing.assert_allclose(np.concatenate([part.vectors for part in parts]), vectors, atol=HALF_ULP)


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "not_finite"), (np.inf, "not_finite"), (0.0, "zero_vector"), (1e300, "not_finite")]
)
def test_a_vector_with_no_direction_is_rejected_and_the_rest_stays(tmp_path: Path, value: float, reason: str) -> None:
    vectors = unit(5).astype(np.float64)
    vectors[2] = value
    source = images(save(tmp_path / "v.npy", vectors))
    (chunk,) = chunks(source)
    assert chunk.rows.tolist() == [0, 1, 3, 4]
    assert [(one.item_id, one.stage, one.reason) for one in chunk.rejected] == [("2", "read", reason)]
    assert "row 2 of v.npy" in chunk.rejected[0].detail


def test_vectors_of_other_lengths_are_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    vectors = unit(5)
    vectors[3] *= 2.5
    with pytest.raises(SourceError, match=r"row 3 of v\.npy has length 2\.5, not 1; say --normalize"):
        chunks(images(save(tmp_path / "v.npy", vectors)))


def test_vectors_of_other_lengths_can_be_scaled(tmp_path: Path) -> None:
    path = save(tmp_path / "v.npy", unit(5) * 7)
    source = EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=path), normalize=True))
    np.testing.assert_allclose(chunks(source)[0].vectors, unit(5), atol=HALF_ULP)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(4, np.float32),
        np.zeros((2, 3), np.int64),
        np.zeros((4, 0), np.float32),
        np.zeros((2, 2, 2), np.float32),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(SourceError, match=r"v\.npy holds .* expected \(rows, dim\) of float16"):
        images(save(tmp_path / "v.npy", array))


def test_pickled_arrays_are_refused_unopened(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"is no plain \.npy array: .*Python objects"):
        images(tmp_path / "v.npy")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04pickle"])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(SourceError, match=r"is no plain \.npy array"):
        images(tmp_path / "v.npy")


def test_an_array_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "v.npy", unit(100))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SourceError, match=r"is no plain \.npy array"):
        images(path)


def test_a_folder_of_arrays_is_read_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in (10, 2, 1):
        save(folder / f"img_emb_{number}.npy", unit(3, seed=number))
    source = images(folder)
    assert source.rows("images") == 9
    expected = np.concatenate([unit(3, seed=number) for number in (1, 2, 10)])
    np.testing.assert_allclose(np.concatenate([part.vectors for part in chunks(source)]), expected, atol=HALF_ULP)
    assert [one for part in chunks(source) for one in part.item_ids] == [str(row) for row in range(9)]


def test_files_of_other_dims_are_an_error(tmp_path: Path) -> None:
    save(tmp_path / "a.npy", unit(2, dim=4))
    save(tmp_path / "b.npy", unit(2, dim=8))
    with pytest.raises(SourceError, match=r"b\.npy holds 8-d vectors, a\.npy 4-d"):
        images(tmp_path)
    both = EmbeddingOptions(
        images=EmbeddingFiles(vectors=tmp_path / "a.npy"), texts=EmbeddingFiles(vectors=tmp_path / "b.npy")
    )
    with pytest.raises(SourceError, match="image vectors are 4-d, text vectors 8-d"):
        EmbeddingSource(both)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 8), pa.large_list(pa.float16())])
def test_parquet_brings_vectors_ids_and_metadata(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"id": [7, 8, 9], "embedding": as_lists(unit(3).astype(np.float16), kind), "width": [1, 2, 3]})
    pq.write_table(table, tmp_path / "v.parquet")
    (chunk,) = chunks(images(tmp_path / "v.parquet"))
    np.testing.assert_allclose(chunk.vectors, unit(3), atol=1e-3)
    assert chunk.item_ids == ["7", "8", "9"]
    assert chunk.metadata.to_pydict() == {"width_meta": [1, 2, 3]}


def test_parquet_rows_without_a_vector_are_rejected(tmp_path: Path) -> None:
    vectors: list[Any] = unit(3).tolist()
    vectors[1], vectors[2][0] = None, None
    pq.write_table(pa.table({"v": pa.array(vectors, pa.list_(pa.float32()))}), tmp_path / "v.parquet")
    assert [(one.item_id, one.reason) for one in rejected(images(tmp_path / "v.parquet"))] == [
        ("1", "not_finite"),
        ("2", "not_finite"),
    ]


def test_parquet_vectors_of_unequal_length_are_an_error(tmp_path: Path) -> None:
    vectors = [[1.0, 0.0], [1.0, 0.0], [1.0]]
    pq.write_table(pa.table({"v": pa.array(vectors, pa.list_(pa.float32()))}), tmp_path / "v.parquet")
    with pytest.raises(SourceError, match=r"row 2 of v\.parquet has 1 numbers in column 'v', others have 2"):
        chunks(images(tmp_path / "v.parquet"))


def test_parquet_with_several_vector_columns_asks_which(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": as_lists(unit(2)), "b": as_lists(unit(2)), "n": [1, 2]}), tmp_path / "v.parquet")
    with pytest.raises(SourceError, match="has 2 vector columns; name one of its columns of float lists: a, b"):
        images(tmp_path / "v.parquet")
    with pytest.raises(SourceError, match="no vector column 'n'"):
        images(tmp_path / "v.parquet", vector_column="n")
    assert images(tmp_path / "v.parquet", vector_column="b").dim == 8


@pytest.mark.parametrize(
    ("name", "content"), [("ids.txt", "a\nb\nc\n"), ("ids.csv", "id,n\na,1\nb,2\nc,3\n"), ("ids.csv", "key\na\nb\nc\n")]
)
def test_ids_come_from_a_text_file_or_a_table(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    (chunk,) = chunks(images(save(tmp_path / "v.npy", unit(3)), ids=tmp_path / name))
    assert chunk.item_ids == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ("a\nb\n", SourceError, "holds 3 vectors, but there are 2 ids in ids.txt"),
        ("a\nb\na\n", DuplicateItemError, "id 'a' stands in row 0 and row 2 of ids.txt"),
    ],
)
def test_ids_must_fit_the_vectors(tmp_path: Path, ids: str, error: type[Exception], message: str) -> None:
    (tmp_path / "ids.txt").write_text(ids, encoding="utf-8")
    with pytest.raises(error, match=message):
        images(save(tmp_path / "v.npy", unit(3)), ids=tmp_path / "ids.txt")


def test_an_id_column_that_is_not_there_lists_the_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"no column 'item_id' or 'id'; its columns: 'a', 'b'"):
        images(save(tmp_path / "v.npy", unit(1)), ids=tmp_path / "t.csv")
    pq.write_table(pa.table({"v": as_lists(unit(2)), "n": [1, 2]}), tmp_path / "v.parquet")
    with pytest.raises(SourceError, match=r"v\.parquet has no column 'key'; its columns: 'v', 'n'"):
        images(tmp_path / "v.parquet", id_column="key")


def test_ids_that_are_not_utf8_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(SourceError, match=r"ids\.txt' cannot be read as UTF-8 lines"):
        images(save(tmp_path / "v.npy", unit(1)), ids=tmp_path / "ids.txt")


def test_an_id_may_hold_any_separator_but_a_line_end(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\x0bb\r\nc\u2028d", encoding="utf-8", newline="")
    (chunk,) = chunks(images(save(tmp_path / "v.npy", unit(2)), ids=tmp_path / "ids.txt"))
    assert chunk.item_ids == ["a\x0bb", "c\u2028d"]


def test_parquet_parts_must_have_the_same_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": as_lists(unit(2)), "n": [1, 2]}), tmp_path / "p1.parquet")
    pq.write_table(pa.table({"v": as_lists(unit(2)), "m": [1, 2]}), tmp_path / "p2.parquet")
    with pytest.raises(SourceError, match=r"p1\.parquet and 1 more files cannot be read as one"):
        images(tmp_path)


def test_a_row_without_an_id_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,n\na,1\n,2\nc,3\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"row 1 of t\.csv has no id"):
        images(save(tmp_path / "v.npy", unit(3)), ids=tmp_path / "t.csv")


def with_table(tmp_path: Path, rows: Sequence[dict[str, Any]], **files: Any) -> EmbeddingSource:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    vectors = save(tmp_path / "t.npy", unit(3))
    return EmbeddingSource(EmbeddingOptions(texts=EmbeddingFiles(vectors=vectors, table=path, **files)))


def test_captions_and_metadata_come_from_a_table(tmp_path: Path) -> None:
    source = with_table(tmp_path, [{"caption": f"text {n}", "n": n} for n in range(3)])
    (chunk,) = source.chunks("texts")
    assert chunk.captions == ["text 0", "text 1", "text 2"]
    assert chunk.metadata.to_pydict() == {"n": [0, 1, 2]}
    assert source.metadata_schema("texts") == pa.schema([("n", pa.int64())])
    assert source.metadata_schema("images") == pa.schema([])
    assert (source.collections, source.rows("images")) == (("texts",), 0)


def test_the_id_and_text_columns_of_the_table_can_be_named(tmp_path: Path) -> None:
    rows = [{"words": f"text {n}", "key": f"k{n}"} for n in range(3)]
    (chunk,) = with_table(tmp_path, rows, id_column="key", text_column="words").chunks("texts")
    assert (chunk.item_ids, chunk.captions) == (["k0", "k1", "k2"], ["text 0", "text 1", "text 2"])


def test_a_table_of_paths_gives_images_their_uris(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,n\na.jpg,1\nb.jpg,2\n,3\n", encoding="utf-8")
    (chunk,) = chunks(images(save(tmp_path / "v.npy", unit(3)), table=tmp_path / "t.csv"))
    assert chunk.uris == ["a.jpg", "b.jpg", "v.npy#2"]
    assert chunk.metadata["n"].to_pylist() == [1, 2, 3]


def test_captions_come_from_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("one\n\nthree\n", encoding="utf-8")
    files = EmbeddingFiles(vectors=save(tmp_path / "t.npy", unit(3)), table=tmp_path / "c.txt")
    (chunk,) = EmbeddingSource(EmbeddingOptions(texts=files)).chunks("texts")
    assert chunk.captions == ["one", "", "three"]


def test_a_table_of_other_length_or_with_a_broken_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds 3 vectors, but there are 2 captions in texts\.jsonl"):
        with_table(tmp_path, [{"caption": "x"}] * 2)
    (tmp_path / "t.csv").write_text("caption,n\nx,1\ny,2,3\nz,3\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"row 2 of t\.csv has 3 cells .* matched to vectors by position"):
        images(save(tmp_path / "v.npy", unit(3)), table=tmp_path / "t.csv")


def test_neither_images_nor_texts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="neither image nor text embeddings were named"):
        EmbeddingSource(EmbeddingOptions())
    with pytest.raises(SourceError, match=r"there is no file '.*v\.npy'"):
        images(tmp_path / "v.npy")
    with pytest.raises(SourceError, match=r"holds no file of \.npy, \.parquet"):
        images(tmp_path)


def test_real_clip_vectors_come_with_captions_and_metadata(data: Path) -> None:
    folder = data / "clip_vit_b32"
    options = EmbeddingOptions(
        images=EmbeddingFiles(vectors=folder / "flickr8k_images.npy"),
        texts=EmbeddingFiles(vectors=folder / "flickr8k_captions.npy", table=folder / "flickr8k_captions.jsonl"),
    )
    source = EmbeddingSource(options)
    assert (source.rows("images"), source.rows("texts"), source.dim) == (100, 500, 512)
    (chunk,) = source.chunks("texts")
    assert chunk.captions is not None
    assert len(chunk.captions) == 500
    assert chunk.metadata["image_row"].to_pylist()[-1] == 99
