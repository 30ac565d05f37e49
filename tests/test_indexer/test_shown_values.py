"""Values in messages: whole where somebody reads them, cut where nobody does."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, SourceOptions, open_source
from indexer.corpus.item import Rejection, shown
from indexer.errors import SourceError
from storage.errors import DuplicateItemError

PACKED = base64.b64encode(bytes(range(256)) * 20).decode()


def test_long_values_are_cut_and_their_length_is_said() -> None:
    assert shown("photo.jpg") == "photo.jpg"
    assert len(shown(PACKED)) <= 80
    assert shown(PACKED).endswith("... (6,828 long)")


def test_a_rejection_holds_no_long_word() -> None:
    common = {"item_id": "a", "uri": "a", "stage": "read", "reason": "missing"}
    rejection = Rejection(collection="images", detail=f"no file at '{PACKED}'", **common)
    assert len(rejection.detail) < 120
    path = "/data/" + "folder/" * 20 + "photo.jpg"
    assert Rejection(collection="images", detail=f"no file at {path!r}", **common).detail == f"no file at {path!r}"


@pytest.mark.parametrize("cell", [PACKED, f"data:image/png;base64,{PACKED}!", PACKED[:1000], f"https://x/{PACKED}"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_base64_in_a_cell_is_not_in_the_message(tmp_path: Path, cell: str, name: str) -> None:
    if name == "t.csv":
        (tmp_path / name).write_text(f"image\n{cell}\n", encoding="utf-8")
    elif name == "t.jsonl":
        (tmp_path / name).write_text(f'{{"image": "{cell}"}}\n', encoding="utf-8")
    else:
        pq.write_table(pa.table({"image": [cell]}), tmp_path / name)
    (entry,) = open_source(tmp_path / name).items()
    assert isinstance(entry, Rejection)
    assert len(entry.detail) < 350


def test_a_table_without_a_header_shows_no_image(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(f"1\t{PACKED}\n2\t{PACKED}\n", encoding="utf-8")
    with pytest.raises(SourceError, match="has no column of a known name") as caught:
        open_source(tmp_path / "t.tsv")
    assert len(str(caught.value)) < 400


def test_ids_in_errors_are_cut(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"id,text\n{PACKED},x\n{PACKED},y\n", encoding="utf-8")
    with pytest.raises(DuplicateItemError) as caught:
        list(open_source(tmp_path / "t.csv", SourceOptions(id="id", text="text")).items())
    assert len(str(caught.value)) < 400
    np.save(tmp_path / "v.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "ids.txt").write_text(f"{PACKED}\n{PACKED}\n", encoding="utf-8")
    files = EmbeddingFiles(vectors=tmp_path / "v.npy", ids=tmp_path / "ids.txt")
    with pytest.raises(DuplicateItemError) as caught:
        EmbeddingSource(EmbeddingOptions(images=files))
    assert len(str(caught.value)) < 400
