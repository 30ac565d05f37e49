"""The published data sets in the layouts that people download."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from encoders.images import IMAGE_SUFFIXES
from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError
from storage.errors import DuplicateItemError


def read(path: Path, **options: Any) -> list[Item | Rejection]:
    return list(open_source(path, SourceOptions(**options)).items())


def captions(entries: Iterable[Item | Rejection]) -> dict[str, Any]:
    return {one.item_id: one.content for one in entries if isinstance(one, Item) and one.collection == "texts"}


def images(entries: Iterable[Item | Rejection]) -> list[Item]:
    return [one for one in entries if isinstance(one, Item) and one.collection == "images"]


def splits(entries: Iterable[Item | Rejection]) -> dict[str, str | None]:
    return {item.item_id: item.split for item in images(entries)}


def karpathy(path: Path, *pictures: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": pictures, "dataset": "flickr30k"}), encoding="utf-8")
    return path


def picture(name: str, split: str = "train", **more: Any) -> dict[str, Any]:
    return {"filename": name, "split": split, "sentences": [{"raw": f"{name} one"}, {"raw": f"{name} two"}], **more}


def coco(path: Path, **more: Any) -> Path:
    images = [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 25, "file_name": "000000000025.jpg"}]
    notes = [{"image_id": key, "id": n, "caption": f"caption {n}"} for n, key in enumerate((25, 9, 25))]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": notes} | more), encoding="utf-8")
    return path


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_a_karpathy_file_gives_pictures_captions_and_splits(tmp_path: Path) -> None:
    path = karpathy(tmp_path / "dataset_flickr30k.json", picture("1.jpg"), picture("2.jpg", "test"))
    entries = read(path)
    assert captions(entries) == {
        "1.jpg#0": "1.jpg one",
        "1.jpg#1": "1.jpg two",
        "2.jpg#0": "2.jpg one",
        "2.jpg#1": "2.jpg two",
    }
    assert splits(entries) == {"1.jpg": "train", "2.jpg": "test"}


def test_a_karpathy_file_of_coco_keeps_folder_and_coco_id(tmp_path: Path) -> None:
    path = karpathy(tmp_path / "dataset_coco.json", picture("C_1.jpg", "restval", filepath="val2014", cocoid=391895))
    (item, *_) = images(read(path))
    assert (item.item_id, item.split, item.metadata) == ("val2014/C_1.jpg", "restval", {"cocoid": 391895})


def test_a_split_of_a_data_set_is_picked(tmp_path: Path) -> None:
    path = karpathy(tmp_path / "dataset_x.json", picture("1.jpg"), picture("2.jpg", "test"))
    assert splits(read(path, splits=("test",))) == {"2.jpg": "test"}
    with pytest.raises(SourceError, match=r"no images of split 'val'; its splits: train \(1\), test \(1\)"):
        read(path, splits=("val",))


def test_pictures_are_found_in_a_folder_beside_the_file(tmp_path: Path) -> None:
    path = karpathy(tmp_path / "dataset_flickr30k.json", picture("1.jpg"))
    touch(tmp_path / "flickr30k-images" / "1.jpg")
    source = open_source(path)
    (item,) = images(source.items())
    assert (item.content, item.uri) == (tmp_path / "flickr30k-images/1.jpg", "flickr30k-images/1.jpg")
    assert (source.root, source.notes) == (tmp_path, ())


def test_a_folder_that_cannot_be_examined_hides_no_other(tmp_path: Path) -> None:
    path = karpathy(tmp_path / "dataset_flickr30k.json", picture("1.jpg"))
    touch(tmp_path / "pictures" / "1.jpg")
    # To follow this link is an error, whoever asks.
    (tmp_path / "broken").symlink_to("x" * 300)
    (item,) = images(open_source(path).items())
    assert item.content == tmp_path / "pictures/1.jpg"


def test_pictures_are_found_in_a_sibling_of_the_files_folder(tmp_path: Path) -> None:
    path = coco(tmp_path / "annotations" / "captions_val2017.json")
    touch(tmp_path / "val2017" / "000000000009.jpg")
    source = open_source(path)
    assert source.root == tmp_path
    assert images(source.items())[0].uri == "val2017/000000000009.jpg"


def test_pictures_that_are_nowhere_are_said_and_left_to_the_decoder(tmp_path: Path) -> None:
    source = open_source(karpathy(tmp_path / "dataset_x.json", picture("1.jpg")))
    assert "none of the first images was found" in source.notes[0]
    assert len(images(source.items())) == 1


def test_the_folder_of_the_pictures_can_be_named(tmp_path: Path) -> None:
    path = karpathy(tmp_path / "sets" / "dataset_x.json", picture("1.jpg"))
    touch(tmp_path / "far" / "away" / "1.jpg")
    (item,) = images(read(path, root=tmp_path / "far" / "away"))
    assert (item.uri, item.content) == ("1.jpg", tmp_path / "far/away/1.jpg")


def test_a_picture_that_stands_twice_is_an_error_that_names_both_places(tmp_path: Path) -> None:
    path = karpathy(tmp_path / "dataset_x.json", picture("1.jpg"), picture("2.jpg"), picture("1.jpg"))
    with pytest.raises(DuplicateItemError, match=r"'1\.jpg' stands in image 0 of dataset_x.json and in image 2"):
        read(path)


def test_an_empty_caption_of_a_data_set_is_a_rejection(tmp_path: Path) -> None:
    path = karpathy(tmp_path / "dataset_x.json", {"filename": "1.jpg", "sentences": [{"raw": " "}, {"tokens": ["a"]}]})
    assert [one.reason for one in read(path) if isinstance(one, Rejection)] == ["empty_text", "missing_value"]


@pytest.mark.parametrize("entry", [{"sentences": []}, {"filename": "a.jpg", "sentences": None}, 3])
def test_a_broken_karpathy_entry_is_named(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(SourceError, match=r"image 1 of dataset_x\.json lacks 'filename' or 'sentences'"):
        read(karpathy(tmp_path / "dataset_x.json", picture("1.jpg"), entry))


def test_coco_captions_keep_the_order_of_their_annotations(tmp_path: Path) -> None:
    entries = read(coco(tmp_path / "captions_val2017.json"))
    assert captions(entries) == {
        "000000000009.jpg#0": "caption 1",
        "000000000025.jpg#0": "caption 0",
        "000000000025.jpg#1": "caption 2",
    }
    assert [(item.split, item.metadata) for item in images(entries)] == [
        ("val", {"coco_id": 9}),
        ("val", {"coco_id": 25}),
    ]


def test_a_coco_caption_of_an_unknown_image_is_a_rejection(tmp_path: Path) -> None:
    path = coco(tmp_path / "captions_val2017.json", images=[{"id": 9, "file_name": "9.jpg"}])
    rejected = [one for one in read(path) if isinstance(one, Rejection)]
    assert [(one.item_id, one.reason) for one in rejected] == [("25#0", "unknown_image"), ("25#1", "unknown_image")]


def test_coco_annotations_that_are_no_captions_are_an_error(tmp_path: Path) -> None:
    path = coco(tmp_path / "instances_val2017.json", annotations=[{"image_id": 9, "bbox": []}])
    with pytest.raises(SourceError, match=r"annotation 0 of instances_val2017\.json is no caption"):
        read(path)


TOKENS = "1.jpg#0\tA dog .\n1.jpg#1\tA brown dog .\n2.jpg#0\tA cat, asleep .\n"


def test_flickr8k_tokens_take_their_splits_from_the_lists_beside(tmp_path: Path) -> None:
    (tmp_path / "Flickr8k.token.txt").write_text(TOKENS, encoding="utf-8")
    (tmp_path / "Flickr8k.lemma.token.txt").write_text("1.jpg#0\tdog\n", encoding="utf-8")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("1.jpg\n", encoding="utf-8")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("2.jpg\n3.jpg\n", encoding="utf-8")
    for corpus in (tmp_path, tmp_path / "Flickr8k.token.txt"):
        entries = read(corpus)
        assert captions(entries)["2.jpg#0"] == "A cat, asleep ."
        assert splits(entries) == {"1.jpg": "train", "2.jpg": "dev", "3.jpg": "dev"}


def test_flickr30k_tokens_are_read(tmp_path: Path) -> None:
    (tmp_path / "results_20130124.token").write_text(TOKENS, encoding="utf-8")
    assert len(captions(read(tmp_path / "results_20130124.token"))) == 3


def test_flickr30k_results_csv_is_read_with_its_known_broken_row(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(
        "image_name| comment_number| comment\n1.jpg| 0| Two men, talking | loudly .\n2.jpg| 4   A dog runs .\n",
        encoding="utf-8",
    )
    assert captions(read(path)) == {"1.jpg#0": "Two men, talking | loudly .", "2.jpg#0": "A dog runs ."}


KARPATHY_LINES = [
    "image,caption",
    "1.jpg,A plain one .",
    '1.jpg,"Quoted, with a comma and ""words"" ."',
    "2.jpg,Bare, with a comma .",
    '2.jpg,"Stop" is on the "sign"',
]


def test_karpathy_text_files_are_read_quoted_or_not(tmp_path: Path) -> None:
    path = tmp_path / "flickr30k_test_karpathy.txt"
    path.write_text("\n".join(KARPATHY_LINES), encoding="utf-8")
    entries = read(path)
    assert list(captions(entries).values()) == [
        "A plain one .",
        'Quoted, with a comma and "words" .',
        "Bare, with a comma .",
        '"Stop" is on the "sign"',
    ]
    assert splits(entries) == {"1.jpg": "test", "2.jpg": "test"}
    assert not [one for one in entries if isinstance(one, Rejection)]


def test_a_list_names_images_of_every_format(tmp_path: Path) -> None:
    lines = [f"{number}{suffix}#0\ta caption" for number, suffix in enumerate(IMAGE_SUFFIXES)]
    (tmp_path / "own.token").write_text("\n".join(lines))
    assert [item.item_id for item in images(read(tmp_path))] == [line.partition("#")[0] for line in lines]


def test_a_folder_of_karpathy_text_files_has_their_splits(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        path = tmp_path / f"flickr30k_{split}_karpathy.txt"
        path.write_text(f"image,caption\n{number}.jpg,words\n", encoding="utf-8")
        touch(tmp_path / "Images" / f"{number}.jpg")
    assert splits(read(tmp_path)) == {"2.jpg": "test", "0.jpg": "train", "1.jpg": "val"}
    assert images(read(tmp_path, splits=("val",)))[0].uri == "Images/1.jpg"


def test_plain_karpathy_lists_split_the_tokens_beside_them(tmp_path: Path) -> None:
    (tmp_path / "results_20130124.token").write_text(TOKENS, encoding="utf-8")
    (tmp_path / "flickr30k_test_karpathy.txt").write_text("2.jpg\n", encoding="utf-8")
    assert splits(read(tmp_path)) == {"1.jpg": None, "2.jpg": "test"}
    assert list(captions(read(tmp_path, splits=("test",)))) == ["2.jpg#0"]


def test_lines_that_name_no_picture_and_captions_that_are_not_utf8_are_rejections(tmp_path: Path) -> None:
    path = tmp_path / "x.token"
    path.write_bytes(b"1.jpg#0\tfine\nnot a caption\n1.jpg#1\tcaf\xe9\ncaf\xe9.jpg#0\twords\n")
    rejected = [(one.item_id, one.reason) for one in read(path) if isinstance(one, Rejection)]
    assert rejected == [
        ("1.jpg#1", "not_utf8"),
        ("x.token#line-2", "not_a_caption_line"),
        ("x.token#line-4", "not_utf8"),
    ]


def test_automm_tables_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text('caption,image\n"A man, a dog",1.jpg\nA cat,1.jpg\n', encoding="utf-8")
    entries = read(tmp_path / "test.csv")
    assert captions(entries) == {"1.jpg#0": "A man, a dog", "1.jpg#1": "A cat"}
    assert len(images(entries)) == 1


def test_a_folder_that_holds_a_data_set_can_be_read_as_plain_pictures(tmp_path: Path) -> None:
    karpathy(tmp_path / "dataset_x.json", picture("1.jpg"))
    touch(tmp_path / "other.jpg")
    assert [item.item_id for item in images(read(tmp_path))] == ["1.jpg"]
    assert [item.item_id for item in images(read(tmp_path, layout="folder"))] == ["other.jpg"]


def test_a_folder_with_several_data_sets_asks_which(tmp_path: Path) -> None:
    coco(tmp_path / "annotations" / "captions_val2017.json")
    coco(tmp_path / "annotations" / "captions_train2017.json")
    with pytest.raises(
        SourceError, match=r"several data sets \(captions_train2017.json, captions_val2017.json\); name"
    ):
        read(tmp_path)
