"""The API answers what the same searches give in the process, and tells nothing of this machine."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served_index import Served

from searcher import Hits, Query, Searcher
from searcher.request import OPTIONS


def same(answer: dict[str, Any], hits: Hits) -> None:
    assert [hit["item_id"] for hit in answer["hits"]] == hits.item_ids.tolist()
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], hits.scores, atol=1e-6)
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(hits) + 1))
    assert answer["ann"] == hits.ann


def test_a_text_finds_what_it_finds_in_the_process(server: Served, direct: Searcher) -> None:
    answer = server.ask(text="a red square", k=7)
    same(answer, direct.text_to_image("a red square", k=7))
    assert answer["query"] == {"kind": "text", "text": "a red square"}
    assert (answer["direction"], answer["version"], answer["k"]) == ("text_to_image", 1, 7)
    assert answer["hits"][0]["caption"].startswith("a red square")


def test_a_direction_looks_among_the_texts(server: Served, direct: Searcher) -> None:
    same(server.ask(text="green", direction="text_to_text", k=4), direct.text_to_text("green", k=4))


def test_a_composed_query_finds_what_it_finds_in_the_process(server: Served, direct: Searcher) -> None:
    parts = [{"text": "a red square"}, {"item": "blue/0002.png", "weight": 0.5}, {"text": "blue", "weight": -1}]
    answer = server.post("/search", json={"query": parts, "k": 6}).json()
    query = Query.text("a red square") + 0.5 * Query.item("blue/0002.png") - Query.text("blue")
    same(answer, direct.search(query, k=6))
    assert answer["query"]["kind"] == "composed"
    assert [one["weight"] for one in answer["query"]["parts"]] == [1.0, 0.5, -1]
    assert "blue/0002.png" not in [hit["item_id"] for hit in answer["hits"]]
    refused = server.post("/search", json={"query": [{"text": "red", "weight": -1}]})
    assert refused.status_code == 400
    assert "nothing is wanted" in refused.json()["error"]


def test_pages_and_a_floor_reach_the_search(server: Served, direct: Searcher) -> None:
    answer = server.ask(text="a red square", k=5, offset=5)
    whole = direct.text_to_image("a red square", k=10)
    assert [hit["item_id"] for hit in answer["hits"]] == whole.item_ids.tolist()[5:]
    assert [hit["rank"] for hit in answer["hits"]] == [6, 7, 8, 9, 10]
    assert answer["offset"] == 5
    floor = float(whole.scores[3])
    answer = server.ask(text="a red square", k=40, min_score=floor)
    assert answer["hits"]
    assert all(hit["score"] >= floor for hit in answer["hits"])
    assert answer["min_score"] == floor
    assert server.ask(text="a red square", min_score=1)["hits"] == []


def test_a_page_beyond_the_limit_of_the_server_is_refused(server: Served) -> None:
    answer = server.get("/search", params={"text": "red", "offset": 995, "k": 10})
    assert answer.status_code == 400
    assert "offset=995 and k=10 reach beyond this server's limit of 1000 hits" in answer.json()["error"]


def test_a_filter_and_a_recall_reach_the_search(server: Served, direct: Searcher) -> None:
    where = "caption ILIKE '%blue%' AND width >= 40"
    answer = server.ask(text="a red square", k=20, where=where, ann_recall=0.99)
    same(answer, direct.text_to_image("a red square", k=20, where=where, ann_recall=0.99))
    assert answer["where"] == where
    assert len(answer["hits"]) == 5


def test_every_option_reaches_the_search_by_get_and_by_post(server: Served, direct: Searcher) -> None:
    asked = {"into": "texts", "k": 3, "nprobe": 2, "oversample": 4, "exact": True, "columns": ["caption"]}
    expected = direct.text_to_text("green", k=3, nprobe=2, oversample=4, exact=True)
    for answer in (
        server.ask(text="green", **{**asked, "columns": "caption"}),
        server.post("/search", json={"text": "green", **asked}).json(),
    ):
        same(answer, expected)
        assert answer["ann"]["reason"] == "asked for"
        assert set(answer["hits"][0]) == {"rank", "item_id", "score", "caption"}


@pytest.mark.parametrize("way", ["form", "raw"])
@pytest.mark.parametrize("direction", ["image_to_image", "image_to_text"])
def test_a_picture_finds_what_it_finds_in_the_process(
    server: Served, direct: Searcher, folder: Path, way: str, direction: str
) -> None:
    data = (folder / "photos/blue/0002.png").read_bytes()
    asked: dict[str, Any] = {"k": "5", "direction": direction}
    if way == "form":
        answer = server.post("/search", files={"image": ("any.name", data)}, data=asked)
    else:
        answer = server.post("/search", params=asked, content=data, headers={"Content-Type": "image/png"})
    same(answer.json(), getattr(direct, direction)(data, k=5))
    assert answer.json()["query"] == {"kind": "image"}


def test_json_by_post_searches_with_words_and_with_vectors(server: Served, direct: Searcher) -> None:
    same(server.post("/search", json={"text": "purple", "k": 3}).json(), direct.text_to_image("purple", k=3))
    vector = np.arange(direct.manifest.encoder.dim, dtype=float) - 20
    asked = {"vector": vector.tolist(), "direction": "image_to_text", "k": 6}
    same(server.post("/search", json=asked).json(), direct.image_to_text(vector, k=6))


def test_an_item_finds_others_like_it_and_never_itself(server: Served) -> None:
    answer = server.ask(item="blue/0002.png", k=4)
    blue = {f"blue/{number:04}.png" for number in (10, 18, 26, 34)}
    assert {hit["item_id"] for hit in answer["hits"]} == blue
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    texts = server.ask(item="blue/0002.png", direction="image_to_text", k=1)
    assert "blue" in texts["hits"][0]["caption"]


def test_an_item_of_the_texts_is_searched_with_as_a_text(server: Served) -> None:
    text = server.ask(text="yellow", direction="text_to_text", k=1)["hits"][0]
    answer = server.ask(item=text["item_id"], collection="texts")
    assert answer["direction"] == "text_to_image"
    assert "yellow" in answer["hits"][0]["caption"]


def test_an_item_is_shown_with_what_the_corpus_pairs_it_with(server: Served) -> None:
    for answer in (server.get("/items/blue/0002.png"), server.get("/items", params={"id": "blue/0002.png"})):
        item = answer.json()
        assert (item["collection"], item["item_id"], item["width"], item["height"]) == (
            "images",
            "blue/0002.png",
            40,
            30,
        )
        assert [pair["caption"] for pair in item["pairs"]] == ["a blue square, number 2", "something blue"]
    text = server.get("/items", params={"id": item["pairs"][0]["item_id"], "collection": "texts"}).json()
    assert [pair["item_id"] for pair in text["pairs"]] == ["blue/0002.png"]


def test_a_thumbnail_is_a_small_jpeg_in_the_shape_of_the_picture(server: Served) -> None:
    answer = server.get("/thumbnails/blue/0002.png")
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.width / picture.height == pytest.approx(40 / 30, abs=0.02)
        assert max(picture.size) <= 480
        assert picture.getpixel((20, 20))[2] > 150  # blue
    again = server.get("/thumbnails/blue/0002.png", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    large = server.get("/thumbnails", params={"id": "blue/0002.png", "size": "large", "v": 1})
    assert "immutable" in large.headers["cache-control"]


def test_no_answer_names_a_place_on_this_machine(server: Served, folder: Path) -> None:
    answers = [
        server.get("/search", params={"text": "red", "k": 40}),
        server.get("/search", params={"text": "red", "where": "nonsense ="}),
        server.get("/search", params={"text": "red", "where": "uri LIKE '/%'"}),
        server.get("/search", params={"item": "blue/0002.png"}),
        server.get("/items/blue/0002.png"),
        server.get("/items/nothing"),
        server.get("/thumbnails/nothing"),
        server.get("/thumbnails", params={"id": "../../etc/passwd"}),
        server.get("/"),
        server.get("/", params={"q": "red"}),
        server.get("/", params={"q": "red", "where": "("}),
        server.get("/", params={"item": "blue/0002.png"}),
        server.get("/metrics"),
        server.get("/healthz"),
        server.get("/openapi.json"),
    ]
    for answer in answers:
        assert str(folder) not in answer.text + str(answer.headers), answer.url
        assert '"uri"' not in answer.text or answer.status_code == 400, answer.url


def test_where_a_file_lies_cannot_be_found_out_by_a_filter(server: Served) -> None:
    for where in ("uri LIKE 'b%'", 'length("URI") > 3', "images.uri = 'x'"):
        answer = server.get("/search", params={"text": "red", "where": where})
        assert answer.status_code == 400
        assert "names no column" in answer.json()["error"]
        assert "uri" not in answer.json()["error"].partition("there are:")[2]


def test_health_and_metrics_tell_how_it_goes(server: Served) -> None:
    assert server.get("/healthz").json() == {"status": "ok", "version": 1, "encoder": "ready"}
    server.ask(text="a text that was never asked before")
    server.ask(text="a text that was never asked before")
    text = server.get("/metrics").text
    for line in (
        'twinlens_requests_total{method="GET",route="/search",status="200"}',
        "twinlens_index_version 1.0",
        'twinlens_index_items{collection="texts"} 80.0',
        'twinlens_batch_queries_count{stage="text"}',
        "process_resident_memory_bytes",
    ):
        assert line in text
    known = next(line for line in text.splitlines() if line.startswith("twinlens_known_texts_total"))
    assert float(known.split()[1]) >= 1


def test_head_is_get_without_the_body(server: Served) -> None:
    for path in ("/healthz", "/", "/search?text=red", "/thumbnails/blue/0002.png"):
        head = server.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 10


def test_openapi_describes_every_route_and_parameter(server: Served) -> None:
    described = json.loads(server.get("/openapi.json").text)
    assert {"/search", "/items", "/thumbnails", "/healthz", "/metrics"} <= set(described["paths"])
    names = {one["name"] for one in described["paths"]["/search"]["get"]["parameters"]}
    assert names == {"text", "item", "collection", "direction", "cursor", *OPTIONS}
    body = described["paths"]["/search"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data", "image/*"}
    assert set(body["application/json"]["schema"]["properties"]) == {*names, "vector", "query", "queries"}
    assert set(body["multipart/form-data"]["schema"]["properties"]) == {*names, "image"}


def test_every_answer_carries_the_headers_that_keep_it_safe(server: Served) -> None:
    for path in ("/", "/search?text=red", "/nothing", "/static/page.css", "/healthz"):
        headers = server.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
