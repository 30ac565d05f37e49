"""Near-duplicates of an index: groups with a grade, the best image of each, as Python values, JSON, text and a page."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder
from PIL import Image, ImageOps

from indexer import build_index
from searcher import Searcher, SearchError
from storage.duplicates.grades import copy_rule
from storage.schema import EncoderInfo
from twinlens.commands.duplicates import duplicates


def scene(seed: int) -> Image.Image:
    """Smooth random shapes of one colour, so that the vectors of all scenes are alike and the hashes are not."""
    coarse = np.random.default_rng(seed).integers(0, 100, (9, 12, 3)).astype(np.uint8) + np.uint8([150, 40, 0])
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    photos = folder / "photos"
    photos.mkdir()
    for number in range(6):
        scene(number).save(photos / f"{number}.png")
    (photos / "0 copy.png").write_bytes((photos / "0.png").read_bytes())
    os.utime(photos / "0.png", (1e9, 1e9))  # the older of two equal files is the best one
    scene(0).save(photos / "0 small <b>.jpg", quality=60)
    scene(1).resize((160, 120)).save(photos / "1 half.jpg", quality=80)
    scene(1).resize((640, 480)).save(photos / "1 double.jpg", quality=80)
    ImageOps.mirror(scene(2)).resize((310, 232)).save(photos / "2 mirrored.png")
    scene(3).crop((6, 16, 314, 224)).save(photos / "3 cropped.png")
    for level in (90, 91):
        Image.new("RGB", (320, 240), (level,) * 3).save(photos / f"flat {level}.png")
    build_index(photos, folder / "index", encoder=ColourEncoder())
    return folder / "index"


def told(index: Path, grade: str) -> dict[str, dict[str, str | None]]:
    with Searcher.open(index, encoder=ColourEncoder()) as searcher:
        found = searcher.duplicates(grade)  # type: ignore[arg-type]
    return {group.best.item_id: {item.item_id: item.grade for item in group.items} for group in found.groups}


def test_grades_are_told_apart(index: Path) -> None:
    exact = {"0.png": {"0.png": None, "0 copy.png": "exact"}}
    resaved = {"0.png": {**exact["0.png"], "0 small <b>.jpg": "resaved"}}
    resaved["1 double.jpg"] = {"1 double.jpg": None, "1.png": "resaved", "1 half.jpg": "resaved"}
    similar = {**resaved, "2.png": {"2.png": None, "2 mirrored.png": "similar"}}
    similar["3.png"] = {"3.png": None, "3 cropped.png": "similar"}
    assert told(index, "exact") == exact
    assert told(index, "resaved") == resaved
    assert told(index, "similar") == similar


def test_the_command_gives_documented_json_and_the_largest_group_first(index: Path) -> None:
    answer = CliRunner().invoke(duplicates, [str(index), "--output", "json"])
    found = json.loads(answer.stdout)
    assert found.keys() == {"index", "grade", "images", "hashed", "by_hash", "groups"}
    assert (found["grade"], found["images"], found["hashed"]) == ("resaved", 14, 12)
    group = found["groups"][0]
    assert group.keys() == {"grade", "items", "best"}
    assert group["best"] == group["items"][0]["item_id"]
    sizes = [len(group["items"]) for group in found["groups"]]
    assert sizes == sorted(sizes, reverse=True) == [3, 3]
    keys = {"item_id", "uri", "width", "height", "file_bytes", "modified", "grade", "bits", "cosine"}
    assert all(item.keys() == keys for group in found["groups"] for item in group["items"])


def test_text_and_page_show_every_image_of_a_group(index: Path) -> None:
    text = CliRunner().invoke(duplicates, [str(index), "--grade", "similar"]).stdout
    assert text.startswith("4 groups among 14 images: beside the best of each 1 exact, 3 resaved, 2 similar. 2 images")
    page = CliRunner().invoke(duplicates, [str(index), "--grade", "similar", "--output", "html"]).stdout
    assert page.count("data:image/jpeg;base64,") == 10
    assert "0 small &lt;b&gt;.jpg" in page
    assert "<b>.jpg" not in page


def test_where_vectors_cannot_tell_that_is_said_beside_their_cosines(index: Path) -> None:
    with Searcher.open(index, encoder=ColourEncoder()) as searcher:
        found = searcher.duplicates()
    assert not found.by_hash
    assert "Resaved is told by the hashes" not in found.to_text()
    assert "Resaved is told by the hashes" in replace(found, by_hash=True).to_text()
    assert copy_rule(EncoderInfo(spec="lite", dim=384, fingerprint=None)).by_hash


def test_what_cannot_be_asked_is_one_clear_error(index: Path, tmp_path: Path) -> None:
    with (
        Searcher.open(index, encoder=ColourEncoder()) as searcher,
        pytest.raises(SearchError, match="grade='same' is no grade"),
    ):
        searcher.duplicates("same")  # type: ignore[arg-type]
    (tmp_path / "texts.txt").write_text("a dog\na cat\n")
    build_index(tmp_path / "texts.txt", tmp_path / "index", encoder=ColourEncoder())
    with (
        Searcher.open(tmp_path / "index", encoder=ColourEncoder()) as searcher,
        pytest.raises(SearchError, match="holds no images"),
    ):
        searcher.duplicates()
