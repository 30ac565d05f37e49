"""Addresses: item ids of any signs, pages below the page, ranges, methods, and what the metrics keep of all that."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urljoin

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from colour import ColourEncoder
from served_index import Served, serving

from indexer import build_index
from indexer.corpus.embeddings.embedding_source import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

ODD_IDS = [
    "plain",
    "line\nend",
    "a\r\nSet-Cookie: a=1\r\n\r\nbody",
    "two  spaces",
    "and + and %2B and %0A",
    "a/b",
    "a//b",
    "/etc/passwd",
    "../../up",
    "./here/.",
    "?id=plain",
    "#fragment",
    "a&b=c;d",
    "<script>alert('x')</script>\"",
    "caf\u00e9 \u2028 \U0001f3d4",
    "\x1b[31mred\x7f",
    "\\back\\slash",
    "%",
    "%zz",
    "search",
    "x" * 2_000,
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of an index with odd item ids, in a folder with an odd name."""
    folder = tmp_path_factory.mktemp("odd") / "a b%20c#d'é"
    folder.mkdir()
    np.save(folder / "vectors.npy", np.eye(len(ODD_IDS), 48, dtype=np.float32))
    pa.parquet.write_table(pa.table({"item_id": ODD_IDS}), folder / "items.parquet")
    files = EmbeddingFiles(vectors=folder / "vectors.npy", table=folder / "items.parquet", id_column="item_id")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), folder / "odd.index")
    with serving(folder / "odd.index") as server:
        yield server


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_an_id_in_the_path_or_after_it_is_that_item(odd: Served, item_id: str) -> None:
    for path in (f"/items/{quote(item_id, safe='')}", f"/items?id={quote(item_id, safe='')}"):
        answer = odd.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["item_id"] == item_id
        assert "set-cookie" not in answer.headers
        head = odd.client.head(path)
        assert head.status_code == 200
    missing = odd.get(f"/thumbnails/{quote(item_id, safe='')}")
    assert missing.status_code == 404
    assert "cannot be shown" in missing.json()["error"]
    found = odd.ask(item=item_id, k=3)
    assert found["query"]["item"] == item_id
    assert item_id not in [hit["item_id"] for hit in found["hits"]]


@pytest.mark.parametrize("item_id", ["plai", "plain\n", "plain\0", "\0", "line", "line\n", "line\nend\n", ""])
def test_what_is_nearly_an_id_is_none(odd: Served, item_id: str) -> None:
    for path in ("/items/", "/thumbnails/"):
        answer = odd.get(path + quote(item_id, safe=""))
        assert answer.status_code == 404
        assert answer.text.count("\n") == 1


def test_every_link_of_the_page_leads_to_its_item(odd: Served) -> None:
    page = odd.get("/", headers={"Accept": "text/html"})
    links = {
        link.replace("&amp;", "&").replace("&#39;", "'") for link in re.findall(r'href="(\?item=[^"]*)"', page.text)
    }
    assert len(links) == len(ODD_IDS)
    for link in links:
        shown = odd.get(urljoin(odd.url + "/", link))
        assert shown.status_code == 200, link
        assert 'role="alert"' not in shown.text


@pytest.mark.parametrize("path", ["/search", "/healthz", "/metrics", "/openapi.json", "/items", "/thumbnails", "/"])
def test_a_path_with_a_line_end_is_another_one(server: Served, path: str) -> None:
    for end in ("%0A", "%0D%0A", "%00", "%20"):
        answer = server.get(path + end)
        assert answer.status_code == 404, path + end
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("path", ["/nothing", "/a/b", "/a/b/c/", "/search/x%2Fy", "//x", "/images/a/b", "/a%2Fb/c"])
def test_links_of_a_page_below_lead_to_the_page(server: Served, path: str) -> None:
    answer = server.client.get(server.url + path, headers={"Accept": "text/html"})
    assert answer.status_code == 404
    links = re.findall(r'(?:href|src|action)="([^"#]+)"', answer.text)
    assert len(links) >= 6
    for link in links:
        found = urljoin(str(answer.request.url), link)
        assert found == f"{server.url}/" or found.startswith(f"{server.url}/static/"), (path, link)
        assert server.client.get(found).status_code == 200


@pytest.mark.parametrize("wanted", ["bytes=0-0", "bytes=0-1,2-3,4-5" + ",0-9" * 1000, "bytes=-1", "lines=1-2", "x"])
def test_a_range_gets_the_whole(server: Served, wanted: str) -> None:
    for path in ("/thumbnails/blue/0002.png", "/static/page.css", "/search?text=red"):
        whole = server.get(path)
        part = server.get(path, headers={"Range": wanted})
        assert part.status_code == 200
        assert len(part.content) == int(part.headers["content-length"])
        assert abs(len(part.content) - len(whole.content)) < 20  # a search says how long it took


@pytest.mark.parametrize("known", ["{}", "W/{}", '"x", {}', '"x",W/{},"y"', "*"])
def test_what_a_browser_has_is_not_sent_again(server: Served, known: str) -> None:
    for path in ("/thumbnails/blue/0002.png", "/static/page.css"):
        etag = server.get(path).headers["etag"]
        again = server.get(path, headers={"If-None-Match": known.replace("{}", etag)})
        assert (again.status_code, again.content) == (304, b"")
        other = server.get(path, headers={"If-None-Match": known.replace("{}", '"other"').replace("*", '"x"')})
        assert other.status_code == 200


def test_a_page_under_a_prefix_of_a_proxy_has_relative_links_alone(server: Served) -> None:
    for path in ("/", "/?q=red", "/?item=blue/0002.png", "/a/b"):
        text = server.get(path, headers={"Accept": "text/html"}).text
        assert not re.findall(r'(?:href|src|action)="(?:/|https?:)', text)


def test_metrics_keep_nothing_of_what_was_asked(index: Path) -> None:
    with serving(index, encoder=ColourEncoder()) as server:
        for number in range(40):
            for path in (f"/items/secret-{number}", f"/thumbnails/secret-{number}", f"/secret/{number}", "/x%0A"):
                server.get(path)
            server.get("/search", params={"text": f"secret {number}", "where": f"caption = 'secret {number}'"})
            server.client.request(f"SECRET{number}", "/search")
            server.get("/search", headers={"Host": f"secret{number}.example"})
            server.get("/search", headers={"Origin": f"https://secret{number}.example"})
        text = server.get("/metrics").text
    assert "ecret" not in text.lower()
    routes = set(re.findall(r'route="([^"]*)"', text))
    assert routes <= {"/search", "/items/{id:item_id}", "/thumbnails/{id:item_id}", "/metrics", "none"}
    assert set(re.findall(r'method="([^"]*)"', text)) <= {"GET", "other"}
    assert len(text.splitlines()) < 250


def test_no_line_of_the_log_is_of_a_callers_making(
    server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("broken\nERROR forged \x1b[31m")

    monkeypatch.setattr(server.live.current, "find", broken)
    with caplog.at_level(logging.ERROR, logger="searcher.server"):
        answer = server.get("/items/a%0AERROR%20forged%1B[31m")
    assert answer.status_code == 500
    (line,) = [record.getMessage() for record in caplog.records if record.name == "searcher.server.app"]
    assert line == "GET /items/a%0AERROR%20forged%1B[31m: broken ERROR forged \ufffd[31m"
