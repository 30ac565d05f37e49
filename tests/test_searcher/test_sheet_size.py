"""A contact sheet is as wide and as high as what stands on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searcher import Searcher
from searcher.render.contact_sheet import PAGE, draw_contact_sheet


def blank_right(page: Image.Image) -> int:
    """Columns at the right that show nothing but the page."""
    empty = (np.asarray(page) == np.asarray(Image.new("RGB", (1, 1), PAGE))[0, 0]).all(axis=(0, 2))
    return int(np.argmin(empty[::-1]))


@pytest.mark.parametrize("k", [2, 3, 4, 5, 9])
def test_few_images_leave_no_empty_side(searcher: Searcher, corpus: Any, k: int) -> None:
    assert blank_right(draw_contact_sheet([searcher.text_to_image("red", k)], corpus.root)) < 60


def test_one_hit_still_leaves_room_for_a_heading(searcher: Searcher, corpus: Any) -> None:
    assert draw_contact_sheet([searcher.text_to_image("red", 1)], corpus.root).width == 640
    assert draw_contact_sheet([searcher.text_to_image("red", where="false")], None).width == 640
    assert draw_contact_sheet([], None).width == 640


def test_a_long_heading_widens_the_sheet_up_to_a_limit_and_is_broken_there(searcher: Searcher, corpus: Any) -> None:
    words = [searcher.text_to_image("a red door " * count, 1) for count in (1, 4, 60)]
    pages = [draw_contact_sheet([hits], corpus.root) for hits in words]
    assert pages[0].width < pages[1].width < pages[2].width <= 2120
    assert pages[1].height < pages[2].height


def test_a_long_filter_is_broken_and_not_cut_off(searcher: Searcher, corpus: Any) -> None:
    where = " and ".join(["width >= 1"] * 20)
    page = draw_contact_sheet([searcher.text_to_image("red", 5, where=where)], corpus.root)
    assert blank_right(page) >= 40


def test_the_widest_query_sets_the_width(searcher: Searcher, corpus: Any) -> None:
    found = [searcher.text_to_image("red", 2), searcher.text_to_image("blue", 4)]
    assert draw_contact_sheet(found, corpus.root).width == draw_contact_sheet(found[1:], corpus.root).width


def test_cards_without_a_caption_have_no_room_for_one(searcher: Searcher, corpus: Any) -> None:
    hits = searcher.text_to_image("red", 3)
    bare = replace(hits, hits=tuple(replace(hit, caption=None) for hit in hits))
    one = replace(hits, hits=(hits[0], *bare.hits[1:]))
    heights = [draw_contact_sheet([found], corpus.root).height for found in (bare, one, hits)]
    assert heights[0] < heights[1] <= heights[2]
