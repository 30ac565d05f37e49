"""A line for each request: what it was, how it went, and nothing of what was searched for unless that is wanted."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from colour import ColourEncoder
from served_index import Served, serving
from served_process import running

from searcher.server import ServerSettings
from searcher.server.errors import ServerError

FIELDS = ["time", "method", "path", "status", "ms", "searches", "k", "direction", "version", "client", "request_id"]


@pytest.fixture
def logged(index: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Served]:
    caplog.set_level(logging.INFO, logger="searcher.server.access")
    with serving(index, ServerSettings(access_log="json"), ColourEncoder()) as server:
        yield server


def lines(caplog: pytest.LogCaptureFixture, count: int) -> list[str]:
    """The lines so far, once there are so many: the last one is written when its answer has been sent."""
    until = time.monotonic() + 10
    while True:
        found = [record.getMessage() for record in caplog.records if record.name == "searcher.server.access"]
        if len(found) >= count or time.monotonic() > until:
            return found
        time.sleep(0.01)


def objects(caplog: pytest.LogCaptureFixture, count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(caplog, count)]


def test_a_search_is_one_object_without_its_text(logged: Served, caplog: pytest.LogCaptureFixture) -> None:
    answer = logged.get("/search", params={"text": "a secret red wish", "k": 7})
    (line,) = objects(caplog, 1)
    assert list(line) == FIELDS
    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert (line["method"], line["path"], line["status"], line["searches"]) == ("GET", "/search", 200, 1)
    assert (line["k"], line["direction"], line["version"]) == (7, "text_to_image", 1)
    assert line["client"] == "127.0.0.1"
    assert 0 < line["ms"] < 10_000
    assert answer.headers["x-request-id"] == line["request_id"]
    assert "secret" not in lines(caplog, 1)[0]


def test_the_line_that_the_docs_show_has_the_fields_of_one(home: Path) -> None:
    text = (home / "docs" / "watching.md").read_text("utf-8")
    assert list(json.loads(text.partition("```json\n")[2].partition("```")[0])) == FIELDS


def test_whatever_is_answered_is_logged(logged: Served, caplog: pytest.LogCaptureFixture) -> None:
    logged.post("/search", json={"queries": ["red", {"item": "blue/0002.png", "k": 3}], "into": "texts"})
    logged.get("/", params={"q": "green"}, headers={"Accept": "text/html"})
    logged.get("/items/blue/00%0a02.png")
    logged.get("/search", params={"k": "no"})
    logged.get("/healthz")
    logged.get("/search?text=red", headers={"Host": "evil.example"})
    keys = ("path", "status", "searches", "k", "direction")
    found = [tuple(line[key] for key in keys) for line in objects(caplog, 6)]
    assert found[0][:4] == ("/search", 200, 2, 10)
    assert found[0][4] in ("text_to_text", "image_to_text")
    assert (found[1][:2], found[1][2] >= 1) == (("/", 200), True)
    assert found[2:] == [
        ("/items/blue/00%0a02.png", 404, 0, None, None),
        ("/search", 422, 0, None, None),
        ("/healthz", 200, 0, None, None),
        ("/search", 421, 0, None, None),
    ]


def test_an_id_of_a_proxy_is_kept_and_one_that_could_forge_a_line_is_not(
    logged: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for given in ("req-1.A_z", "a b", '"},{"', "x" * 65, ""):
        logged.get("/healthz", headers={"X-Request-ID": given})
    ids = [line["request_id"] for line in objects(caplog, 5)]
    assert ids[0] == "req-1.A_z"
    assert all(re.fullmatch(r"[0-9a-f]{16}", one) for one in ids[1:])
    assert len(set(ids)) == 5


def test_texts_are_logged_where_that_is_wanted(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="searcher.server.access")
    settings = ServerSettings(access_log="text", log_queries=True)
    with serving(index, settings, ColourEncoder()) as server:
        server.post("/search", json={"query": [{"text": "red"}, {"text": "a\nb", "weight": -0.5}], "k": 3})
        server.get("/thumbnails/blue/0002.png", headers={"X-Request-ID": "7"})
    search, thumbnail = lines(caplog, 2)
    shape = r'\S+Z 127\.0\.0\.1 POST /search 200 [\d.]+ ms k=3 text_to_image version=1 texts=\["red", "a\\nb"\] id=\w+'
    assert re.fullmatch(shape, search)
    assert re.fullmatch(r"\S+Z 127\.0\.0\.1 GET /thumbnails/blue/0002\.png 200 [\d.]+ ms id=7", thumbnail)


def test_nothing_is_logged_unless_asked_for(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="searcher.server.access")
    with serving(index, encoder=ColourEncoder()) as server:
        assert server.ask(text="red")["hits"]
    assert lines(caplog, 0) == []
    with pytest.raises(ServerError, match="access_log='xml' is no style of a log; give one of off, text, json"):
        ServerSettings(access_log="xml")  # type: ignore[arg-type]


def test_the_command_writes_json_lines_alone(home: Path, ready_made: Path) -> None:
    with running(home, ready_made, "--access-log", "json") as (process, said):
        httpx.get(said["url"] + "healthz")
        httpx.get(said["url"] + "search", params={"item": "images-3", "k": 2})
        process.terminate()
        _, error = process.communicate(timeout=20)
        found = [json.loads(line) for line in error.splitlines()]
    paths = [(line["path"], line["k"]) for line in found if "path" in line]
    assert paths == [("/healthz", None), ("/search", 2)]
    assert all({"time", "level", "message"} == set(line) for line in found if "path" not in line)


def test_seconds_are_counted_by_class_of_status(logged: Served) -> None:
    logged.ask(text="red")
    logged.get("/search", params={"k": "no"})
    text = logged.get("/metrics").text
    for status in ("2xx", "4xx"):
        assert f'twinlens_request_seconds_count{{route="/search",status="{status}"}} 1.0' in text
        assert f'twinlens_request_seconds_bucket{{le="10.0",route="/search",status="{status}"}} 1.0' in text
