"""What a right checksum cannot tell: files that are as they were written and do not fit each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from small_index import DIM, ENCODER, collections, counts, fill, publish, tables, unit_rows

from storage import IndexStore
from storage.catalog import write_catalog
from storage.errors import CorruptIndexError
from storage.files.canonical_json import to_plain
from storage.files.layout import TOWER_FILES, measure
from storage.one_byte import encode
from storage.publish import write_pointer
from storage.schema import Collection, Rounding
from storage.vectors import VectorWriter

ROWS = 6


def other_ids(path: Path) -> None:
    """A catalog whose texts are called otherwise."""
    given = tables(ROWS)
    place = given["texts"].schema.get_field_index("item_id")
    names = pa.array([f"item_id-{row if row != 4 else 'x'}" for row in range(ROWS)])
    given["texts"] = given["texts"].set_column(place, "item_id", names)
    path.unlink()
    write_catalog(path, **given)


def stray_pair(path: Path) -> None:
    """A catalog with a pair of a text that does not exist."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"UPDATE pairs SET text_row = {ROWS} WHERE image_row = 0")


def publish_with(store: IndexStore, change: Callable[[Path], None], name: str) -> None:
    """Publish a version of which one file was changed before it was measured."""
    with store.lock():
        draft = store.draft()
        plan = fill(draft, ROWS)
        change(draft.path / name)
        store.publish(draft, encoder=ENCODER, collections=collections(ROWS, plan), counts=counts(ROWS), build={})


def reseal(store: IndexStore, name: str) -> None:
    """Make manifest and CURRENT fit a file that was changed afterwards."""
    number = store.manifest().version
    manifest = store.manifest()
    entry = measure(store.version_path(number), name)
    data = replace(manifest, files={**manifest.files, name: entry}).to_json()
    (store.version_path(number) / "manifest.json").write_bytes(data)
    write_pointer(store.path, number, data)


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        (
            other_ids,
            "texts: item ids of the catalog against the vectors",
            "gives the texts from row 0 on other item ids",
        ),
        (stray_pair, "pairs name rows that exist", "has pairs of texts 1 to 6 and 6 texts"),
    ],
)
def test_a_catalog_that_does_not_fit_is_found(
    store: IndexStore, change: Callable[[Path], None], rule: str, words: str
) -> None:
    publish_with(store, change, "catalog.duckdb")
    found = store.verify()
    assert {check.checksum for check in found.files} == {"ok"}
    (broken,) = (check for check in found.structure if check.outcome == "bad")
    assert (broken.name, broken.file) == (rule, "catalog.duckdb")
    assert words in str(broken.problem)
    assert not found.ok


def test_values_that_are_no_numbers_are_found(store: IndexStore) -> None:
    path = store.version_path(2) / "images" / "vectors.arrow"
    with store.open_version() as version:
        row = version.vectors("images").gather(np.array([3]))
    broken = row.copy()
    broken[0, 0] = np.nan
    path.write_bytes(path.read_bytes().replace(row.tobytes(), broken.tobytes()))
    reseal(store, "images/vectors.arrow")
    (problem,) = store.verify().problems
    assert "holds NaN or infinity in row 3" in problem


def in_one_byte(folder: Path, scale: float | None = None) -> None:
    """Write the vectors of a draft anew at one byte a value, the first image with another scale."""
    for name in ("images", "texts"):
        path = folder / name / "vectors.arrow"
        path.unlink()
        with VectorWriter(path, DIM, dtype="int8") as writer:
            writer.append([f"item_id-{row}" for row in range(ROWS)], unit_rows(ROWS, 0))
    if scale is not None:
        path = folder / "images" / "vectors.arrow"
        scales = encode(unit_rows(ROWS, 0).astype(np.float16)).scales
        other = np.array([scale, *scales[1:]], dtype=np.float16)
        path.write_bytes(path.read_bytes().replace(scales.tobytes(), other.tobytes()))


def publish_in_one_byte(store: IndexStore, rounding: dict[Collection, Rounding], scale: float | None = None) -> None:
    with store.lock():
        draft = store.draft()
        plan = fill(draft, ROWS)
        in_one_byte(draft.path, scale)
        values = {"collections": collections(ROWS, plan), "counts": counts(ROWS), "build": {}, "rounding": rounding}
        store.publish(draft, encoder=ENCODER, **values)


BOTH: dict[Collection, Rounding] = {"images": Rounding(within=0.02), "texts": Rounding(within=0.02)}


@pytest.mark.parametrize("scale", [np.nan, 0.0, -0.5, 0.3])
def test_a_scale_that_no_row_has_is_found_by_verification(store: IndexStore, scale: float) -> None:
    publish_in_one_byte(store, BOTH)
    assert store.verify().problems == []
    publish_in_one_byte(store, BOTH, scale)
    (problem,) = store.verify().problems
    assert "images/vectors.arrow holds a level or scale that no vector has in row 0; build again" in problem


def test_vectors_of_another_form_than_the_manifest_says_are_not_published(store: IndexStore) -> None:
    before = store.current()
    with pytest.raises(CorruptIndexError, match="has numbers int8 and the manifest says float16"):
        publish_in_one_byte(store, {})
    assert store.current() == before


def test_an_ann_file_of_other_vectors_is_found(store: IndexStore) -> None:
    other = store.version_path(1) / "images" / "ann.faiss"
    (store.version_path(2) / "images" / "ann.faiss").write_bytes(other.read_bytes())
    reseal(store, "images/ann.faiss")
    (broken,) = (check for check in store.verify().structure if check.outcome == "bad")
    assert (broken.name, broken.file) == ("images: rows, dim and metric of the ANN file", "images/ann.faiss")
    assert "has rows 5 where 6 is expected" in str(broken.problem)


def test_what_needs_a_damaged_file_is_not_checked_and_the_rest_is(store: IndexStore) -> None:
    (store.version_path(2) / "catalog.duckdb").write_bytes(b"x")
    found = store.verify()
    outcomes = {check.name: check.outcome for check in found.structure}
    assert outcomes["pairs name rows that exist"] == "not checked"
    assert outcomes["images: item ids of the catalog against the vectors"] == "not checked"
    assert outcomes["images: every value of the vectors is finite"] == "ok"
    assert "bad" not in outcomes.values()
    assert len(found.problems) == 1


def test_the_report_says_size_and_checksum_of_each_file(store: IndexStore) -> None:
    folder = store.version_path(2)
    (folder / "images" / "ann.faiss").unlink()
    (folder / "texts" / "vectors.arrow").write_bytes(b"x")
    (folder / "stray").write_bytes(b"xyz")
    told = {Path(check.name).relative_to("versions/00000002").as_posix(): check for check in store.verify().files}
    assert {name: (check.bytes, check.checksum) for name, check in told.items() if check.problem} == {
        "images/ann.faiss": (None, "missing"),
        "texts/vectors.arrow": (1, "bad"),
        "stray": (3, "unasked"),
    }
    assert to_plain(told["stray"])["name"] == "versions/00000002/stray"


def test_item_ids_come_in_row_order_and_only_those_that_exist(store: IndexStore) -> None:
    with store.open_version() as version:
        assert list(version.catalog.item_ids("images", 2, 99)) == [f"item_id-{row}" for row in range(2, 6)]
        assert list(version.catalog.item_ids("texts", 6, 9)) == []


def test_a_version_that_was_published_in_the_ordinary_way_breaks_no_rule(store: IndexStore) -> None:
    publish(store, 9)
    assert {check.outcome for check in store.verify().structure} == {"ok"}


@pytest.mark.parametrize(("fingerprint", "wrong"), [(ENCODER.fingerprint, False), ("0" * 64, True)])
def test_a_tower_of_another_encoder_is_found(store: IndexStore, fingerprint: str, wrong: bool) -> None:
    tower = {f"text_tower/{name}": b"{}" for name in TOWER_FILES["text_tower"]}
    publish(store, 4, extra={**tower, "text_tower/tower.json": json.dumps({"fingerprint": fingerprint}).encode()})
    problems = store.verify().problems
    assert [f"is that of the encoder {fingerprint}" in problem for problem in problems] == [True] * wrong


def test_vectors_of_an_unknown_encoder_have_the_dim_that_they_have(store: IndexStore) -> None:
    with store.lock():
        draft = store.draft()
        plan = fill(draft, 4)
        store.publish(draft, encoder=None, collections=collections(4, plan), counts=counts(4), build={})
    assert store.verify().ok
