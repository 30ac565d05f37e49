"""Image files that a table or a data set names otherwise than the disk does."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from colour import paint

from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.corpus.tables.table import TableSource
from matcher.tables import CellError, images_of

NFC, NFD = (unicodedata.normalize(form, "Genève") for form in ("NFC", "NFD"))


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        paint(folder / "any.png", "red").rename(folder / name)


def read(folder: Path, *cells: Any, **options: Any) -> tuple[TableSource, list[Item | Rejection]]:
    rows = (json.dumps({"image": cell, "caption": f"caption {n}"}) for n, cell in enumerate(cells))
    (folder / "t.jsonl").write_text("\n".join(rows), encoding="utf-8")
    source = open_source(folder / "t.jsonl", SourceOptions(**options))
    assert isinstance(source, TableSource)
    return source, list(source.items())


def images(entries: list[Item | Rejection]) -> list[str]:
    return [one.item_id for one in entries if isinstance(one, Item) and one.collection == "images"]


def is_found(entries: list[Item | Rejection]) -> bool:
    found = [one.content for one in entries if isinstance(one, Item) and one.collection == "images"]
    return bool(found) and all(isinstance(content, Path) and content.is_file() for content in found)


def test_one_file_spelt_several_ways_is_one_image(tmp_path: Path) -> None:
    put(tmp_path, "im/a.png", "im/b.png")
    ways = ["./im/a.png", "im/a.png", "im//a.png", "im/../im/a.png", f"{tmp_path}/im/a.png", "im\\a.png", "im/b.png"]
    _, entries = read(tmp_path, *ways)
    assert images(entries) == ["./im/a.png", "im/b.png"]
    described = [one.image_ids for one in entries if isinstance(one, Item) and one.collection == "texts"]
    assert described == [("./im/a.png",)] * 6 + [("im/b.png",)]


def test_one_file_twice_in_a_cell_is_one_image(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    _, entries = read(tmp_path, "a.png;./a.png")
    assert [(one.item_id, one.image_ids) for one in entries if isinstance(one, Item)] == [
        ("a.png", ()),
        ("a.png#0", ("a.png",)),
    ]


def test_dots_after_a_link_lead_where_the_link_does(tmp_path: Path) -> None:
    put(tmp_path, "far/near/a.png", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "near")
    put(tmp_path / "far", "a.png")
    _, entries = read(tmp_path, "link/../a.png", "a.png")
    assert len(images(entries)) == 2


@pytest.mark.parametrize("name", ["a;b.png", "Tom &amp; Jerry.png", "x;y;z.png", ";.png"])
def test_a_name_with_the_separator_in_it_is_one_file(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, "c.png")
    assert images(read(tmp_path, name)[1]) == [name]
    assert images(read(tmp_path, f"{name};c.png")[1]) == [name, "c.png"]
    assert [image.source for image in images_of(f"c.png;{name}", tmp_path)] == [tmp_path / "c.png", tmp_path / name]


def test_a_name_that_was_escaped_for_html_is_found(tmp_path: Path) -> None:
    put(tmp_path, "Tom & Jerry.png")
    assert images(read(tmp_path, "Tom &amp; Jerry.png")[1]) == ["Tom & Jerry.png"]


def test_backslashes_are_slashes_unless_a_file_is_called_so(tmp_path: Path) -> None:
    put(tmp_path, "im/a.png", "im\\b.png")
    source, entries = read(tmp_path, "im\\a.png", "im\\b.png")
    assert is_found(entries)
    assert images(entries) == ["im\\a.png", "im\\b.png"]
    assert [one.uri for one in entries if one.collection == "images"] == ["im/a.png", "im\\b.png"]
    note = (
        "1 image paths were found under another spelling on the disk, the first is 'im\\\\a.png' in line 1 of t.jsonl"
    )
    assert note in source.notes
    assert images_of("im\\a.png", tmp_path)[0].source == tmp_path / "im/a.png"


@pytest.mark.parametrize(("on_disk", "in_table"), [(NFD, NFC), (NFC, NFD), (f"{NFD}/{NFC}", f"{NFC}/{NFD}")])
def test_composed_and_decomposed_names_are_the_same(tmp_path: Path, on_disk: str, in_table: str) -> None:
    put(tmp_path, f"{on_disk}.png")
    _, entries = read(tmp_path, f"{in_table}.png", f"{on_disk}.png")
    assert is_found(entries)
    assert len(images(entries)) == 1
    assert images_of(f"{in_table}.png", tmp_path)[0].source == tmp_path / f"{on_disk}.png"


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://", "file:"])
def test_file_urls_of_this_machine_are_paths(tmp_path: Path, start: str) -> None:
    put(tmp_path, "a b#1.png", "c;d.png")
    _, entries = read(tmp_path, f"{start}{quote(str(tmp_path))}/a%20b%231.png", f"{start}{tmp_path}/c;d.png")
    assert is_found(entries)
    assert [one.uri for one in entries if one.collection == "images"] == ["a b#1.png", "c;d.png"]


def test_file_urls_of_other_machines_are_refused(tmp_path: Path) -> None:
    _, (rejected, _) = read(tmp_path, "file://server/share/a.png", allow_urls=True)
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "remote_file"
    with pytest.raises(CellError, match="another machine"):
        images_of("file://server/a.png", tmp_path)


def test_a_drive_is_no_scheme(tmp_path: Path) -> None:
    _, (image, _) = read(tmp_path, "C:\\\\photos\\a.png")
    assert isinstance(image, Item)


def test_an_image_that_is_written_out_as_a_path_is_cut_in_the_message(tmp_path: Path) -> None:
    _, (rejected, _) = read(tmp_path, "iVBORw0KGgo" * 1000)
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "not_a_path"
    assert len(rejected.detail) < 250
    assert len(rejected.item_id) <= 80
    assert "(11,000 long)" in rejected.detail


def test_published_data_sets_are_looked_up_in_the_same_way(tmp_path: Path) -> None:
    put(tmp_path, f"images/{NFD}.png", "images/b.png")
    tokens = f"{NFC}.png#0\tthe lake\n{NFC}.png#1\ta lake\nb.png#0\tred\n"
    (tmp_path / "x.token.txt").write_text(tokens, encoding="utf-8")
    entries = list(open_source(tmp_path).items())
    assert is_found(entries)
    assert images(entries) == [f"{NFC}.png", "b.png"]
    coco = {"images": [{"id": 1, "file_name": "images\\b.png"}], "annotations": [{"image_id": 1, "caption": "red"}]}
    (tmp_path / "captions_val2017.json").write_text(json.dumps(coco), encoding="utf-8")
    assert is_found(list(open_source(tmp_path / "captions_val2017.json").items()))
