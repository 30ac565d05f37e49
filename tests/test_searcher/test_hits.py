"""Hits are sequences with arrays, metadata and a JSON form."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from searcher import Hit, Searcher, SearchError
from searcher.hits import plain


def test_hits_are_ranked_from_one_best_first(searcher: Searcher) -> None:
    hits = searcher.text_to_image("a red door", 8)
    assert [hit.rank for hit in hits] == list(range(1, 9))
    assert (np.diff(hits.scores) <= 0).all()
    assert hits[0] == hits.hits[0]
    assert [hit.rank for hit in hits[2:4]] == [3, 4]


def test_arrays_and_hits_say_the_same(searcher: Searcher) -> None:
    hits = searcher.text_to_image("a red door", 8)
    assert hits.item_ids.tolist() == [hit.item_id for hit in hits] == [f"img-{row}" for row in hits.row_ids]
    assert hits.scores.tolist() == [hit.score for hit in hits]
    assert (hits.row_ids.dtype, hits.scores.dtype, hits.item_ids.dtype) == (np.int64, np.float32, object)


def test_a_hit_carries_what_the_catalog_knows(searcher: Searcher, corpus: Any) -> None:
    hit = searcher.image_to_image(corpus.picture(7), 1)[0]
    row = corpus.rows[int(hit.item_id.removeprefix("img-"))]
    assert (hit.uri, hit.caption, hit.metadata["width"]) == (row["uri"], row["caption"], row["width"])
    assert "row_id" not in hit.metadata


def test_only_the_columns_asked_for_come_back(searcher: Searcher) -> None:
    hit = searcher.text_to_image("red", 1, columns=["stars"])[0]
    assert set(hit.metadata) == {"stars"}
    assert hit.caption
    assert searcher.text_to_image("red", 1, columns=[])[0].metadata == {}


def test_the_json_form_is_flat_and_real_json(searcher: Searcher) -> None:
    answer = json.loads(json.dumps(searcher.text_to_image("red", 2, where="stars = 1").to_json(), allow_nan=False))
    assert set(answer) == {"query", "where", "hits", "ann"}
    assert list(answer["hits"][0])[:8] == [*("rank", "item_id", "score", "uri", "path", "caption", "width", "height")]
    assert answer["hits"][0]["stars"] == 1
    assert answer["ann"]["kind"] == "flat"


def test_a_metadata_column_cannot_hide_a_field_of_ours() -> None:
    hit = Hit(rank=1, item_id="a", score=0.5, metadata={"score": 9, "rank": 7, "stars": 3})
    assert hit.to_json()["score"] == 0.5
    assert hit.to_json()["metadata.score"] == 9
    assert hit.to_json()["stars"] == 3


def test_an_image_has_its_file_and_opens(searcher: Searcher, corpus: Any) -> None:
    hit = searcher.text_to_image("a red door", 1)[0]
    assert hit.path == corpus.root / hit.uri
    assert hit.to_json()["path"] == str(hit.path)
    assert np.array_equal(np.asarray(hit.open()), np.asarray(Image.open(hit.path).convert("RGB")))


def test_a_text_has_no_file_and_does_not_open(searcher: Searcher) -> None:
    hit = searcher.text_to_text("a red door", 1)[0]
    assert (hit.collection, hit.path) == ("texts", None)
    assert "path" not in hit.to_json()
    with pytest.raises(SearchError, match="is a text and no image"):
        hit.open()


def test_images_that_were_moved_are_found_where_the_searcher_is_told(corpus: Any, encoder: Any, tmp_path: Path) -> None:
    shutil.copytree(corpus.root, tmp_path / "moved")
    with Searcher.open(corpus.index, encoder=encoder, root=tmp_path / "moved") as searcher:
        assert searcher.text_to_image("red", 1)[0].path.parent == tmp_path / "moved"
    with Searcher.open(corpus.index, encoder=encoder, root=tmp_path / "elsewhere") as searcher:
        (hit,) = searcher.text_to_image("red", 1)
    assert (hit.path, hit.to_json()["path"]) == (None, None)
    with pytest.raises(SearchError, match=r"missing.*name their folder by root="):
        hit.open()


@pytest.mark.parametrize("uri", ["../secret.png", "a\0.png", "", None])
def test_a_uri_that_names_no_file_below_the_corpus_has_no_path(tmp_path: Path, uri: str | None) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "corpus").mkdir()
    hit = Hit(rank=1, item_id="a", score=0.5, uri=uri, root=tmp_path / "corpus")
    assert hit.path is None
    with pytest.raises(SearchError, match="names no file below"):
        hit.open()


def test_tables_have_a_row_a_hit_and_types_of_their_own(searcher: Searcher) -> None:
    hits = searcher.text_to_image("a red door", 5, columns=["stars", "owner"])
    table = hits.to_arrow()
    assert table.column_names == ["rank", "item_id", "score", "uri", "path", "caption", "stars", "owner"]
    assert table["item_id"].to_pylist() == hits.item_ids.tolist()
    assert table.schema.field("rank").type == "int64"
    assert hits.to_pandas()["score"].tolist() == pytest.approx(hits.scores.tolist())
    assert hits.to_polars()["caption"].to_list() == [hit.caption for hit in hits]


def test_a_table_of_no_hits_has_its_first_columns(searcher: Searcher) -> None:
    hits = searcher.text_to_image("red", where="stars > 1000")
    assert (hits.to_arrow().num_rows, hits.to_arrow().column_names) == (0, ["rank", "item_id", "score"])
    assert len(hits.to_pandas()) == len(hits.to_polars()) == 0


def test_values_that_arrow_cannot_mix_are_text(searcher: Searcher) -> None:
    hits = searcher.text_to_image("red", 2)
    mixed = [replace(hit, metadata={"odd": value}) for hit, value in zip(hits, (1, {"a": 1}), strict=True)]
    assert replace(hits, hits=tuple(mixed)).to_arrow()["odd"].to_pylist() == ["1", "{'a': 1}"]


def test_a_package_that_is_missing_is_named(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    hits = searcher.text_to_image("red", 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SearchError, match="polars is not installed; run pip install polars"):
        hits.to_polars()


def test_a_notebook_shows_thumbnails_and_escapes_every_text(searcher: Searcher) -> None:
    hits = searcher.text_to_image("<b>red</b>", 30)
    page = hits._repr_html_()
    assert page.count('<img src="data:image/jpeg;base64,') == 24
    assert "and 6 more" in page
    assert "<b>red</b>" not in page
    assert "&lt;b&gt;red&lt;/b&gt;" in page
    evil = replace(hits, hits=(replace(hits[0], item_id='"><script>', caption="<script>", root=Path("gone")),))
    assert "<script>" not in evil._repr_html_()
    assert "the image is not there" in evil._repr_html_()
    assert "<img" not in searcher.text_to_text("red", 3)._repr_html_()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (float("nan"), None),
        (float("-inf"), None),
        (Decimal("1.5"), 1.5),
        (date(2020, 1, 2), "2020-01-02"),
        (datetime(2020, 1, 2, 3, tzinfo=UTC), "2020-01-02T03:00:00+00:00"),
        (b"\x00\xff", "00ff"),
        ({1: [date(2020, 1, 2), {2.5}]}, {"1": ["2020-01-02", [2.5]]}),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_every_value_of_a_catalog_has_a_json_form(value: Any, expected: Any) -> None:
    assert plain(value) == expected
