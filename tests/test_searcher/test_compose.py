"""Composed queries: what is wanted and unwanted as one vector, ranked exactly, on every surface alike."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from searcher import Query, Searcher, SearchError, SearchRequest
from searcher.compose import UNWANTED, composed_label
from searcher.errors import ParameterError
from searcher.query import MOST_PARTS, text_part
from searcher.request import parse_request
from twinlens.commands.search import search


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def stored(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float16).astype(np.float64)


def test_queries_are_added_weighted_and_taken_away() -> None:
    query = Query.text("a beach") + 0.5 * Query.item("a.jpg") - Query.text("people") * 2
    assert [(part.kind, part.content, part.weight) for part in query.parts] == [
        ("text", "a beach", 1.0),
        ("item", "a.jpg", 0.5),
        ("text", "people", -2.0),
    ]
    assert composed_label(query.parts) == "a beach + 0.5 x a.jpg - 2 x people"
    assert [part.weight for part in (-query).parts] == [-1.0, -0.5, 2.0]
    for wrong in (lambda: query + "people", lambda: query * "2", lambda: 3 - query):
        with pytest.raises(TypeError):
            wrong()


def test_texts_are_added_as_they_are(searcher: Searcher, corpus: Any) -> None:
    hits = searcher.search(Query.text("red") + 3 * Query.text("door"), k=30)
    one, two = stored(corpus.encoder.encode_texts(["red", "door"]))
    query = unit(corpus.encoder.encode_texts(["red"])[0] + 3 * corpus.encoder.encode_texts(["door"])[0])
    assert one @ two < 0.9
    expected = stored(corpus.images) @ query
    np.testing.assert_allclose(hits.scores, np.sort(expected)[::-1][:30], atol=3e-4)
    np.testing.assert_allclose(hits.scores, expected[hits.row_ids], atol=3e-4)


def test_modalities_and_what_is_unwanted_count_by_their_spread(searcher: Searcher, corpus: Any) -> None:
    """Written out: standard scores of a text and of an image, less half of those of another text."""
    query = Query.text("red") + Query.image(corpus.picture(5)) - Query.text("door")
    hits = searcher.search(query, k=320)
    images = stored(corpus.images)
    red, door = corpus.encoder.encode_texts(["red", "door"]).astype(np.float64)
    image = corpus.encoder.encode_images([corpus.picture(5)])[0].astype(np.float64)
    vector = sum(
        weight * part / (images @ part).std() for weight, part in ((0.5, red), (0.5, image), (-UNWANTED, door))
    )
    expected = images @ unit(vector)
    np.testing.assert_allclose(hits.scores, expected[hits.row_ids], atol=1e-3)
    assert (np.diff(hits.scores) <= 0).all()


def test_what_is_unwanted_goes_down(searcher: Searcher, corpus: Any) -> None:
    plain = searcher.text_to_image("red blue", 40)
    without = searcher.search(Query.text("red blue") - Query.text("blue"), k=40)
    blue = corpus.images @ corpus.encoder.encode_texts(["blue"])[0]
    assert blue[without.row_ids].mean() < blue[plain.row_ids].mean() - 0.05


def test_a_composed_query_is_ranked_exactly_and_says_so(wide: Searcher, wide_vectors: np.ndarray) -> None:
    one, two = wide_vectors[3].astype(np.float32), wide_vectors[900].astype(np.float32)
    assert not wide.text_to_image(one, 10).choice.exact
    hits = wide.search(Query.vector(one, "text") + Query.vector(two, "text"), k=10)
    assert hits.choice.exact
    assert hits.choice.reason == "no setting was measured for composed queries"
    expected = stored(wide_vectors) @ unit(unit(one) + unit(two))
    assert set(hits.row_ids.tolist()) == set(np.argsort(-expected)[:10].tolist())


def test_items_that_a_query_is_made_of_are_no_hits(searcher: Searcher) -> None:
    query = Query.item("img-3") + Query.item("img-8") - Query.item("img-20")
    hits = searcher.search(query, k=320)
    assert len(hits) == 317
    assert not {"img-3", "img-8", "img-20"} & set(hits.item_ids.tolist())
    pages = [searcher.search(query, k=100, offset=start) for start in (0, 100, 200, 300)]
    assert [item for page in pages for item in page.item_ids] == hits.item_ids.tolist()


def test_options_stand_beside_a_query(searcher: Searcher) -> None:
    query = Query.text("red") - Query.text("door")
    hits = searcher.search(query, k=5, into="texts", where="item_id > 'txt-1'", columns=[])
    assert (hits.collection, len(hits), hits[0].metadata) == ("texts", 5, {})
    assert searcher.search(SearchRequest(parts=query.parts, k=5)).to_json() == searcher.search(query, k=5).to_json()
    with pytest.raises(TypeError, match="no keyword 'wehre'; did you mean 'where'"):
        searcher.search(query, wehre="x")
    with pytest.raises(SearchError, match="the option 'where' belongs into the request"):
        searcher.search(SearchRequest(parts=query.parts), where="width > 1")


def test_one_part_alone_is_the_plain_search(searcher: Searcher) -> None:
    plain = searcher.text_to_image("a red door", 5)
    assert searcher.search(2 * Query.text("a red door"), k=5).to_json() == plain.to_json()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (lambda: -Query.text("red"), "'red' is unwanted and nothing is wanted; name what to look for too"),
        (lambda: -Query.text("red") - Query.text("blue"), "nothing is wanted"),
        (lambda: Query.text("red") - Query.text("b") * float("nan"), "weight=nan of 'b' must be a number up to 1000"),
        (lambda: Query.text("red") + 0 * Query.text("blue"), "weight=0.0 of 'blue' must be a number"),
        (lambda: Query.text("red") + 1e9 * Query.text("blue"), "weight=1000000000.0 of 'blue'"),
        (lambda: Query(tuple(text_part(f"red {n}") for n in range(50))), f"has 50 parts; give {MOST_PARTS} at most"),
        (lambda: Query.text("red") + Query.item("gone"), "there is no item 'gone'"),
        (lambda: Query.text(" ") + Query.text("red"), "the query text ' ' has 1 characters"),
    ],
)
def test_what_makes_no_query_is_refused(searcher: Searcher, query: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        searcher.search(query(), k=3)


def test_parts_that_cancel_are_refused(wide: Searcher) -> None:
    vector = np.ones(16, dtype=np.float32)
    with pytest.raises(SearchError, match="cancel one another"):
        wide.search(Query.vector(vector, "text") + Query.vector(-vector, "text"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"query": "red"}, "query='red' must be a list of 1 to 32 parts"),
        ({"query": []}, "must be a list of 1 to 32 parts"),
        ({"query": [{"text": "red"}] * 33}, "must be a list of 1 to 32 parts"),
        ({"query": ["red"]}, r"query\[0\]='red' must be an object with one of text, item, image, vector"),
        ({"query": [{"text": "red", "item": "a"}]}, r"query\[0\]=.*must be an object with one of"),
        ({"query": [{"text": "red", "wieght": 2}]}, r"query\[0\]=.*must be an object with one of"),
        ({"query": [{"text": "red"}, {"text": 5}]}, "a query is of type int"),
        ({"query": [{"text": "red"}, {"text": "blue", "weight": "2"}]}, "weight='2' of 'blue' must be a number"),
        ({"query": [{"text": "red"}, {"text": "blue", "weight": True}]}, "weight=True of 'blue'"),
        ({"query": [{"text": "red", "weight": -1}]}, "nothing is wanted"),
        ({"query": [{"vector": [1, "a"]}]}, "vector=.*must be a list of"),
        ({"query": [{"item": 5}]}, r"query\[0\].item=5 must be a text"),
        ({"query": [{"item": "a", "collection": "films"}]}, "a collection must be images or texts"),
        ({"query": [{"text": "red"}], "text": "blue"}, "query has parts of its own, and text was given beside it"),
        ({"query": [{"item": "a"}], "collection": "images"}, "put collection into it"),
        ({"text": "red", "item": "a"}, "or query with parts; text and item were given"),
    ],
)
def test_named_values_that_make_no_query_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        parse_request(value)


def test_named_values_make_the_same_query() -> None:
    request = parse_request(
        {"query": [{"text": "a beach"}, {"item": "a", "weight": 0.5}, {"text": "people", "weight": -1}], "k": "5"}
    )
    query = Query.text("a beach") + 0.5 * Query.item("a") - Query.text("people")
    assert [(one.kind, one.content, one.weight) for one in request.parts] == [
        (one.kind, one.content, one.weight) for one in query.parts
    ]
    assert request.k == 5


def test_the_command_puts_what_it_is_given_into_one_query(
    corpus: Any, encoder: Any, searcher: Searcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("encoders.load_encoder", lambda spec, device, precision: encoder)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(search, [str(corpus.index), *arguments, "--output", "json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    answer = run("red", "--minus", "door", "--like", "img-5", "--unlike", "img-9", "-k", "4")
    query = Query.text("red") + Query.item("img-5") - Query.text("door") - Query.item("img-9")
    assert answer == searcher.search(query, k=4).to_json()
    assert answer["query"] == "red + img-5 - door - img-9"
    assert run("--like", "img-5", "-k", "4")["query"] == "img-5"
    assert [one["query"] for one in run("--text", "red", "--text", "door")] == ["red", "door"]
    with pytest.raises(SearchError, match="'door' is unwanted and nothing is wanted"):
        run("--minus", "door")
    file = str(corpus.picture(1))
    weighted = "red --weight 2 --minus door --like img-5 --weight 0.5 --unlike img-9 --weight 0.25 --minus-image"
    answer = run(*weighted.split(), file, "--weight", "0.1", "-k", "4")
    query = 2 * Query.text("red") + 0.5 * Query.item("img-5") - Query.text("door")
    query = query - 0.1 * Query.image(file) - 0.25 * Query.item("img-9")
    assert answer == searcher.search(query, k=4).to_json()
    assert answer["query"] == "2 x red + 0.5 x img-5 - door - 0.1 x 0001.png - 0.25 x img-9"
    assert run("--text", "red", "--text", "door", "--weight", "0.5", "-k", "1")["query"] == "red + 0.5 x door"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--weight 2 --text red", "--weight 2 must follow what it weighs"),
        ("red --weight 2 --weight 3", "--weight 3 must follow what it weighs"),
        ("red --weight 2 --like img-5 --weight 1 --weight 3", "--weight 3 must follow"),
        ("red --weight 0", "--weight 0 must be above 0"),
        ("red --minus door --weight -1", "--weight -1 must be above 0"),
        ("red --weight nan", "--weight nan must be above 0"),
        ("red --weight inf", "--weight inf must be above 0"),
        ("red --weight much", "'much' is not a valid float"),
        ("--weight 2", "there is nothing to search with"),
    ],
)
def test_a_weight_that_weighs_nothing_is_typed_wrong(corpus: Any, arguments: str, said: str) -> None:
    done = CliRunner().invoke(search, [str(corpus.index), *arguments.split()])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("arguments", [["--weight", "1e9"], [f"--minus={one}" for one in range(50)]])
def test_too_much_of_anything_is_one_clear_line(corpus: Any, arguments: list[str]) -> None:
    done = CliRunner().invoke(search, [str(corpus.index), "red", *arguments])
    assert isinstance(done.exception, ParameterError)
    assert re.search("must be a number up to 1000|has 51 parts; give 32", str(done.exception))
