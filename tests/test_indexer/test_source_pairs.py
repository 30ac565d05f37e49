"""Which images and texts belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, kept_pairs
from indexer.corpus.embeddings.pair_table import read_pairs
from indexer.errors import SourceError


def source(tmp_path: Path, pairs: str | Path) -> EmbeddingSource:
    for name, rows in (("i.npy", 3), ("t.npy", 6)):
        np.save(tmp_path / name, np.eye(8, dtype=np.float32)[:rows])
    if isinstance(pairs, str):
        (tmp_path / "pairs.csv").write_text(pairs, encoding="utf-8")
    options = EmbeddingOptions(
        images=EmbeddingFiles(vectors=tmp_path / "i.npy"),
        texts=EmbeddingFiles(vectors=tmp_path / "t.npy"),
        pairs=pairs if isinstance(pairs, Path) else tmp_path / "pairs.csv",
    )
    return EmbeddingSource(options)


def test_pairs_come_in_file_order_and_once(tmp_path: Path) -> None:
    pairs = source(tmp_path, "image_row,text_row\n2,5\n0,1\n2,5\n0,0\n").pairs
    assert pairs.tolist() == [[2, 5], [0, 1], [0, 0]]


def test_pairs_may_stand_in_parquet_in_any_column_order(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text_row": [4], "image_row": [1]}), tmp_path / "p.parquet")
    assert source(tmp_path, tmp_path / "p.parquet").pairs.tolist() == [[1, 4]]


def test_without_pairs_there_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.eye(3, dtype=np.float32))
    options = EmbeddingOptions(images=EmbeddingFiles(vectors=tmp_path / "i.npy"))
    assert EmbeddingSource(options).pairs.shape == (0, 2)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("image_row,text_row\n0,0\n3,0\n", r"row 2 of pairs\.csv has image_row 3, but there are 3 image vectors"),
        ("image_row,text_row\n0,6\n", r"row 1 of pairs\.csv has text_row 6, but there are 6 text vectors"),
        ("image_row,text_row\n-1,0\n", r"has image_row -1"),
        ("image,text\n0,0\n", r"no column 'image_row'; expected image_row,text_row\. Its columns: 'image', 'text'"),
        ("image_row,text_row\na,0\n", "not whole numbers"),
        ("image_row,text_row\n,0\n1,2\n", "not whole numbers"),
        ("image_row,text_row\n1,0,0\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_pairs_that_do_not_fit_are_one_clear_error(tmp_path: Path, pairs: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        source(tmp_path, pairs)


def test_pairs_need_images_and_texts(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.eye(3, dtype=np.float32))
    (tmp_path / "pairs.csv").write_text("image_row,text_row\n0,0\n", encoding="utf-8")
    options = EmbeddingOptions(images=EmbeddingFiles(vectors=tmp_path / "i.npy"), pairs=tmp_path / "pairs.csv")
    with pytest.raises(SourceError, match=r"pairs images with texts, but only images were given"):
        EmbeddingSource(options)


def test_pairs_of_rejected_rows_fall_out_and_are_counted() -> None:
    pairs = np.array([[0, 0], [1, 1], [2, 2], [2, 0]])
    kept, lost = kept_pairs(pairs, np.array([0, 2]), np.array([0, 1]))
    assert (kept.tolist(), lost) == ([[0, 0], [1, 0]], 2)


def test_nothing_kept_leaves_no_pairs() -> None:
    kept, lost = kept_pairs(np.array([[0, 0]]), np.array([], np.int64), np.array([0]))
    assert (kept.shape, lost) == ((0, 2), 1)


rows = st.lists(st.integers(0, 20), unique=True).map(sorted)


@given(pairs=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20))), images=rows, texts=rows)
def test_kept_pairs_point_at_the_same_rows_as_before(
    pairs: list[tuple[int, int]], images: list[int], texts: list[int]
) -> None:
    array = np.array(pairs, np.int64).reshape(-1, 2)
    kept, lost = kept_pairs(array, np.array(images, np.int64), np.array(texts, np.int64))
    expected = [pair for pair in pairs if pair[0] in images and pair[1] in texts]
    assert [(images[image], texts[text]) for image, text in kept.tolist()] == expected
    assert lost == len(pairs) - len(expected)


def test_row_numbers_may_be_encoded_and_unsigned(tmp_path: Path) -> None:
    rows = pa.array([1, 0]).dictionary_encode()
    pq.write_table(pa.table({"image_row": rows, "text_row": pa.array([0, 1], pa.uint64())}), tmp_path / "p.parquet")
    assert read_pairs(tmp_path / "p.parquet", 2, 2).tolist() == [[1, 0], [0, 1]]
    pq.write_table(pa.table({"image_row": pa.array([2**64 - 1], pa.uint64()), "text_row": [0]}), tmp_path / "q.parquet")
    with pytest.raises(SourceError, match="but there are 2 image vectors"):
        read_pairs(tmp_path / "q.parquet", 2, 2)
