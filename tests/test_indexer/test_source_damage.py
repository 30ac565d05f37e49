"""Files that are not what they claim: an error of ours or counted rejections, never a traceback."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, Item, open_source
from indexer.corpus.item import Rejection
from storage.errors import TwinlensError

NAMES = ("t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.txt", "t.token", "t.csv.gz", "t.jsonl.gz")
fuzz = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """An error in here must be ours, of one line, and name the file."""
    message = name
    try:
        yield
    except TwinlensError as error:
        message = str(error)
    assert name in message
    assert "\n" not in message


def read_or_refuse(path: Path) -> list[Item | Rejection]:
    """All entries, checked; [] when the corpus is refused with one line."""
    entries: list[Item | Rejection] = []
    with refusing(path.name):
        entries = list(open_source(path).items())
    for entry in entries:
        entry.item_id.encode("utf-8")
        entry.uri.encode("utf-8")
        if isinstance(entry, Item) and isinstance(entry.content, str):
            assert entry.content.strip()
            entry.content.encode("utf-8")
    return entries


@pytest.mark.parametrize("name", NAMES)
@fuzz
@given(content=st.binary(max_size=200))
def test_any_bytes_under_any_name_are_read_or_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    read_or_refuse(tmp_path / name)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
@fuzz
@given(body=st.binary(max_size=200))
def test_any_bytes_under_a_good_header_are_read_or_refused(tmp_path: Path, name: str, body: bytes) -> None:
    content = b"image\ttext\tn\n" + body if name == "t.tsv" else b"image,text,n\n" + body
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    read_or_refuse(tmp_path / name)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@fuzz
@given(rows=st.lists(st.fixed_dictionaries({"image": values, "caption": values, "meta": values}), min_size=1))
def test_any_json_values_give_metadata_that_fits_the_schema(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    metadata = [dict(entry.metadata) for entry in read_or_refuse(path) if isinstance(entry, Item)]
    table = pa.Table.from_pylist(metadata, open_source(path).metadata_schema)
    assert table.num_rows == len(metadata)


LAYOUTS: dict[str, Callable[[object], object]] = {
    "karpathy": lambda value: {"images": [{"filename": "a.jpg", "sentences": [{"raw": "x"}]}, value]},
    "coco": lambda value: {"images": [{"id": value, "file_name": value}], "annotations": [value]},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@fuzz
@given(value=values | st.fixed_dictionaries({"filename": values, "sentences": values, "split": values}))
def test_any_values_in_a_data_set_are_read_or_refused(tmp_path: Path, layout: str, value: object) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(LAYOUTS[layout](value)), encoding="utf-8")
    read_or_refuse(path)


@fuzz
@given(image_id=values, key=values, caption=values)
def test_any_keys_of_coco_annotations_are_read_or_refused(
    tmp_path: Path, image_id: object, key: object, caption: object
) -> None:
    notes = [{"image_id": image_id, "caption": caption}]
    images = [{"id": key, "file_name": "a.jpg"}]
    (tmp_path / "t.json").write_text(json.dumps({"images": images, "annotations": notes}), encoding="utf-8")
    read_or_refuse(tmp_path / "t.json")


@pytest.mark.parametrize("seed", range(25))
def test_a_parquet_file_with_flipped_bytes_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [f"{n}.jpg" for n in range(300)], "n": range(300)}), path)
    content = bytearray(path.read_bytes())
    for _ in range(5):
        content[random.Random(seed).randrange(len(content))] ^= 0xFF
    path.write_bytes(content)
    read_or_refuse(path)


@pytest.mark.parametrize("seed", range(25))
def test_an_array_with_a_damaged_header_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    np.save(tmp_path / "v.npy", np.eye(8, dtype=np.float32))
    content = bytearray((tmp_path / "v.npy").read_bytes())
    content[random.Random(seed).randrange(128)] = random.Random(seed + 1).randrange(256)
    (tmp_path / "v.npy").write_bytes(content)
    with refusing("v.npy"):
        files = EmbeddingFiles(vectors=tmp_path / "v.npy")
        list(EmbeddingSource(EmbeddingOptions(images=files, normalize=True)).chunks("images"))


def test_a_file_that_changes_after_opening_is_one_clear_error(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(8, dtype=np.float32))
    source = EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=tmp_path / "v.npy")))
    (tmp_path / "v.npy").unlink()
    with pytest.raises(TwinlensError, match=r"is no plain \.npy array"):
        list(source.chunks("images"))
