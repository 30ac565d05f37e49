"""Words in any script are drawn, or told in words; nobody reads boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from searcher import Searcher
from searcher.render import fonts
from searcher.render.contact_sheet import draw_contact_sheet, width_of, wrap


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts, "_SYSTEM", ())
    fonts._installed.cache_clear()
    yield
    fonts._installed.cache_clear()


@pytest.mark.usefixtures("no_system_fonts")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog, 5 < 6!", "a dog, 5 < 6!"),
        ("émigré café", "emigre cafe"),
        ("a — b", "a - b"),
        ("Красная площадь 7", "[cyrillic] 7"),
        ("हिन्दी लाल", "[devanagari]"),
        ("emoji 🐶 here", "emoji [dog face] here"),
    ],
)
def test_without_a_font_signs_are_told_in_words(text: str, shown: str) -> None:
    assert wrap(text, 12, 10_000, 1) == [shown]


@pytest.mark.parametrize(
    "text", ["a dog", "émigré — “café” €5", "Красная площадь", "مربع أحمر", "猫 and 🐶", "x\u0301"]
)
def test_nothing_that_is_drawn_is_a_box(text: str) -> None:
    for font, part in fonts.runs(fonts.spelled(text), 24):
        box = bytes(font.getmask("\U0010ffff"))
        assert all(bytes(font.getmask(sign)) != box for sign in part if not sign.isspace()), part


def test_runs_are_the_text_and_one_font_is_taken_where_one_will_do() -> None:
    assert "".join(part for _, part in fonts.runs("cat кот cat 猫", 24)) == "cat кот cat 猫"
    assert len(fonts.runs("a man rides a horse", 24)) == 1
    assert fonts.runs("", 24) == []


def test_a_font_that_the_system_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_SYSTEM", ("no such font.ttf",))
    fonts._installed.cache_clear()
    assert fonts._installed() == ()
    fonts._installed.cache_clear()


def test_long_words_of_any_script_are_broken_to_fit() -> None:
    lines = wrap("приветмир" * 40, 12, 300, 4)
    assert len(lines) == 4
    assert all(width_of(line, 12) <= 300 for line in lines)


def test_captions_of_many_scripts_make_a_sheet(searcher: Searcher) -> None:
    hits = searcher.text_to_text("a red door", 3)
    captions = ("красная дверь — №1", "红门 🐶", "émigré " * 90)
    odd = tuple(replace(hit, caption=caption) for hit, caption in zip(hits, captions, strict=True))
    assert draw_contact_sheet([replace(hits, hits=odd)], None).height > 300
