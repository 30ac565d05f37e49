"""The contact sheet is a picture of the hits, whatever their files look like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searcher import Hit, Searcher, SearchError
from searcher.hits import clean
from searcher.render.contact_sheet import _id_lines, draw_contact_sheet, save_contact_sheet, width_of, wrap
from searcher.render.thumbnails import thumbnail


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3)}


def test_a_sheet_is_a_png_that_shows_the_pictures(searcher: Searcher, corpus: Any, tmp_path: Path) -> None:
    save_contact_sheet(tmp_path / "hits.png", [searcher.text_to_image("a purple door", 7)], corpus.root)
    with Image.open(tmp_path / "hits.png") as image:
        assert image.format == "PNG"
        assert 2100 <= image.width <= 2120
        assert image.height > 900
        assert (140, 40, 160) in colours(image)


def test_a_sheet_grows_with_the_hits(searcher: Searcher, corpus: Any) -> None:
    heights = [draw_contact_sheet([searcher.text_to_image("red", k)], corpus.root).height for k in (5, 6, 11)]
    assert heights[0] < heights[1] < heights[2]


def test_several_queries_share_a_sheet(searcher: Searcher, corpus: Any) -> None:
    found = searcher.text_to_image(["a red door", "a blue door"], 5)
    together = draw_contact_sheet(found, corpus.root)
    assert together.height > 1.8 * draw_contact_sheet(found[:1], corpus.root).height
    assert {(200, 30, 30), (40, 60, 200)} <= colours(together)


def test_the_query_picture_stands_at_the_top(searcher: Searcher, corpus: Any) -> None:
    page = draw_contact_sheet([searcher.image_to_text(corpus.picture(3), 5)], corpus.root)
    head = page.crop((0, 0, page.width, 260))
    assert (230, 210, 40) in colours(head)


def test_texts_are_cards(searcher: Searcher, corpus: Any) -> None:
    short = draw_contact_sheet([searcher.text_to_text("a red door", 3)], None)
    hits = searcher.text_to_text("a red door", 3)
    long = replace(hits, hits=tuple(replace(hit, caption="many words " * 100) for hit in hits))
    assert draw_contact_sheet([long], None).height > short.height


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_long_id_is_shown_whole_and_the_cards_grow_for_it(kind: str, searcher: Searcher, corpus: Any) -> None:
    hits = searcher.text_to_image("red", 3) if kind == "image" else searcher.text_to_text("a red door", 3)
    item_id = "/".join(["holidays", "a-very-long-folder-name"] * 12) + "/the-end.jpg"
    long = replace(hits, hits=tuple(replace(hit, item_id=item_id) for hit in hits))
    assert draw_contact_sheet([long], None).height > draw_contact_sheet([hits], None).height
    drawn = _id_lines(long[0], 400)
    assert "".join(drawn) == item_id


def test_a_picture_that_cannot_be_shown_is_a_tile_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    assert thumbnail(tmp_path / "gone.jpg", (10, 10)).problem == "file not found"
    assert thumbnail(tmp_path / "notes.jpg", (10, 10)).problem == "not an image"
    assert thumbnail(tmp_path / "empty.jpg", (10, 10)).problem == "empty"
    assert thumbnail(None, (10, 10)).problem == "no file is named"


def test_a_sheet_of_missing_pictures_is_drawn_all_the_same(searcher: Searcher, tmp_path: Path) -> None:
    hits = searcher.text_to_image("red", 6)
    assert draw_contact_sheet([hits], tmp_path).size == draw_contact_sheet([hits], None).size


@pytest.mark.parametrize("size", [(1, 1), (4000, 3), (3, 4000), (600, 400), (2, 2)])
def test_a_thumbnail_keeps_its_shape_and_fits(size: tuple[int, int]) -> None:
    small = thumbnail(Image.new("RGB", size, "red"), (200, 100)).image
    assert small is not None
    assert small.width <= 200
    assert small.height <= 100
    if min(size) > 10:
        assert small.width / small.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_no_hits_make_a_sheet_with_the_query_alone(searcher: Searcher, corpus: Any) -> None:
    assert draw_contact_sheet([searcher.text_to_image("red", where="false")], corpus.root).height < 300


@pytest.mark.parametrize("caption", ["", None, "x" * 5000, "\x00\x1b[31m\n\n", "猫 кот 🐈", "a\u202eb"])
def test_any_caption_can_be_drawn(searcher: Searcher, corpus: Any, caption: str | None) -> None:
    hits = searcher.text_to_image("red", 1)
    odd = Hit(rank=1, item_id="x" * 400, score=-0.25, uri=hits[0].uri, caption=caption)
    assert draw_contact_sheet([replace(hits, hits=(odd,))], corpus.root).height > 300


def test_wrapped_lines_fit_and_end_in_an_ellipsis() -> None:
    text = "a man in a red jacket rides a horse " * 20 + "x" * 300
    lines = wrap(text, 12, 400, 3)
    assert len(lines) == 3
    assert all(width_of(line, 12) <= 400 for line in lines)
    assert lines[-1].endswith("...")
    assert wrap("short", 12, 400, 3) == ["short"]
    assert " ".join(wrap("y" * 90, 12, 400, 9)).replace(" ", "") == "y" * 90


def test_control_characters_are_left_out() -> None:
    assert clean("a\x1b[2J\tb\u200f\nc") == "a[2J b c"


def test_too_many_hits_and_unwritable_files_are_errors(searcher: Searcher, corpus: Any, tmp_path: Path) -> None:
    many = searcher.text_to_image(["red", "blue"], 320)
    with pytest.raises(SearchError, match="640 hits do not fit on a contact sheet; ask for 500 or fewer"):
        save_contact_sheet(tmp_path / "hits.png", many, corpus.root)
    with pytest.raises(SearchError, match=r"cannot write the contact sheet .*: No such file"):
        save_contact_sheet(tmp_path / "no" / "hits.png", [searcher.text_to_image("red", 1)], corpus.root)
