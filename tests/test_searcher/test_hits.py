"""Hits are sequences with arrays, metadata and a JSON form."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from searcher import Hit, Searcher
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
    assert list(answer["hits"][0])[:7] == ["rank", "item_id", "score", "uri", "caption", "width", "height"]
    assert answer["hits"][0]["stars"] == 1
    assert answer["ann"]["kind"] == "flat"


def test_a_metadata_column_cannot_hide_a_field_of_ours() -> None:
    hit = Hit(rank=1, item_id="a", score=0.5, metadata={"score": 9, "rank": 7, "stars": 3})
    assert hit.to_json()["score"] == 0.5
    assert hit.to_json()["metadata.score"] == 9
    assert hit.to_json()["stars"] == 3


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
