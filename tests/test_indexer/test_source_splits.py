"""Captions whose pictures are numbers (`f30k_precomp`), and one table a split (AutoMM's Flickr30K)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError
from storage.errors import DuplicateItemError


def read(path: Path, **options: Any) -> list[Item | Rejection]:
    return list(open_source(path, SourceOptions(**options)).items())


def texts(path: Path, **options: Any) -> dict[str, str]:
    entries = read(path, **options)
    return {one.item_id: one.content for one in entries if isinstance(one, Item) and one.collection == "texts"}


def splits(path: Path, **options: Any) -> dict[str, str | None]:
    entries = read(path, **options)
    return {one.item_id: one.split for one in entries if isinstance(one, Item) and one.collection == "images"}


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def precomp(folder: Path) -> Path:
    write(folder / "test_caps.txt", "one of a", "two of a", "one of b", "two of b")
    write(folder / "test_ids.txt", "7", "3")
    write(folder / "dev_caps.txt", "one of c", "two of c")
    write(folder / "dev_ids.txt", "5")
    write(folder / "id_mapping.json", json.dumps({"7": "a.jpg", "3": "b.jpg", "5": "c.jpg"}))
    return folder


def test_an_id_stands_for_as_many_captions_as_there_are_for_each(tmp_path: Path) -> None:
    folder = precomp(tmp_path / "f30k_precomp")
    assert texts(folder, splits=("test",)) == {
        "a.jpg#0": "one of a",
        "a.jpg#1": "two of a",
        "b.jpg#0": "one of b",
        "b.jpg#1": "two of b",
    }
    assert splits(folder) == {"c.jpg": "dev", "a.jpg": "test", "b.jpg": "test"}


def test_an_id_a_caption_says_the_same(tmp_path: Path) -> None:
    folder = precomp(tmp_path / "f30k_precomp")
    expected = texts(folder)
    write(folder / "test_ids.txt", "7", "7", "3", "3")
    assert texts(folder) == expected


@pytest.mark.parametrize(
    ("key", "numbers", "names"),
    [("imgid", (7, 3, 5), ("a.jpg", "b.jpg", "c.jpg")), ("cocoid", (7, 3, 5), ("val2014/a.jpg",))],
)
def test_karpathys_list_beside_the_folder_names_the_pictures(
    key: str, numbers: tuple[int, ...], names: tuple[str, ...], tmp_path: Path
) -> None:
    folder = precomp(tmp_path / "f30k_precomp")
    (folder / "id_mapping.json").unlink()
    files = zip(numbers, ("a.jpg", "b.jpg", "c.jpg"), strict=True)
    more = {"filepath": "val2014", "imgid": 0} if key == "cocoid" else {}
    entries = [{"filename": name, "split": "train", "sentences": [], **more, key: n} for n, name in files]
    write(tmp_path / "dataset_flickr30k.json", json.dumps({"images": entries}))
    assert set(names) <= set(splits(folder))
    assert splits(folder)[names[0]] == "test"


def test_a_blank_caption_keeps_its_place_and_is_a_rejection(tmp_path: Path) -> None:
    folder = precomp(tmp_path / "f30k_precomp")
    write(folder / "test_caps.txt", "one of a", "", "one of b", "two of b")
    entries = read(folder, splits=("test",))
    assert [(one.item_id, one.reason) for one in entries if isinstance(one, Rejection)] == [("a.jpg#1", "empty_text")]
    assert texts(folder, splits=("test",))["b.jpg#0"] == "one of b"


def test_the_pictures_lie_in_a_folder_beside(tmp_path: Path) -> None:
    folder = precomp(tmp_path / "f30k_precomp")
    write(tmp_path / "flickr30k-images" / "a.jpg")
    image = next(one for one in read(folder, splits=("test",)) if isinstance(one, Item))
    assert image.content == tmp_path / "flickr30k-images" / "a.jpg"


def test_all_of_cocos_test_images_are_read_once(tmp_path: Path) -> None:
    folder = precomp(tmp_path / "coco_precomp")
    (folder / "test_caps.txt").rename(folder / "testall_caps.txt")
    (folder / "test_ids.txt").rename(folder / "testall_ids.txt")
    write(folder / "test_caps.txt", "one of a", "two of a")
    write(folder / "test_ids.txt", "7")
    assert splits(folder) == {"c.jpg": "dev", "a.jpg": "testall", "b.jpg": "testall"}
    assert splits(folder, splits=("test",)) == {"a.jpg": "test"}


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("test_ids.txt", ("7", "3", "5"), r"test_ids\.txt has 3 lines and test_caps\.txt 4"),
        ("test_ids.txt", (), r"test_ids\.txt has 1 lines|has 0 lines|one id for each caption"),
        ("test_ids.txt", ("7", "99"), r"id '99' of test_ids\.txt is not among the 3"),
        ("id_mapping.json", ("[]",), r"holds a JSON list; expected a dict"),
    ],
)
def test_files_that_do_not_fit_are_one_clear_error(
    name: str, lines: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    folder = precomp(tmp_path / "f30k_precomp")
    write(folder / name, *lines)
    with pytest.raises(SourceError, match=said):
        read(folder)


def test_ids_that_nothing_names_ask_for_karpathys_list(tmp_path: Path) -> None:
    folder = precomp(tmp_path / "f30k_precomp")
    (folder / "id_mapping.json").unlink()
    with pytest.raises(SourceError, match=r"are numbers in Karpathy's list.*put dataset_flickr30k\.json"):
        read(folder)


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"lacks train_caps\.txt or train_ids\.txt; it has both for: dev, test"):
        read(precomp(tmp_path / "f30k_precomp"), splits=("train",))


def test_a_picture_in_two_splits_names_both(tmp_path: Path) -> None:
    folder = precomp(tmp_path / "f30k_precomp")
    write(folder / "dev_ids.txt", "7")
    with pytest.raises(DuplicateItemError, match=r"captions 1 to 2 of dev_caps\.txt and in captions 1 to 2 of test"):
        read(folder)


def automm(folder: Path) -> Path:
    write(folder / "train.csv", ",caption,image", '0,"A man, a ""dog""",images/1.jpg', "1,A cat,images/1.jpg")
    write(folder / "test.csv", ",caption,image", "0,A bird,images/2.jpg")
    return folder


def test_a_folder_of_tables_has_their_splits(tmp_path: Path) -> None:
    folder = automm(tmp_path / "flickr30k_processed")
    assert splits(folder) == {"images/1.jpg": "train", "images/2.jpg": "test"}
    assert texts(folder) == {"images/1.jpg#0": 'A man, a "dog"', "images/1.jpg#1": "A cat", "images/2.jpg#0": "A bird"}
    assert texts(folder, splits=("test",)) == {"images/2.jpg#0": "A bird"}


def test_the_paths_of_tables_start_from_their_folder_or_from_the_root(tmp_path: Path) -> None:
    folder = automm(tmp_path / "flickr30k_processed")
    (tmp_path / "far").mkdir()
    for options, root in (({}, folder), ({"root": tmp_path / "far"}, tmp_path / "far")):
        source = open_source(folder, SourceOptions(**options))
        first = next(iter(source.items()))
        assert isinstance(first, Item)
        assert (source.root, first.content) == (root, root / "images" / "1.jpg")


def test_the_row_number_is_not_kept_and_named_columns_are(tmp_path: Path) -> None:
    folder = automm(tmp_path / "flickr30k_processed")
    assert open_source(folder).metadata_schema.names == []
    for split in ("train", "test"):
        path = folder / f"{split}.csv"
        path.write_text("".join(f"{line},9\n" for line in path.read_text("utf-8").splitlines()), encoding="utf-8")
        path.write_text(path.read_text("utf-8").replace("image,9", "image,year"), encoding="utf-8")
    source = open_source(folder, SourceOptions(metadata=("year",)))
    assert {item.metadata["year"] for item in source.items() if isinstance(item, Item)} == {9}


def test_a_missing_table_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no table of split 'val'; its splits: train, test"):
        read(automm(tmp_path / "flickr30k_processed"), splits=("val",))


def test_tables_without_captions_leave_a_folder_of_pictures(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "test.csv", "a,b", "1,2")
    write(tmp_path / "photos" / "1.jpg")
    assert list(splits(tmp_path / "photos")) == ["1.jpg"]
    with pytest.raises(SourceError, match="has no tables of splits with images and captions"):
        read(tmp_path / "photos", layout="split-tables")


@pytest.mark.parametrize("layout", ["precomp", "split-tables"])
def test_a_file_is_no_folder_of_captions(layout: Any, tmp_path: Path) -> None:
    write(tmp_path / "test.csv", "caption,image", "a,b.jpg")
    with pytest.raises(SourceError, match=f"layout '{layout}' needs a folder"):
        read(tmp_path / "test.csv", layout=layout)


def test_lists_of_numbers_split_the_tokens_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "results_20130124.token", "11.jpg#0\tA dog .", "12.jpg#0\tA cat .", "13.jpg#0\tA bird .")
    write(tmp_path / "test.txt", "12")
    write(tmp_path / "val.txt", "13.jpg")
    write(tmp_path / "README.txt", "12 is a number")
    assert splits(tmp_path) == {"11.jpg": None, "12.jpg": "test", "13.jpg": "val"}


def test_names_of_files_may_be_written_in_any_case(tmp_path: Path) -> None:
    write(tmp_path / "FLICKR8K.TOKEN.TXT", "1.jpg#0\tA dog .", "2.jpg#0\tA cat .")
    write(tmp_path / "flickr_8k.testimages.txt", "2.jpg")
    assert splits(tmp_path) == {"1.jpg": None, "2.jpg": "test"}


def test_cocos_keys_under_karpathys_name_carry_the_split(tmp_path: Path) -> None:
    value = {"images": [{"id": 9, "file_name": "9.jpg"}], "annotations": [{"image_id": 9, "caption": "a cat"}]}
    write(tmp_path / "coco_test_karpathy.json", json.dumps(value))
    assert splits(tmp_path / "coco_test_karpathy.json") == {"9.jpg": "test"}


def test_pictures_are_found_in_a_folder_that_holds_its_own_name_again(tmp_path: Path) -> None:
    write(tmp_path / "results.csv", "image_name| comment_number| comment", "1.jpg| 0| A dog .")
    write(tmp_path / "images" / "images" / "1.jpg")
    (image, *_) = read(tmp_path)
    assert isinstance(image, Item)
    assert image.uri == "images/images/1.jpg"
