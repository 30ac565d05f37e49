"""Words beside vectors: names and numbers are found, words are never syntax, and every option goes with them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from damage import flip

from searcher import Query, Searcher, SearchError, SearchRequest
from searcher.request import parse_request
from storage import IndexStore
from storage.errors import CorruptIndexError
from twinlens.commands.search import search


@pytest.mark.parametrize(
    ("words", "best"),
    [("img-77", "img-77"), ("IMG 77", "img-77"), ("number 201", "img-201"), ('201" OR NEAR(* -img: \0', "img-201")],
)
def test_words_alone_find_ids_and_numbers_and_have_no_cosine(searcher: Searcher, words: str, best: str) -> None:
    hits = searcher.search(SearchRequest(words=words, into="images", k=3))
    assert hits.item_ids[0] == best
    assert [hit.words_score for hit in hits] == sorted((hit.words_score for hit in hits), reverse=True)
    assert all(math.isnan(hit.score) for hit in hits)
    plain = hits.to_json()
    assert (plain["words"], plain["hits"][0]["score"], plain["ann"]["kind"]) == (words, None, "words")
    assert searcher.search(SearchRequest(words=words, into="texts", k=1))[0].item_id == best.replace("img", "txt")


def test_words_that_nothing_has_find_nothing_alone_and_change_nothing_beside(searcher: Searcher) -> None:
    assert len(searcher.search(SearchRequest(words="zebra"))) == 0
    plain = searcher.text_to_image("a red door", 20)
    both = searcher.text_to_image("a red door", 20, words="zebra")
    assert both.item_ids.tolist() == plain.item_ids.tolist()
    assert {hit.words_score for hit in both} == {0.0}


def test_beside_a_text_a_number_comes_to_the_front_and_scores_stay_cosines(searcher: Searcher, corpus: Any) -> None:
    hits = searcher.text_to_image("a red door", 10, words="number 201")
    assert hits.item_ids[0] == "img-201"
    query = corpus.encoder.encode_texts(["a red door"])[0]
    vectors = corpus.images.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(hits.scores, vectors[hits.row_ids] @ query, atol=2e-6)
    assert hits.scores[0] < hits.scores[1]
    hybrid = searcher.text_to_image(["a red door number 201", "a blue sky"], 10, hybrid=True)
    assert hybrid[0].item_ids[0] == "img-201"
    assert [one.words for one in hybrid] == ["a red door number 201", "a blue sky"]
    composed = searcher.search(Query.text("a red door 201") - Query.text("blue 44"), k=10, into="images", hybrid=True)
    assert (composed.words, composed.item_ids[0]) == ("a red door 201", "img-201")


def test_words_go_with_filters_pages_floors_and_diversity(searcher: Searcher) -> None:
    asked = {"words": "owner O'Neil green", "where": "stars >= 3"}
    whole = searcher.text_to_image("a red door", 60, **asked)
    assert all(hit.metadata["stars"] >= 3 for hit in whole)
    pages = [searcher.text_to_image("a red door", 20, offset=start, **asked) for start in (0, 20, 40)]
    assert [item for page in pages for item in page.item_ids] == whole.item_ids.tolist()
    floor = float(np.median(whole.scores))
    assert searcher.text_to_image("a red door", 20, min_score=floor, **asked).scores.min() >= floor
    diverse = searcher.text_to_image("a red door", 20, diversity=0.5, **asked)
    assert diverse.item_ids[0] == whole.item_ids[0]
    assert set(diverse.item_ids) != set(whole.item_ids[:20])
    alone = SearchRequest(words="green", into="images", k=5, offset=5, where="stars = 1", diversity=0.2)
    assert [hit.rank for hit in searcher.search(alone)] == [6, 7, 8, 9, 10]
    ids, scores = searcher.search_vectors("images", np.eye(64)[:2], 5, words="number 201")
    assert (ids[:, 0].tolist(), scores.shape) == (["img-201"] * 2, (2, 5))


def test_several_requests_with_words_and_without_are_answered_in_order(searcher: Searcher) -> None:
    requests = [parse_request(one) for one in ({"words": "img-3"}, {"text": "red"}, {"words": "img-4", "text": "red"})]
    hits = searcher.search([*requests, SearchRequest(words="img-5")])
    assert [one.item_ids[0] for one in (hits[0], hits[2], hits[3])] == ["img-3", "img-4", "img-5"]
    assert hits[1].words is None
    assert hits[1][0].words_score is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"words": ""}, "words='' has no letter and no digit; give words to look up"),
        ({"words": "?!\0--"}, "has no letter and no digit"),
        ({"words": "x " * 50_000}, "has 100,000 characters; give 10,000 at most"),
        ({"words": 7}, "words=7 must be a text"),
        ({"words": "\ud800a"}, "is not Unicode text"),
        ({"text": "a", "hybrid": "maybe"}, "hybrid='maybe' must be true or false"),
        ({"hybrid": True}, "there is nothing to search with"),
    ],
)
def test_what_are_no_words_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        parse_request(values)


def test_what_words_cannot_do_is_refused(searcher: Searcher, wide: Searcher) -> None:
    with pytest.raises(SearchError, match="min_score is of a cosine, and words alone have none"):
        searcher.search(SearchRequest(words="red", min_score=0.1))
    with pytest.raises(SearchError, match="hybrid looks up the words of a text query, and 'img-3' is none"):
        searcher.search(Query.item("img-3"), hybrid=True)
    for request in (SearchRequest(words="v7"), SearchRequest(parts=Query.item("v7").parts, words="v7")):
        with pytest.raises(SearchError, match=r"has no lexical index.*run build-index with --update on its corpus"):
            wide.search(request)


def test_a_damaged_lexical_index_is_refused_by_name(corpus: Any, tmp_path: Path) -> None:
    index = Path(shutil.copytree(corpus.index, tmp_path / "x.index"))
    path = index / "versions" / "00000001" / "images" / "words.safetensors"
    flip(path)
    with pytest.raises(CorruptIndexError, match=r"images/words.safetensors has SHA-256"):
        Searcher.open(index)
    names = [rule.name for rule in IndexStore.open(index).verify().structure if rule.outcome == "not checked"]
    assert names == ["images: terms and rows of the lexical index"]
    path.unlink()
    with pytest.raises(CorruptIndexError, match=r"images/words.safetensors is missing"):
        Searcher.open(index, verify="size")


def test_the_command_looks_words_up(corpus: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(search, [str(corpus.index), *arguments])

    assert "by words alone" in run("--words", "img-9").stdout
    assert encoder.encoded == 0
    monkeypatch.setattr("encoders.load_encoder", lambda spec, device, precision: encoder)
    found = json.loads(run("a red door number 9", "--hybrid", "-k", "3", "--output", "json").stdout)
    assert (found["words"], found["hits"][0]["item_id"]) == ("a red door number 9", "img-9")
    assert found["hits"][0]["words_score"] > found["hits"][1]["words_score"]
    refused = run("--words", "!!")
    assert (refused.exit_code, "no letter" in str(refused.exception or refused.output)) == (1, True)
