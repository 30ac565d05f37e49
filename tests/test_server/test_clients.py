"""Client and AsyncClient give what the same searches give in the process, and say in one line what went wrong."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served_index import Served

import twinlens
from searcher import Hits, Query, Searcher, SearchRequest
from searcher.errors import ClientError, ParameterError, QueryError, SearchError
from searcher.query import text_part


@pytest.fixture(scope="module")
def client(server: Served) -> twinlens.Client:
    return twinlens.Client(server.url)


def same(found: Hits, expected: Hits) -> None:
    assert found.item_ids.tolist() == expected.item_ids.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    assert (found.query.label, found.collection, found.ann) == (expected.query.label, expected.collection, expected.ann)
    assert [hit.caption for hit in found] == [hit.caption for hit in expected]


def queries(folder: Path) -> list[Any]:
    data = (folder / "photos/blue/0002.png").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    vector = np.arange(48.0) - 20
    return [
        "a red square",
        Query.text("a red square") + 0.5 * Query.item("blue/0002.png") - Query.text("blue"),
        Query.item("blue/0002.png", "images"),
        Query.image(folder / "photos/blue/0002.png"),
        Query.image(data),
        Query.image(image),
        Query.vector(vector, "image") + Query.text("green"),
        Query.text("a red square") - 0.5 * Query.image(data) + Query.image(folder / "photos/red/0008.png"),
        SearchRequest(parts=(text_part("green"),), into="texts", k=3, where="item_id <> ''", columns=("caption",)),
    ]


@pytest.mark.parametrize("position", range(9))
def test_a_search_gives_what_it_gives_in_the_process(
    client: twinlens.Client, direct: Searcher, folder: Path, position: int
) -> None:
    query = queries(folder)[position]
    if isinstance(query, SearchRequest):
        expected, found = direct.search(query), client.search(query)
    elif isinstance(query, str):
        expected, found = direct.text_to_image(query, k=4, min_score=-0.5), client.search(query, k=4, min_score=-0.5)
    else:
        expected, found = direct.search(query, k=4, min_score=-0.5), client.search(query, k=4, min_score=-0.5)
    assert isinstance(expected, Hits)
    same(found, expected)


def test_many_come_in_their_order_however_they_are_sent(
    client: twinlens.Client, direct: Searcher, folder: Path
) -> None:
    asked = [*queries(folder), *(f"number {one % 40}" for one in range(70))]
    found = client.search_many(asked, k=3)
    assert len(found) == 79
    same(found[0], direct.text_to_image("a red square", k=3))
    same(found[3], direct.image_to_image(folder / "photos/blue/0002.png", k=3))
    same(found[-1], direct.text_to_image("number 29", k=3))
    assert client.search_many([]) == []


def test_an_error_names_the_query_among_all(client: twinlens.Client) -> None:
    asked = [*(f"number {one}" for one in range(70)), Query.item("nothing")]
    with pytest.raises(ClientError, match=r"answered 404: queries\[70\]: there is no item 'nothing'") as caught:
        client.search_many(asked)
    assert caught.value.status == 404


def test_pages_lead_through_everything_once(client: twinlens.Client, folder: Path) -> None:
    for query in ("a red square", Query.image(folder / "photos/blue/0002.png")):
        pages = list(client.pages(query, k=15, where="width > 1"))
        assert [len(page) for page in pages] == [15, 15, 10]
        assert [hit.rank for page in pages for hit in page] == list(range(1, 41))
        assert len({hit.item_id for page in pages for hit in page}) == 40
        assert [page.offset for page in pages] == [0, 15, 30]


def test_items_their_like_and_health(client: twinlens.Client, direct: Searcher) -> None:
    assert client.item("blue/0002.png")["pairs"][0]["caption"] == "a blue square, number 2"
    assert client.health() == {"status": "ok", "version": 1, "encoder": "ready"}
    same(client.similar("blue/0002.png", k=3), direct.search(Query.item("blue/0002.png"), k=3))
    with pytest.raises(ClientError, match="answered 404") as caught:
        client.item("nothing", "texts")
    assert caught.value.status == 404


def test_asyncio_asks_many_at_once(server: Served, direct: Searcher) -> None:
    async def asked() -> tuple[list[Hits], list[Hits], list[Hits], dict[str, Any], dict[str, Any], Hits]:
        async with twinlens.AsyncClient(server.url, connections=4) as client:
            alone = await asyncio.gather(*(client.search(f"number {one}", k=2) for one in range(20)))
            many = await client.search_many([f"number {one}" for one in range(20)], k=2)
            pages = [page async for page in client.pages("red", k=20)]
            similar = await client.similar("blue/0002.png", k=3)
            with pytest.raises(ClientError, match="answered 404"):
                await client.item("nothing")
            return alone, many, pages, await client.item("blue/0002.png"), await client.health(), similar

    alone, many, pages, item, health, similar = asyncio.run(asked())
    for one, other in zip(alone, many, strict=True):
        same(one, other)
    same(alone[7], direct.text_to_image("number 7", k=2))
    assert [len(page) for page in pages] == [20, 20]
    assert (item["item_id"], health["status"], len(similar)) == ("blue/0002.png", "ok", 3)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ((b"bytes",), QueryError, "of type bytes; give words, Query.image"),
        (("",), QueryError, "0 characters"),
        ((SearchRequest(parts=(text_part("red"),)), 3, {"where": "x"}), QueryError, "'where' belongs into the request"),
        (("red", 0), ParameterError, "k=0"),
        (("red", 3, {"wher": "x"}), TypeError, "wher"),
        ((float("nan") * Query.text("red"),), ParameterError, "weight=nan"),
        ((-Query.text("red"),), QueryError, "nothing is wanted"),
    ],
)
def test_what_cannot_be_asked_is_not_sent(
    given: tuple[Any, ...], error: type[Exception], said: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    query, k, options = (*given, *(10, {})[len(given) - 1 :])
    with pytest.raises(error, match=said):
        twinlens.Client("http://127.0.0.1:1/").search(query, k, **options)


@pytest.mark.parametrize("given", [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}])
def test_limits_that_are_none_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match="must be above 0"):
        twinlens.Client("http://127.0.0.1:1/", **given)


@pytest.mark.parametrize("connections", [0, -1, 10**9])
def test_connections_that_are_none_are_refused(connections: int) -> None:
    with pytest.raises(SearchError, match="must be from 1 to 1000"):
        twinlens.AsyncClient("http://127.0.0.1:1/", connections=connections)


@contextmanager
def full(times: int, status: int = 503, after: str | None = "0") -> Iterator[tuple[str, list[float]]]:
    """A server that is full so many times, and then answers."""
    asked: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(time.monotonic())
            is_full = len(asked) <= times
            body = b'{"error": "full"}' if is_full else b'{"status": "ok"}'
            self.send_response(status if is_full else 200)
            if is_full and after is not None:
                self.send_header("Retry-After", after)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [429, 503])
def test_one_that_is_full_is_asked_again_so_many_times(status: int) -> None:
    with full(2, status) as (url, asked):
        assert twinlens.Client(url, retries=2).health() == {"status": "ok"}
        assert len(asked) == 3
    with full(2, status) as (url, asked):
        with pytest.raises(ClientError, match=f"answered {status}: full") as caught:
            twinlens.Client(url, retries=1).health()
        assert (len(asked), caught.value.status) == (2, status)


@pytest.mark.parametrize("after", [None, "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "soon"])
def test_one_that_does_not_say_when_is_not_asked_again(after: str | None) -> None:
    with full(1, 503, after) as (url, asked):
        with pytest.raises(ClientError, match="answered 503"):
            twinlens.Client(url).health()
        assert len(asked) == 1


def test_the_pause_is_the_one_that_the_server_asks_for() -> None:
    """A second is the least that `Retry-After` can say."""
    with full(1, 503, "1") as (url, asked):
        twinlens.Client(url).health()
        assert 1 <= asked[1] - asked[0] < 3


def test_it_needs_neither_torch_nor_what_opens_an_index(home: Path, server: Served) -> None:
    heavy = ("duckdb", "faiss", "pyarrow", "torch", "tokenizers", "asyncio")
    code = (
        f"import sys, twinlens; hits = twinlens.Client({server.url!r}).search('red', k=2); assert len(hits) == 2; "
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", "[]\n")
