"""Which files of this machine a server shows: those that were indexed, or those below the folder it was given."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from colour import ColourEncoder
from PIL import Image
from served_index import serving

from indexer import build_index
from searcher.server import ServerSettings


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A table of two images below its own folder and one outside of it, and its index beside that folder."""
    folder = tmp_path / "corpus"
    for path, color in (("corpus/red.png", (200, 20, 20)), ("outside/green.png", (20, 200, 20))):
        (tmp_path / path).parent.mkdir()
        Image.new("RGB", (40, 30), color).save(tmp_path / path)
    (folder / "t.csv").write_text(f"image,caption\nred.png,red\n{tmp_path}/outside/green.png,green\n")
    build_index(folder / "t.csv", tmp_path / "photos.index", encoder=ColourEncoder())
    return folder


def status(index: Path, item: str, root: Path | None = None) -> tuple[int, str]:
    with serving(index, ServerSettings(root=root), ColourEncoder()) as server:
        answer: httpx.Response = server.get("/thumbnails", params={"id": item})
        return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]


def test_what_was_indexed_is_shown_wherever_it_lies(corpus: Path, tmp_path: Path) -> None:
    index = tmp_path / "photos.index"
    assert status(index, "red.png") == (200, "")
    assert status(index, f"{tmp_path}/outside/green.png") == (200, "")


def test_another_file_in_its_place_is_shown_only_below_the_folder_that_was_given(corpus: Path, tmp_path: Path) -> None:
    """An index from elsewhere may name any file of this machine; it cannot know what is in it."""
    index = tmp_path / "photos.index"
    for path in (corpus / "red.png", tmp_path / "outside" / "green.png"):
        Image.new("RGB", (40, 30), (20, 20, 200)).save(path)
    code, error = status(index, "red.png")
    assert code == 404
    assert "is not the one that was indexed" in error
    assert "--root" in error
    assert status(index, "red.png", root=corpus) == (200, "")
    assert status(index, f"{tmp_path}/outside/green.png", root=corpus)[0] == 404
