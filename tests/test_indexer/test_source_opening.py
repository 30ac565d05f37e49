"""Finding out what a corpus is, and saying so when it cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indexer.corpus import SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError


def test_a_text_file_is_one_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\ncaf\xe9\n")
    entries = list(open_source(tmp_path / "captions.txt").items())
    assert [entry.item_id for entry in entries] == ["captions.txt#0", "captions.txt#1", "captions.txt#2"]
    assert isinstance(entries[2], Rejection)
    assert "line 4 of captions.txt" in entries[2].detail


def test_an_empty_text_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(SourceError, match="holds no text: write one text a line"):
        open_source(tmp_path / "t.txt")


def test_a_text_file_of_picture_names_can_be_read_as_lines(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a.jpg, a good picture\n", encoding="utf-8")
    assert open_source(tmp_path / "t.txt", SourceOptions(layout="lines")).name == "text file t.txt"


def test_a_corpus_that_is_not_there_names_the_closest(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(SourceError, match=r"no corpus at '.*photo'; did you mean '.*photos'\?"):
        open_source(tmp_path / "photo")
    with pytest.raises(SourceError, match="name a folder of images or a table file"):
        open_source(tmp_path / "nowhere" / "x.csv")


def test_a_file_of_no_known_kind_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"no known kind; expected a folder or a file of \.csv, \.tsv"):
        open_source(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "neither Karpathy's layout .* its keys: a"),
        ('{"a": ', "is not JSON in UTF-8"),
        ("", "is not JSON in UTF-8"),
    ],
)
def test_a_json_file_of_no_known_layout_says_what_it_holds(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.json").write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (".", {"layout": "table"}, "layout 'table' needs a file"),
        (".", {"layout": "coco"}, "holds no files of layout 'coco'"),
        ("t.csv", {"layout": "folder"}, "layout 'folder' needs a folder"),
        ("t.csv", {"layout": "flickr"}, "names no image; expected lines such as"),
        ("t.csv", {"layout": "karpathy"}, "is not JSON in UTF-8"),
        ("t.csv", {"layout": "wrong"}, "layout 'wrong' is unknown; choose one of auto, folder"),
        ("t.csv", {"root": Path("nowhere")}, "'nowhere' is no folder"),
    ],
)
def test_a_layout_that_does_not_fit_is_one_clear_error(
    tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "t.csv").write_text("text\nx\n", encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / name, SourceOptions(**options))


def test_reading_a_corpus_needs_no_torch(home: Path) -> None:
    code = "import sys, indexer.corpus; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=home, check=False).returncode == 0
