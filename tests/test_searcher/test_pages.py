"""Pages of a ranking fit together, and a floor leaves out what scores lower."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from searcher import Searcher, SearchError, SearchRequest
from searcher.pages import diverse_order
from searcher.query import item_part, vector_part
from twinlens.commands.search import search


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_in_turn_are_the_ranking_whole(searcher: Searcher, size: int) -> None:
    whole = searcher.text_to_image("a red door", 320)
    pages = [searcher.text_to_image("a red door", size, offset=start) for start in range(0, 320, size)][:50]
    ids = [item for page in pages for item in page.item_ids]
    assert ids == whole.item_ids.tolist()[: len(ids)]
    assert [hit.rank for page in pages for hit in page] == list(range(1, len(ids) + 1))
    assert [hit.score for page in pages for hit in page] == whole.scores.tolist()[: len(ids)]


def test_pages_after_the_first_fit_together_where_the_search_is_approximate(
    wide: Searcher, wide_vectors: np.ndarray
) -> None:
    queries = np.random.default_rng(5).standard_normal((40, wide_vectors.shape[1])).astype(np.float32)
    for query in queries:
        pages = [wide.text_to_image(query, 10, offset=start) for start in range(10, 100, 10)]
        assert not any(page.choice.exact for page in pages)
        rest = [item for page in pages for item in page.item_ids]
        assert rest == wide.text_to_image(query, 100).item_ids.tolist()[10:]


def test_a_page_beyond_the_end_is_empty_and_says_so(searcher: Searcher) -> None:
    hits = searcher.text_to_image("red", 10, offset=5000)
    assert (len(hits), hits.to_json()["hits"]) == (0, [])
    assert searcher.text_to_image("red", 10, offset=315).item_ids.shape == (5,)


def test_an_item_is_on_no_page_of_its_own(searcher: Searcher) -> None:
    part = item_part("img-3", "images")
    pages = [
        searcher.search(SearchRequest(parts=(part,), into="images", k=80, offset=start)) for start in (0, 80, 160, 240)
    ]
    ids = [item for page in pages for item in page.item_ids]
    assert len(ids) == len(set(ids)) == 319
    assert "img-3" not in ids


def test_a_floor_leaves_out_what_scores_lower(searcher: Searcher) -> None:
    whole = searcher.text_to_image("a red door", 320)
    floor = float(whole.scores[40])
    hits = searcher.text_to_image("a red door", 320, min_score=floor)
    assert hits.item_ids.tolist() == whole.item_ids[whole.scores >= floor].tolist()
    assert len(searcher.text_to_image("a red door", 10, min_score=floor)) == 10
    second = searcher.text_to_image("a red door", 30, offset=30, min_score=floor)
    assert second.item_ids.tolist() == hits.item_ids.tolist()[30:60]
    assert hits.to_json()["min_score"] == floor


def test_nothing_may_be_good_enough(searcher: Searcher) -> None:
    hits = searcher.text_to_image("a red door", 5, min_score=1)
    assert (len(hits), hits.to_json()["hits"]) == (0, [])
    assert "nothing scores 1 or more" in hits._repr_html_()


def test_arrays_have_pages_and_floors_too(searcher: Searcher, corpus: Any) -> None:
    vectors = corpus.texts[:3]
    ids, scores = searcher.search_vectors("images", vectors, 60)
    second, lower = searcher.search_vectors("images", vectors, 20, offset=20)
    assert second.tolist() == ids[:, 20:40].tolist()
    np.testing.assert_array_equal(lower, scores[:, 20:40])
    floor = float(scores[0, 9])
    kept, high = searcher.search_vectors("images", vectors, 60, min_score=floor)
    assert kept.shape == high.shape == (3, 60)
    assert [item for item in kept[0] if item is not None] == ids[0, scores[0] >= floor].tolist()
    assert np.isneginf(high[kept == None]).all()  # noqa: E711 - elementwise


def by_the_formula(scores: np.ndarray, vectors: np.ndarray, count: int, diversity: float) -> list[int]:
    """Maximal marginal relevance, written as its definition reads."""
    relevance = (scores - scores[-1]) / (scores[0] - scores[-1])
    alike = vectors @ vectors.T
    scaled = alike / (1 - alike[0].min())
    chosen = [0]
    while len(chosen) < count:
        rest = [one for one in range(len(scores)) if one not in chosen]
        value = {one: (1 - diversity) * relevance[one] - diversity * scaled[one, chosen].max() for one in rest}
        chosen.append(max(rest, key=lambda one: value[one]))
    return chosen


@pytest.mark.parametrize("diversity", [0.05, 0.3, 0.7, 1.0])
def test_diverse_hits_are_those_of_the_formula(diversity: float) -> None:
    rng = np.random.default_rng(11)
    vectors = rng.standard_normal((60, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.sort(rng.uniform(0.1, 0.4, 60).astype(np.float32))[::-1]
    order = diverse_order(scores, vectors, 20, diversity)
    assert order.tolist() == by_the_formula(scores, vectors, 20, diversity)


def test_copies_of_one_vector_come_last_of_the_diverse() -> None:
    vectors = np.eye(4, dtype=np.float16)[[0, 0, 0, 1, 2]]
    scores = np.array([0.9, 0.9, 0.9, 0.8, 0.7], dtype=np.float32)
    assert diverse_order(scores, vectors, 5, 0.6).tolist()[:3] == [0, 3, 4]
    alike = np.full(3, 0.5, dtype=np.float32)
    assert sorted(diverse_order(alike, np.eye(4, dtype=np.float16)[[1, 1, 1]], 3, 0.5).tolist()) == [0, 1, 2]
    assert diverse_order(alike[:1], vectors[:1], 10, 0.5).tolist() == [0]


def test_diverse_hits_are_less_alike_and_their_pages_fit_together(searcher: Searcher, corpus: Any) -> None:
    plain = searcher.text_to_image("a red door", 10)
    diverse = searcher.text_to_image("a red door", 10, diversity=0.5)

    def likeness(rows: np.ndarray) -> float:
        vectors = corpus.images[rows]
        return float((vectors @ vectors.T)[np.triu_indices(len(rows), 1)].mean())

    assert likeness(diverse.row_ids) < likeness(plain.row_ids)
    assert diverse[0] == plain[0]
    assert [hit.rank for hit in diverse] == list(range(1, 11))
    second = searcher.text_to_image("a red door", 5, offset=5, diversity=0.5)
    assert second.item_ids.tolist() == diverse.item_ids.tolist()[5:]
    assert searcher.text_to_image("a red door", 10, diversity=0).item_ids.tolist() == plain.item_ids.tolist()
    ids, scores = searcher.search_vectors("images", corpus.encoder.encode_texts(["a red door"]), 10, diversity=0.5)
    assert ids[0].tolist() == diverse.item_ids.tolist()
    np.testing.assert_allclose(scores[0], diverse.scores, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": -0.1}, "diversity=-0.1 must be from 0 to 1"),
        ({"diversity": 0.3, "k": 1001}, "diversity=0.3 is for 1,000 hits at most, and offset and k reach to 1,001"),
        ({"offset": -1}, "offset=-1 must be a whole number from 0 to 10,000"),
        ({"offset": 2.5}, "offset=2.5 must be a whole number"),
        ({"offset": True}, "offset=True must be"),
        ({"offset": 9_995}, "offset=9995 and k=10 reach beyond 10,000 hits; narrow the search by where"),
        ({"min_score": 1.5}, "min_score=1.5 must be from -1 to 1"),
        ({"min_score": float("nan")}, "min_score=nan must be from -1 to 1"),
        ({"min_score": "high"}, "min_score='high' must be from -1 to 1"),
    ],
)
def test_what_is_no_page_and_no_floor_is_refused(searcher: Searcher, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        searcher.text_to_image("red", **options)
    with pytest.raises(SearchError, match=message):
        SearchRequest(parts=(vector_part(np.ones(4), "text"),), **options)


def test_the_command_shows_pages_and_says_when_nothing_is_good_enough(
    corpus: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.load_encoder", lambda spec, device, precision: encoder)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(search, [str(corpus.index), "a red door", *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    first = json.loads(run("-k", "20", "--output", "json"))["hits"]
    second = json.loads(run("-k", "10", "--offset", "10", "--output", "json"))
    assert second["hits"] == first[10:]
    assert second["offset"] == 10
    assert "nothing scores 0.99 or more" in run("--min-score", "0.99")
    assert json.loads(run("--min-score", "0.99", "--output", "json"))["hits"] == []
    assert "there are no hits after the first 400 or fewer" in run("--offset", "400")
