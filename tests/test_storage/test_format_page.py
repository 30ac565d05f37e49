"""The page on the format says what the code writes, and the page of promises names tests that exist."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from encoders.checkpoints import CONFIG_FILE, WEIGHTS_FILE
from encoders.image_tower.tower import ImageTowerInfo
from encoders.text_tower.tower import TextTowerInfo
from indexer.corpus.layouts.film_frames import FRAME_COLUMNS
from indexer.corpus.remote.mirror import LIST
from storage.catalog import TABLES
from storage.faiss_structure import FOURCC
from storage.files import layout
from storage.manifest import FORMAT_VERSION, MAX_BYTES, READER_FEATURES, Manifest
from storage.schema import ANN_KINDS, CorpusInfo, EncodingInfo
from storage.staging import PLAN
from storage.vectors import BATCH_ROWS

NAMED = re.compile(r"`(test_\w+\.py)(?:::(\w+))?`")


@pytest.fixture(scope="module")
def page(home: Path) -> str:
    return (home / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def promises(home: Path) -> str:
    return (home / "docs" / "promises.md").read_text(encoding="utf-8")


def test_the_page_is_about_this_format_version(page: str) -> None:
    assert page.startswith(f"# The index on disk, format version {FORMAT_VERSION}\n")
    assert f"({MAX_BYTES:,} bytes)" in page
    assert f"({BATCH_ROWS:,} as written)" in page
    assert f"`{PLAN}`" in page


def test_the_page_names_every_kind_with_its_first_bytes(page: str) -> None:
    for kind in ANN_KINDS:
        assert f"`{kind}`" in page
    for kind, first in FOURCC.items():
        assert f"| `{kind}` | `{first.decode()}` |" in page


def test_the_page_names_every_column_of_the_catalog_in_order(page: str) -> None:
    for table, columns in TABLES.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{table}` | `"))
        assert re.findall(r"`(\w+)`", line) == [table, *columns]


def test_the_page_names_what_a_tower_says_of_itself_and_what_lies_beside_an_index(page: str) -> None:
    named = set(re.findall(r"`([\w.]+)`", page))
    for kind in (TextTowerInfo, ImageTowerInfo):
        assert {field.name for field in fields(kind)} <= named
    assert {name.rpartition("/")[2] for name in layout.FILE_NAMES} <= set(re.findall(r"[\w.]+", page))
    assert {*FRAME_COLUMNS.names, CONFIG_FILE, WEIGHTS_FILE, LIST} <= named


def test_the_page_names_every_key_and_feature_of_a_manifest(page: str, home: Path) -> None:
    told = json.loads((home / "tests" / "golden" / "v1.json").read_text(encoding="utf-8"))
    assert set(told["flat.index"]["counts"]) == {"items", "indexed", "rejected", "images", "texts", "pairs"}
    for key in (*(field.name for field in fields(Manifest)), "checksum"):
        assert f"`{key}`" in page
    for kind in (EncodingInfo, CorpusInfo):
        assert {field.name for field in fields(kind)} <= set(re.findall(r"`(\w+)`", page))
    assert {f"`{name}`" for name in READER_FEATURES} <= set(re.findall(r"`\w+`", page))


def test_every_test_that_the_promises_name_exists(promises: str, home: Path) -> None:
    named = NAMED.findall(promises)
    assert len(named) >= 20
    for file, function in named:
        (path,) = (home / "tests").rglob(file)
        if function:
            assert re.search(rf"^(class|def) {function}\b", path.read_text("utf-8"), re.MULTILINE), (file, function)


def test_every_promise_names_what_holds_it(promises: str) -> None:
    rows = [line for line in promises.splitlines() if re.match(r"\| P\d+ \|", line)]
    assert [row.split(" |")[0] for row in rows] == [f"| P{number}" for number in range(1, 22)]
    assert all("`" in row.split("|")[3] for row in rows)
