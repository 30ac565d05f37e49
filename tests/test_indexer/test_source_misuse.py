"""Options and files that a source cannot make sense of."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, SourceOptions, open_source
from indexer.errors import SourceError


@pytest.mark.parametrize("delimiter", ["||", "", '"', "\n", "§"])
def test_a_delimiter_is_one_plain_character(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text("text\nred\n", encoding="utf-8")
    with pytest.raises(SourceError, match="cannot separate cells"):
        open_source(tmp_path / "a.csv", SourceOptions(delimiter=delimiter))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (SourceOptions(splits=("a", "b")), "no split 'a', 'b'"),
        (SourceOptions(id="sku"), "no column 'sku'"),
        (SourceOptions(metadata=("price",)), "no column 'price'"),
        (SourceOptions(split_column="part"), "no split column 'part'"),
        (SourceOptions(delimiter=";"), "no delimiter ';'"),
        (SourceOptions(root=Path()), "no root '.'"),
    ],
)
def test_lines_of_text_refuse_what_would_have_no_effect(tmp_path: Path, options: SourceOptions, said: str) -> None:
    (tmp_path / "lines.txt").write_text("red\nblue\n", encoding="utf-8")
    with pytest.raises(SourceError, match=f"a text file of lines has {said}"):
        open_source(tmp_path / "lines.txt", options)


def test_a_data_set_has_no_columns_to_name(tmp_path: Path) -> None:
    (tmp_path / "x.token.txt").write_text("a.jpg#0\ta dog\n", encoding="utf-8")
    for corpus in (tmp_path, tmp_path / "x.token.txt"):
        with pytest.raises(SourceError, match="has no column 'caption'"):
            open_source(corpus, SourceOptions(text="caption"))


def test_packed_lines_are_read_and_a_cut_one_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b"line %d is about %d\n" % (n, n * 7919) for n in range(20_000)))
    (tmp_path / "a.txt.gz").write_bytes(whole)
    assert sum(1 for _ in open_source(tmp_path / "a.txt.gz").items()) == 20_000
    (tmp_path / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="cannot be read"):
        list(open_source(tmp_path / "cut.txt.gz").items())


def test_an_id_may_not_be_blank_and_image_metadata_is_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, dtype=np.float32))
    (tmp_path / "ids.txt").write_text("a\n\nc\n", encoding="utf-8")
    vectors, lines = tmp_path / "v.npy", tmp_path / "ids.txt"
    with pytest.raises(SourceError, match=r"row 1 of ids.txt has no id"):
        EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=vectors, ids=lines)))
    with pytest.raises(SourceError, match="is no table"):
        EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=vectors, table=lines)))
