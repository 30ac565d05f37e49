"""Image files inside tables, as the library `datasets` writes them: structs of bytes and path."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from colour import ColourEncoder, paint

from indexer import build_index
from indexer.corpus import Item, open_source
from indexer.corpus.item import Rejection
from storage import IndexStore


def cell(folder: Path, colour: str, noise: int, path: str | None) -> dict[str, object]:
    return {"bytes": paint(folder / "one.png", colour, noise=noise).read_bytes(), "path": path}


def write(folder: Path, cells: list[object], **columns: object) -> Path:
    path = folder / "train-00000-of-00001.parquet"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(cells, kind), **columns}), path, row_group_size=3)
    return path


@pytest.mark.parametrize("named", [True, False])
def test_structs_of_bytes_and_path_are_built_and_found(tmp_path: Path, named: bool) -> None:
    colours = ["red", "green", "blue", "yellow"]
    cells = [cell(tmp_path, one, n, f"{one}.png" if named else None) for n, one in enumerate(colours)]
    path = write(tmp_path, cells, caption=[f"a {one} square" for one in colours], label=[0, 1, 2, 3])
    report = build_index(path, tmp_path / "out", encoder=(encoder := ColourEncoder()))
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.pairs, counts.rejected) == (4, 4, 4, 0)
    with IndexStore.open(tmp_path / "out").open_version() as version:
        row = version.catalog.rows("images", [1])[0]
        vector = version.vectors("images").gather(np.array([1]))[0]
    assert (row["item_id"], row["label"]) == ("green.png" if named else "row-2", 1)
    content = cells[1]["bytes"]
    assert isinstance(content, bytes)
    np.testing.assert_allclose(vector, encoder.encode_images([content])[0], atol=2e-3)


def test_a_struct_without_bytes_is_a_path_or_nothing(tmp_path: Path) -> None:
    paint(tmp_path / "beside.png", "red")
    cells = [
        {"bytes": None, "path": "beside.png"},
        {"bytes": b"", "path": None},
        None,
        cell(tmp_path, "red", 1, "a.png"),
    ]
    report = build_index(write(tmp_path, cells), tmp_path / "out", encoder=ColourEncoder())
    assert (report.manifest.counts.images, report.rejected) == (2, {"missing_value": 2})


def test_a_list_of_structs_is_a_row_of_several_images(tmp_path: Path) -> None:
    cells = [[cell(tmp_path, "red", 1, None), cell(tmp_path, "blue", 2, None)]]
    pq.write_table(pa.table({"image": cells, "caption": ["both"]}), tmp_path / "t.parquet")
    first, second, text = (entry for entry in open_source(tmp_path / "t.parquet").items() if isinstance(entry, Item))
    assert (first.item_id, second.item_id) == ("row-1#0", "row-1#1")
    assert text.image_ids == ("row-1#0", "row-1#1")


def test_files_of_one_name_and_other_bytes_are_told_apart(tmp_path: Path) -> None:
    cells = [cell(tmp_path, colour, n, "image.png") for n, colour in enumerate(("red", "green", "red"))]
    cells.append(cells[1])
    path = write(tmp_path, cells, caption=["one", "two", "three", "two again"])
    entries = [entry for entry in open_source(path).items() if isinstance(entry, Item)]
    assert [(entry.item_id, entry.image_ids) for entry in entries] == [
        ("image.png", ()),
        ("image.png#0", ("image.png",)),
        ("image.png#row-2", ()),
        ("image.png#row-2#0", ("image.png#row-2",)),
        ("image.png#row-3", ()),
        ("image.png#row-3#0", ("image.png#row-3",)),
        ("image.png#row-2#1", ("image.png#row-2",)),
    ]
    assert build_index(path, tmp_path / "out", encoder=ColourEncoder()).manifest.counts.images == 3


def test_a_repeated_file_of_the_same_bytes_is_one_image(tmp_path: Path) -> None:
    path = write(tmp_path, [cell(tmp_path, "red", 1, "a.png")] * 3, caption=["one", "two", "three"])
    report = build_index(path, tmp_path / "out", encoder=ColourEncoder())
    assert (report.manifest.counts.images, report.manifest.counts.pairs) == (1, 3)


def test_bytes_that_are_no_picture_or_too_many_are_counted(tmp_path: Path) -> None:
    cells: list[object] = [{"bytes": b"no picture", "path": "a.png"}, {"bytes": bytes(9000), "path": "b.png"}]
    path = write(tmp_path, [*cells, cell(tmp_path, "red", 1, "c.png")])
    report = build_index(path, tmp_path / "out", encoder=ColourEncoder(), max_file_bytes=8000)
    assert report.rejected == {"not_an_image": 1, "too_large": 1}


def test_base64_in_json_and_csv_is_an_image(tmp_path: Path) -> None:
    data = paint(tmp_path / "one.png", "red").read_bytes()
    packed = base64.b64encode(data).decode()
    rows = [{"image": {"bytes": packed, "path": "a.png"}}, {"image": f"data:image/png;base64,{packed}"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "t.csv").write_text(f'image,caption\n"Data:image/png;BASE64,{packed}",red\n', "utf-8")
    found = [entry for name in ("t.jsonl", "t.csv") for entry in open_source(tmp_path / name).items()]
    images = [entry for entry in found if isinstance(entry, Item) and entry.collection == "images"]
    assert [image.item_id for image in images] == ["a.png", "row-2", "row-1"]
    assert all(image.content == data for image in images)


@pytest.mark.parametrize("cell", [{"bytes": "/etc/hosts"}, {"bytes": "***"}, "data:image/png,plain", "data:;base64,?"])
def test_what_is_not_base64_is_a_rejection_and_never_a_path(tmp_path: Path, cell: object) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": cell}) + "\n", "utf-8")
    (entry,) = open_source(tmp_path / "t.jsonl").items()
    assert isinstance(entry, Rejection)
    assert (entry.item_id, entry.reason) == ("row-1", "not_base64")
