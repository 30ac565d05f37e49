"""A folder of pictures with sidecar captions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from encoders.images import IMAGE_SUFFIXES
from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def ids(root: Path, collection: str = "images") -> list[str]:
    return [entry.item_id for entry in open_source(root).items() if entry.collection == collection]


def texts(root: Path) -> dict[str, Item]:
    found = open_source(root).items()
    return {entry.item_id: entry for entry in found if isinstance(entry, Item) and entry.collection == "texts"}


def test_pictures_come_in_path_order_with_relative_paths_as_ids(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a/z.jpg", "a/b/c.webp", "Z.JPG")
    assert ids(tmp_path) == ["Z.JPG", "a/b/c.webp", "a/z.jpg", "b.png"]


def test_every_suffix_of_an_image_format_makes_a_file_an_image(tmp_path: Path) -> None:
    names = [f"{number:02}{suffix.upper()}" for number, suffix in enumerate(IMAGE_SUFFIXES)]
    touch(tmp_path, *names, "x.psd", "x.pdf")
    assert ids(tmp_path) == names
    assert {".jpg", ".jfif", ".dib", ".pgm", ".avif", ".heic", ".jp2"} < set(IMAGE_SUFFIXES)


def test_an_item_knows_its_file_and_its_portable_uri(tmp_path: Path) -> None:
    touch(tmp_path, "trips/a.jpg")
    (item,) = open_source(tmp_path).items()
    assert isinstance(item, Item)
    assert (item.content, item.uri) == (tmp_path / "trips/a.jpg", "trips/a.jpg")


def test_the_order_is_the_same_each_time(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}/{number}.jpg" for number in range(30)))
    source = open_source(tmp_path)
    assert list(source.items()) == list(source.items())


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".b.jpg", ".thumbs/c.jpg")
    assert ids(tmp_path) == ["a.jpg"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/one.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert ids(tmp_path) == ["a/one.jpg"]


def test_a_linked_folder_outside_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/one.jpg", "photos/two.jpg")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert ids(tmp_path / "photos") == ["more/one.jpg", "two.jpg"]


def test_a_broken_link_is_still_an_item_so_that_it_is_counted(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert ids(tmp_path) == ["gone.jpg"]


def test_captions_are_paired_by_stem(tmp_path: Path) -> None:
    touch(tmp_path, "dogs/a.jpg", "b.jpg")
    (tmp_path / "dogs" / "a.txt").write_text("A dog runs.\n\n  A brown dog. \n", encoding="utf-8")
    found = texts(tmp_path)
    assert {key: item.content for key, item in found.items()} == {
        "dogs/a.jpg#0": "A dog runs.",
        "dogs/a.jpg#1": "A brown dog.",
    }
    assert found["dogs/a.jpg#1"].image_ids == ("dogs/a.jpg",)
    assert found["dogs/a.jpg#1"].location == "line 3 of dogs/a.txt"


def test_a_picture_stands_before_its_captions(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    assert [entry.item_id for entry in open_source(tmp_path).items()] == ["a.jpg", "a.jpg#0", "b.jpg"]


def test_two_pictures_of_one_stem_both_get_the_captions(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png")
    (tmp_path / "a.txt").write_text("a cat", encoding="utf-8")
    assert ids(tmp_path, "texts") == ["a.jpg#0", "a.png#0"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_caption(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfein Hund\r\neine K\xc3\xa4se\r\n")
    assert [item.content for item in texts(tmp_path).values()] == ["ein Hund", "eine Käse"]


def test_a_caption_that_is_not_utf8_is_rejected_and_the_rest_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "a.txt").write_bytes(b"good\ncaf\xe9\nfine\n")
    entries = list(open_source(tmp_path).items())
    rejected = [entry for entry in entries if isinstance(entry, Rejection)]
    assert [(one.item_id, one.stage, one.reason) for one in rejected] == [("a.jpg#1", "read", "not_utf8")]
    assert "line 2 of a.txt" in rejected[0].detail
    assert [entry.item_id for entry in entries if isinstance(entry, Item)] == ["a.jpg", "a.jpg#0", "a.jpg#2"]


def test_texts_without_a_picture_are_texts_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("one\ntwo\n", encoding="utf-8")
    found = texts(tmp_path)
    assert list(found) == ["notes.txt#0", "notes.txt#1"]
    assert found["notes.txt#0"].image_ids == ()


def test_an_unreadable_sidecar_is_a_rejection(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere.txt")
    entries = list(open_source(tmp_path).items())
    assert [entry.reason for entry in entries if isinstance(entry, Rejection)] == ["unreadable"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX file names are bytes")
def test_a_file_name_that_is_not_utf8_is_a_rejection(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"")
    entries = list(open_source(tmp_path).items())
    assert [(type(entry), entry.item_id) for entry in entries] == [(Rejection, "caf\\udce9.jpg"), (Item, "good.jpg")]


def test_other_files_are_counted_in_a_note(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.pdf", "c.pdf", "captions.jsonl")
    (note,) = open_source(tmp_path).notes
    assert "passed over 3 files" in note
    assert "2 .pdf" in note
    assert "name its file" in note


@pytest.mark.parametrize("names", [(), ("a.pdf", "b.doc")])
def test_a_folder_with_nothing_to_index_says_what_was_seen(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names)
    seen = "2 other files" if names else "no files at all"
    with pytest.raises(SourceError, match=rf"holds nothing to index: looked for images .* saw {seen}"):
        open_source(tmp_path)


def test_a_folder_of_pictures_has_no_splits_and_no_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(SourceError, match="has no split"):
        open_source(tmp_path, SourceOptions(splits=("train",)))
    with pytest.raises(SourceError, match="has no column 'image'"):
        open_source(tmp_path, SourceOptions(image="image"))
