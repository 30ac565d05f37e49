"""Several searches in one request, pages by cursor, and answers that are what /openapi.json says of them."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_index import Served

from searcher import Query, Searcher

jsonschema = pytest.importorskip("jsonschema", reason="answers are held against their schemas by jsonschema")


@pytest.fixture(scope="module")
def described(server: Served) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/openapi.json").json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["item_id"] for hit in answer["hits"]]


def refused(server: Served, body: Any, status: int = 400) -> str:
    answer = server.post("/search", json=body)
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]
    assert "\n" not in message
    return message


def test_several_queries_are_answered_in_their_order_as_each_alone(server: Served, direct: Searcher) -> None:
    composed = [{"text": "a red square"}, {"item": "blue/0002.png", "weight": 0.5}]
    queries = ["green", {"text": "a red square", "k": 3, "into": "texts"}, {"item": "blue/0002.png"}]
    body = {"queries": [*queries, {"query": composed}], "k": 5}
    found = server.post("/search", json=body).json()
    texts = direct.text_to_text("a red square", k=3)
    item = direct.search(Query.item("blue/0002.png"), k=5)
    both = direct.search(Query.text("a red square") + 0.5 * Query.item("blue/0002.png"), k=5)
    expected = [direct.text_to_image("green", k=5), texts, item, both]
    assert [ids(one) for one in found["answers"]] == [hits.item_ids.tolist() for hits in expected]
    assert [one["k"] for one in found["answers"]] == [5, 3, 5, 5]
    for answer, hits in zip(found["answers"], expected, strict=True):
        np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], hits.scores, atol=1e-6)


def test_as_many_queries_as_the_server_encodes_together_are_answered(server: Served) -> None:
    parts = [{"item": f"blue/{number:04}.png"} for number in (2, 10, 18)]
    body = {"queries": [{"query": [{"text": f"number {one}"}, *parts]} for one in range(64)], "k": 2}
    assert len(server.post("/search", json=body).json()["answers"]) == 64


@pytest.mark.parametrize(
    ("queries", "status", "said"),
    [
        ([], 422, "queries=[] must be a list of 1 to 64"),
        (["a"] * 65, 422, "must be a list of 1 to 64"),
        ("a dog", 422, "queries='a dog' must be a list"),
        ([["a"]], 422, "queries[0]=['a'] must be a text or an object"),
        (["a", None], 422, "queries[1]=None must be"),
        (["a", {}], 400, "queries[1]: there is nothing to search with"),
        (["a", {"text": ""}], 400, "queries[1]: the query text '' has 0 characters"),
        (["a", {"item": "nothing"}], 404, "queries[1]: there is no item 'nothing'"),
        (["a", {"text": "b", "where": "widht > 1"}], 400, "queries[1]: where names no column 'widht'"),
        (["a", {"text": "b", "k": 999}], 400, "the queries ask for 1009 hits"),
        (["a", {"text": "b", "k": 0}], 422, "queries[1]: k=0"),
        (["a", {"text": "b", "cursor": "x"}], 422, "a cursor is of one search"),
        (["a", {"queries": ["b"]}], 422, "queries[1]: there is no parameter 'queries'"),
        (["a", {"query": [{"text": "b", "weight": -1}]}], 400, "queries[1]: 'b' is unwanted"),
        ([{"query": [{"text": "b"}, {"text": "b", "weight": -2}]}], 400, "queries[0]: the parts of the query cancel"),
        ([{"text": "a", "where": f"width > {one}"} for one in range(9)], 400, "have 9 different filters"),
    ],
)
def test_one_that_is_wrong_is_named_and_none_is_answered(server: Served, queries: Any, status: int, said: str) -> None:
    assert said in refused(server, {"queries": queries}, status)


PARTS: dict[str, Any] = {
    "0": {"text": "red", "weight": 0},
    "a text": {"text": "red", "weight": "much"},
    "true": {"text": "red", "weight": True},
    "a list": {"text": "red", "weight": [1]},
    "too much": {"text": "red", "weight": 1e9},
    "unwanted alone": {"text": "red", "weight": -1},
}


@pytest.mark.parametrize("wrong", PARTS)
def test_weights_that_are_none_are_refused(server: Served, wrong: str) -> None:
    answer = server.post("/search", json={"query": [PARTS[wrong]]})
    assert answer.status_code in (400, 422)
    assert "weight" in answer.json()["error"] or "unwanted" in answer.json()["error"]


@pytest.mark.parametrize("weight", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_weights_that_are_no_numbers_are_refused(server: Served, weight: str) -> None:
    body = f'{{"query": [{{"text": "red", "weight": {weight}}}]}}'
    answer = server.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert weight.strip("-") in answer.json()["error"] or "weight=inf" in answer.json()["error"]


@pytest.mark.parametrize(
    ("image", "status", "said"),
    [
        ("", 422, "query[0].image='' must be the bytes of an image file in base64"),
        ("not base64", 422, "must be the bytes of an image file in base64"),
        ("é", 422, "in base64"),
        (5, 422, "in base64"),
        ("bm8gaW1hZ2U=", 415, "not_an_image"),
    ],
)
def test_a_part_that_is_no_image_is_refused(server: Served, image: Any, status: int, said: str) -> None:
    assert said in refused(server, {"query": [{"image": image}, {"text": "red"}]}, status)


def test_many_queries_of_images_are_answered(server: Served, folder: Path) -> None:
    files = sorted((folder / "photos").rglob("*.png"))
    parts = [{"image": b64encode(file.read_bytes()).decode()} for file in files]
    body = {"queries": [{"query": [one, other]} for one, other in zip(parts, reversed(parts), strict=True)], "k": 1}
    assert len(server.post("/search", json=body).json()["answers"]) == 40


def test_fifty_parts_and_deep_parts_are_refused(server: Served) -> None:
    assert "must be a list of 1 to 32 parts" in refused(server, {"query": [{"text": "red"}] * 50}, 422)
    assert "query[0]" in refused(server, {"query": [[{"text": "red"}]]}, 422)
    assert "query[0]" in refused(server, {"query": [{"query": [{"text": "red"}]}]}, 422)


def pages(server: Served, asked: dict[str, Any]) -> list[dict[str, Any]]:
    found = [server.post("/search", json=asked).json()]
    while found[-1]["cursor"] is not None:
        found.append(server.post("/search", json={**asked, "cursor": found[-1]["cursor"]}).json())
    return found


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "a red square", "k": 15},
        {"query": [{"text": "red"}, {"item": "blue/0002.png", "weight": -0.5}], "k": 15},
        {"text": "a red square", "k": 15, "diversity": 0.4},
    ],
)
def test_cursors_lead_through_everything_once(server: Served, asked: dict[str, Any]) -> None:
    found = pages(server, asked)
    shown = [item for page in found for item in ids(page)]
    left_out = {"blue/0002.png"} if "query" in asked else set()
    assert len(shown) == len(set(shown)) == 40 - len(left_out)
    assert [hit["rank"] for page in found for hit in page["hits"]] == list(range(1, len(shown) + 1))
    assert [page["offset"] for page in found] == [0, 15, 30]
    whole = server.post("/search", json={**asked, "k": 40}).json()
    assert "diversity" in asked or shown == ids(whole)


def test_a_cursor_works_by_get_and_with_an_image(server: Served, folder: Path) -> None:
    first = server.ask(text="red", k=5)
    second = server.ask(text="red", k=5, cursor=first["cursor"])
    assert ids(second) == ids(server.ask(text="red", k=5, offset=5))
    data = (folder / "photos/blue/0002.png").read_bytes()
    image = {"files": {"image": ("any.name", data)}}
    first = server.post("/search", **image, data={"k": "5"}).json()
    second = server.post("/search", **image, data={"k": "5", "cursor": first["cursor"]}).json()
    assert [hit["rank"] for hit in second["hits"]] == [6, 7, 8, 9, 10]


def test_there_is_no_cursor_where_nothing_follows(server: Served) -> None:
    assert server.ask(text="red", k=41)["cursor"] is None
    assert server.ask(text="red", k=10, offset=500)["hits"] == []
    assert server.ask(text="red", k=10, offset=500)["cursor"] is None


def changed(cursor: str, position: int) -> str:
    data = bytearray(urlsafe_b64decode(cursor + "=="))
    data[position] ^= 1
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_cursor_of_another_index_search_or_of_nothing_is_refused(server: Served) -> None:
    cursor = server.ask(text="red", k=5)["cursor"]
    asked = {"text": "red", "k": 5}
    assert "of another index or version" in refused(server, {**asked, "cursor": changed(cursor, 0)}, 410)
    for other in ({"text": "blue"}, {"k": 6}, {"into": "texts"}, {"where": "width > 1"}):
        assert "of another search" in refused(server, {**asked, **other, "cursor": cursor})
    for garbage in ("", "x", "é", "a" * 27 + "b", "a" * 100_000, "*" * 27):
        assert "is no cursor" in refused(server, {**asked, "cursor": garbage})
    assert "cursor=[1] must be a text" in refused(server, {**asked, "cursor": [1]}, 422)
    assert "leave one of them out" in refused(server, {**asked, "cursor": cursor, "offset": 5})
    assert "reach beyond" in refused(
        server,
        {**asked, "cursor": urlsafe_b64encode(urlsafe_b64decode(cursor + "==")[:16] + (5_000).to_bytes(4)).decode()},
    )


ANSWERS = [
    ("post", {"text": "red", "k": 3}),
    ("post", {"query": [{"text": "red"}, {"item": "blue/0002.png", "weight": -0.5}], "where": "width > 1"}),
    ("post", {"queries": ["red", {"item": "blue/0002.png"}], "min_score": 0.1, "exact": True}),
    ("post", {"vector": [1.0] * 48, "min_score": 1}),
    ("post", {"text": "red", "explain": True, "collapse": True, "words": "square"}),
    ("post", {"text": ""}),
    ("post", {"nothing": 1}),
    ("get", "/search?item=blue/0002.png&into=texts&nprobe=2&oversample=4"),
    ("get", "/search?item=nothing"),
    ("get", "/items?id=blue/0002.png"),
    ("get", "/healthz"),
    ("get", "/readyz"),
]


@pytest.mark.parametrize(("method", "asked"), ANSWERS)
def test_an_answer_is_what_the_schema_says(server: Served, described: dict[str, Any], method: str, asked: Any) -> None:
    answer = server.get(asked) if method == "get" else server.post("/search", json=asked)
    path = asked.partition("?")[0] if method == "get" else "/search"
    responses = described["paths"][path][method]["responses"]
    status = str(answer.status_code)
    schema = responses[status if status in responses else f"{status[0]}XX"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": described["components"]}
    jsonschema.Draft202012Validator(whole).validate(answer.json())
    assert "$ref" in json.dumps(schema)  # it is a model of ours and not just anything


def test_what_the_schema_does_not_say_is_told(server: Served, described: dict[str, Any]) -> None:
    answer = {**server.ask(text="red", k=1), "more": 1}
    schema = {"$ref": "#/components/schemas/SearchAnswer", "components": described["components"]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(answer)
