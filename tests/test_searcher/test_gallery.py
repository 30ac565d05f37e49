"""The gallery is one page that needs nothing else and trusts no text."""

from __future__ import annotations

import base64
import io
import re
import resource
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from searcher import Hit, Searcher, SearchError
from searcher.hits import Explanation
from searcher.render.contact_sheet import save_contact_sheet
from searcher.render.html_gallery import render_gallery, save_gallery

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7 * 7 }} &amp;"


class Tags(HTMLParser):
    """All tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_a_gallery_shows_every_hit_with_an_alternative_text(searcher: Searcher, corpus: Any) -> None:
    hits = searcher.text_to_image("a red door", 6)
    page = Tags(render_gallery([hits], corpus.root))
    pictures = page.named("img")
    assert [picture["alt"] for picture in pictures] == [hit.caption for hit in hits]
    for picture in pictures:
        data = base64.b64decode((picture["src"] or "").removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(data)).size == (int(picture["width"] or 0), int(picture["height"] or 0))


def test_a_gallery_shows_why_and_where_an_image_matches_by_explain(searcher: Searcher, corpus: Any) -> None:
    found = searcher.text_to_image("a red door", 2)
    told = Explanation(item_id="t", caption="a <red> door", score=0.5)
    hits = replace(found, hits=(replace(found[0], explanation=told), found[1]))
    text = render_gallery([hits], corpus.root, [[searcher.relevance_map("a red door", found[0].open()), None]])
    assert re.findall(r"Nearest caption: ([^\n]*)</p>", text) == ["a &lt;red&gt; door"]
    shown = [picture for picture in Tags(text).named("img") if picture.get("class") == "where"]
    assert [picture["alt"] for picture in shown] == [f"what matches in {hits[0].item_id}, the rest in the dark"]


def test_a_gallery_needs_no_other_file_and_no_network(searcher: Searcher, corpus: Any) -> None:
    text = render_gallery(searcher.text_to_image(["red", "blue"], 4), corpus.root)
    page = Tags(text)
    assert not page.named("script")
    assert not page.named("link")
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?:", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_texts_from_outside_are_escaped(searcher: Searcher, corpus: Any) -> None:
    hits = searcher.text_to_image("red", 1)
    evil = Hit(rank=1, item_id=NASTY, score=0.5, uri=NASTY, caption=NASTY, metadata={NASTY: NASTY})
    hits = replace(hits, hits=(evil,), query=replace(hits.query, label=NASTY))
    page = Tags(render_gallery([hits], corpus.root))
    assert not page.named("script")
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert NASTY in " ".join(page.words)


def test_the_query_picture_is_shown(searcher: Searcher, corpus: Any) -> None:
    page = Tags(render_gallery([searcher.image_to_text(corpus.picture(3), 4)], corpus.root))
    assert [picture["alt"] for picture in page.named("img")] == ["the query: 0003.png"]
    assert len(page.named("li")) == 4


def test_a_missing_picture_is_said(searcher: Searcher, tmp_path: Path) -> None:
    page = Tags(render_gallery([searcher.text_to_image("red", 3)], tmp_path))
    assert page.named("img") == []
    assert page.words.count("file not found") == 3


def test_metadata_is_shown_and_nothing_is_not(searcher: Searcher, corpus: Any) -> None:
    hit = searcher.text_to_image("red", 1, where="owner is null")[0]
    page = render_gallery([searcher.text_to_image("red", 1, where="owner is null")], corpus.root)
    assert f"<dt>width</dt><dd>{hit.metadata['width']}</dd>" in page
    assert "<dt>owner</dt>" not in page


def test_a_gallery_is_written_as_utf8(searcher: Searcher, corpus: Any, tmp_path: Path) -> None:
    hits = searcher.text_to_text("rouge et très rouge 猫", 2)
    save_gallery(tmp_path / "hits.html", [hits], corpus.root)
    assert "très rouge 猫" in (tmp_path / "hits.html").read_text(encoding="utf-8")


def test_a_gallery_without_hits_or_queries_is_a_page(searcher: Searcher, corpus: Any) -> None:
    assert "0 images" in render_gallery([searcher.text_to_image("red", where="false")], corpus.root)
    assert "no queries" in render_gallery([])


def test_too_many_hits_and_unwritable_galleries_are_errors(searcher: Searcher, tmp_path: Path) -> None:
    many = searcher.text_to_text([f"red {number}" for number in range(7)], 320)
    with pytest.raises(SearchError, match="2240 hits do not fit in a gallery; ask for 2000 or fewer"):
        save_gallery(tmp_path / "hits.html", many)
    with pytest.raises(SearchError, match=r"cannot write the gallery .*: No such file"):
        save_gallery(tmp_path / "no" / "hits.html", many[:1])


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(searcher: Searcher, tmp_path: Path) -> None:
    hits = [searcher.text_to_text("red", 3)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for save, name in ((save_gallery, "hits.html"), (save_contact_sheet, "hits.png")):
        (tmp_path / f"real-{name}").write_bytes(b"of yesterday")
        (tmp_path / name).symlink_to(tmp_path / f"real-{name}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(SearchError, match=r"cannot write the .*: File too large; fix that"):
                save(tmp_path / name, hits)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (tmp_path / name).read_bytes() == b"of yesterday"
        save(tmp_path / name, hits)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / f"real-{name}").stat().st_size > 100
    assert len([*tmp_path.iterdir()]) == 4


def test_a_query_picture_keeps_its_shape(searcher: Searcher, corpus: Any) -> None:
    page = render_gallery([searcher.image_to_text(corpus.picture(3), 1)], corpus.root)
    assert "header img { width: auto; height: auto; max-width" in page


def test_a_tall_picture_cannot_stretch_its_card(searcher: Searcher, corpus: Any) -> None:
    page = render_gallery([searcher.text_to_image("red", 1)], corpus.root)
    assert ".well { position: relative;" in page
    assert ".well img { position: absolute; inset: 0;" in page
