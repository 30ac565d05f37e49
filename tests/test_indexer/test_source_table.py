"""What every kind of table has in common: roles, ids, splits, metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError
from storage.errors import DuplicateItemError


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> list[Item | Rejection]:
    return list(open_source(path, SourceOptions(**options)).items())


def ids(entries: Sequence[Item | Rejection], collection: str = "images") -> list[str]:
    return [entry.item_id for entry in entries if entry.collection == collection]


def test_an_image_path_is_its_id_and_its_captions_are_numbered(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"image": "x/a.jpg", "captions": ["one", "two"]})
    image, first, second = read(path)
    assert isinstance(image, Item)
    assert (image.item_id, image.content, image.uri) == ("x/a.jpg", tmp_path / "x/a.jpg", "x/a.jpg")
    assert isinstance(second, Item)
    assert (first.item_id, second.item_id, second.content) == ("x/a.jpg#0", "x/a.jpg#1", "two")
    assert second.image_ids == ("x/a.jpg",)


def test_rows_that_repeat_a_path_bring_one_image_more_captions(tmp_path: Path) -> None:
    rows = ({"image": image, "caption": f"caption {n}", "n": n} for n, image in enumerate("abab"))
    entries = read(jsonl(tmp_path / "t.jsonl", *rows))
    assert ids(entries) == ["a", "b"]
    assert ids(entries, "texts") == ["a#0", "b#0", "a#1", "b#1"]
    assert [entry.metadata["n"] for entry in entries if isinstance(entry, Item)] == [0, 0, 1, 1, 2, 3]


def test_an_id_column_names_image_and_texts(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"sku": 7, "photo": "a.jpg", "title": ["one", "two"]})
    entries = read(path, id="sku", image="photo", text="title")
    assert [entry.item_id for entry in entries] == ["7", "7#0", "7#1"]


def test_the_image_column_may_be_the_id_column(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", *({"image": "a.jpg", "caption": str(n)} for n in range(2)))
    assert ids(read(path, id="image", image="image", text="caption"), "texts") == ["a.jpg#0", "a.jpg#1"]


def test_an_id_that_stands_twice_is_an_error_that_names_both_rows(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", *({"id": key, "image": "a.jpg"} for key in "xyzy"))
    with pytest.raises(DuplicateItemError, match=r"id 'y' stands in line 2 and line 4 of t\.jsonl"):
        read(path, id="id", image="image")


def test_several_images_in_a_cell_are_indexed_each(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"image": "a.jpg; b.jpg", "caption": "both"})
    entries = read(path)
    assert ids(entries) == ["a.jpg", "b.jpg"]
    assert isinstance(entries[2], Item)
    assert (entries[2].item_id, entries[2].image_ids) == ("a.jpg#0", ("a.jpg", "b.jpg"))


def test_several_images_of_one_id_are_numbered(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"id": "p", "image": ["a.jpg", "b.jpg"], "caption": "both"})
    entries = read(path, id="id", image="image", text="caption")
    assert ids(entries) == ["p#0", "p#1"]
    assert isinstance(entries[2], Item)
    assert (entries[2].item_id, entries[2].image_ids) == ("p#0", ("p#0", "p#1"))


def test_texts_alone_are_named_by_id_or_by_row(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"key": "a", "text": "one"}, {"key": "b", "text": ["two", "three"]})
    assert ids(read(path, text="text"), "texts") == ["row-1", "row-2#0", "row-2#1"]
    assert ids(read(path, text="text", id="key"), "texts") == ["a", "b#0", "b#1"]


@pytest.mark.parametrize("cell", [None, "", "  ", ";", []])
def test_a_row_without_an_image_is_rejected_and_its_texts_stay(tmp_path: Path, cell: Any) -> None:
    rejected, text = read(jsonl(tmp_path / "t.jsonl", {"image": cell, "caption": "words"}))
    assert isinstance(rejected, Rejection)
    assert (rejected.item_id, rejected.stage, rejected.reason) == ("row-1", "read", "missing_value")
    assert isinstance(text, Item)
    assert (text.item_id, text.image_ids) == ("row-1#0", ())


@pytest.mark.parametrize(("cell", "reason"), [("", "empty_text"), (" \t", "empty_text"), ("\ud800", "not_utf8")])
def test_a_text_without_words_is_rejected_and_its_image_stays(tmp_path: Path, cell: str, reason: str) -> None:
    image, rejected = read(jsonl(tmp_path / "t.jsonl", {"image": "a.jpg", "caption": cell}))
    assert isinstance(image, Item)
    assert isinstance(rejected, Rejection)
    assert (rejected.item_id, rejected.collection, rejected.reason) == ("a.jpg#0", "texts", reason)
    assert "line 1 of t.jsonl" in rejected.detail


def test_an_image_without_a_caption_is_no_rejection(tmp_path: Path) -> None:
    assert ids(read(jsonl(tmp_path / "t.jsonl", {"image": "a.jpg", "caption": None}))) == ["a.jpg"]


def test_a_row_without_an_id_is_rejected_whole(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"id": None, "image": "a.jpg", "caption": "x"})
    entries = read(path, id="id", image="image", text="caption")
    assert [entry.reason for entry in entries if isinstance(entry, Rejection)] == ["missing_id", "missing_id"]


@pytest.mark.parametrize(("cell", "reason"), [("https://x.org/a.jpg", "url"), ("a\0b.jpg", "invalid_path")])
def test_what_can_be_no_file_is_rejected(tmp_path: Path, cell: str, reason: str) -> None:
    (rejected,) = read(jsonl(tmp_path / "t.jsonl", {"image": cell}))
    assert isinstance(rejected, Rejection)
    assert rejected.reason == reason


def test_a_missing_image_file_is_left_to_the_decoder(tmp_path: Path) -> None:
    (item,) = read(jsonl(tmp_path / "t.jsonl", {"image": "not-there.jpg"}))
    assert isinstance(item, Item)


def test_paths_start_from_the_root_and_uris_are_portable_below_it(tmp_path: Path) -> None:
    rows = ({"image": path} for path in ("a.jpg", "./b.jpg", "../c.jpg", str(tmp_path / "pics" / "d.jpg")))
    path = jsonl(tmp_path / "t.jsonl", *rows)
    uris = [entry.uri for entry in read(path, root=tmp_path / "pics", image="image")]
    assert uris == ["a.jpg", "b.jpg", (tmp_path / "c.jpg").as_posix(), "d.jpg"]


@pytest.fixture(autouse=True)
def pictures_folder(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()


def test_a_wrong_column_name_lists_the_columns_and_the_closest(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"photo": "a.jpg", "title": "x"})
    with pytest.raises(SourceError, match=r"no column 'photos'; did you mean 'photo'\? Its columns: 'photo', 'title'"):
        read(path, image="photos")


def test_columns_of_unknown_names_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"name the image column, .* Its columns: 'foto', 'words'"):
        read(jsonl(tmp_path / "t.jsonl", {"foto": "a.jpg", "words": "x"}))


def test_what_was_guessed_is_said(tmp_path: Path) -> None:
    source = open_source(jsonl(tmp_path / "t.jsonl", {"path": "a.jpg", "title": "x"}))
    assert source.name == "table t.jsonl (image=path, text=title)"
    assert "took image=path, text=title" in source.notes[0]


def test_only_rows_of_the_splits_asked_for_are_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", *({"image": f"{s}.jpg", "split": s} for s in ("train", "val", "test")))
    entries = read(path, splits=("val", "test"))
    assert [(entry.item_id, entry.split) for entry in entries if isinstance(entry, Item)] == [
        ("val.jpg", "val"),
        ("test.jpg", "test"),
    ]


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"image": "a", "split": "train"}, {"image": "b", "split": "train"})
    with pytest.raises(SourceError, match=r"no rows of split 'dev'; its splits: train \(2\)"):
        read(path, splits=("dev",))


def test_a_split_without_a_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no column 'split'; name the split column"):
        read(jsonl(tmp_path / "t.jsonl", {"image": "a"}), splits=("dev",))


def test_all_other_columns_are_metadata_of_images_and_texts(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"image": "a", "caption": "x", "price": 3, "brand": "y"})
    assert [entry.metadata for entry in read(path) if isinstance(entry, Item)] == [{"price": 3, "brand": "y"}] * 2
    assert open_source(path).metadata_schema.names == ["price", "brand"]


def test_metadata_columns_can_be_chosen(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"image": "a", "price": 3, "brand": "y"})
    assert open_source(path, SourceOptions(metadata=("brand",))).metadata_schema.names == ["brand"]
    assert open_source(path, SourceOptions(metadata=())).metadata_schema.names == []


def test_metadata_that_the_catalog_has_already_is_renamed_and_said(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"image": "a", "Width": 3, "uri": "u", "price": 1, "Price": 2, "rowid": 7})
    source = open_source(path)
    assert source.metadata_schema.names == ["Width_meta", "uri_meta", "price", "Price_2", "rowid_meta"]
    assert any("'Width' is called 'Width_meta'" in note for note in source.notes)
    (item,) = source.items()
    assert isinstance(item, Item)
    assert item.metadata == {"Width_meta": 3, "uri_meta": "u", "price": 1, "Price_2": 2, "rowid_meta": 7}


def test_too_many_metadata_columns_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"image": "a", **{f"c{n}": n for n in range(1001)}})
    with pytest.raises(SourceError, match="1001 metadata columns, at most 1000 fit"):
        open_source(path)


def test_a_role_column_can_be_metadata_as_well(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"image": "a", "caption": ["x", "y"]})
    (item, *_) = read(path, image="image", text="caption", metadata=("caption",))
    assert isinstance(item, Item)
    assert item.metadata == {"caption_meta": '["x", "y"]'}


letters = st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp"), exclude_characters="\u3164")
words = st.text(letters, min_size=1, max_size=20).map(str.strip)
row = st.fixed_dictionaries(
    {"text": words.filter(bool), "price": st.none() | st.integers(-(2**63), 2**63 - 1), "on": st.booleans()}
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(row, min_size=1, max_size=20))
def test_jsonl_and_parquet_give_the_same_items(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    lines = jsonl(tmp_path / "t.jsonl", *rows)
    schema = pa.schema([("text", pa.string()), ("price", pa.int64()), ("on", pa.bool_())])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "t.parquet")
    from_lines, from_parquet = read(lines), read(tmp_path / "t.parquet")
    seen = [(one.item_id, one.content, one.metadata) for one in from_lines if isinstance(one, Item)]
    assert seen == [(one.item_id, one.content, one.metadata) for one in from_parquet if isinstance(one, Item)]
    assert [content for _, content, _ in seen] == [entry["text"].strip("\ufeff").strip() for entry in rows]


def test_real_captions_give_three_thousand_images_and_five_texts_each(data: Path) -> None:
    entries = read(data / "flickr8k" / "captions.jsonl", image="image", text="captions", id="image")
    assert (len(ids(entries)), len(ids(entries, "texts"))) == (3000, 15000)
    assert {entry.split for entry in entries if isinstance(entry, Item)} == {"train", "dev"}
    assert all(isinstance(entry, Item) for entry in entries)


def test_real_photographs_are_where_their_table_says(data: Path) -> None:
    entries = read(data / "coco_cc" / "captions.jsonl")
    images = [entry for entry in entries if isinstance(entry, Item) and entry.collection == "images"]
    assert len(images) == 76
    assert all(Path(str(image.content)).is_file() for image in images)
    assert images[0].metadata.keys() == {"license", "license_url", "source"}


def test_zipped_captions_of_a_split_are_read_as_texts(data: Path) -> None:
    path = data / "flickr30k" / "captions_karpathy.jsonl.gz"
    assert len(read(path, text="captions", splits=("test",))) == 5000
