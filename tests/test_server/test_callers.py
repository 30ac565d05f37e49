"""Who may ask: which names the server answers to, which tokens let in, and that other sites get nothing out of it."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from colour import ColourEncoder
from served_index import Served, serving

from searcher.server import ServerSettings
from searcher.server.errors import ServerError
from searcher.server.settings import host_name

EVIL = "https://evil.example"
TOKEN = "a-long-secret"
FETCHES = ["/search?text=red", "/items/blue/0002.png", "/items?id=a", "/thumbnails/blue/0002.png", "/metrics"]
FETCHES += ["/openapi.json", "/static/page.css", "/images/x", "/nothing", "/%2F"]


def refused(answer: httpx.Response, status: int) -> str:
    """Return the message of an answer that must be an error of this status."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert set(answer.json()) == {"error"}
    message: str = answer.json()["error"]
    return message


def raw(server: Served, sent: bytes) -> bytes:
    """Return all that comes back until the server closes the connection."""
    got = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(sent)
        while part := connection.recv(65_536):
            got += part
    return got


def site(where: str, mode: str = "no-cors", dest: str = "image", **more: str) -> dict[str, str]:
    """Return what a browser says of where a request comes from."""
    return {"Sec-Fetch-Site": where, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest, **more}


@pytest.mark.parametrize("path", FETCHES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        site("cross-site"),
        site("same-site"),
        site("cross-site", "navigate", "document", **{"Sec-Fetch-User": "?1"}),
        {"Referer": f"{EVIL}/page"},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin", "Origin": EVIL},
        {"Sec-Fetch-Site": "what?"},
    ],
)
def test_another_site_gets_nothing(server: Served, path: str, method: str, headers: dict[str, str]) -> None:
    answer = server.client.request(method, path, headers=headers)
    assert answer.status_code == 403
    if method != "HEAD":
        assert "another site sent this request" in refused(answer, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        site("same-origin"),
        site("none", "navigate", "document"),
        {"Referer": "{own}/?q=red"},
        {"Origin": "{own}", "Referer": "{own}/"},
        {"Sec-Fetch-Site": "same-origin", "Referer": f"{EVIL}/behind/a/proxy"},
    ],
)
def test_the_own_page_and_programs_get_all(server: Served, headers: dict[str, str]) -> None:
    own = {name: value.replace("{own}", server.url) for name, value in headers.items()}
    for path in ("/search?text=red", "/thumbnails/blue/0002.png", "/", "/static/page.css"):
        assert server.get(path, headers=own).status_code == 200


def test_another_port_of_this_machine_is_another_site(server: Served) -> None:
    for name in ("Origin", "Referer"):
        refused(server.get("/search?text=red", headers={name: f"http://127.0.0.1:{server.port + 1}"}), 403)
        refused(server.get("/search?text=red", headers={name: f"http://localhost:{server.port}"}), 403)
        assert server.get("/search?text=red", headers={name: f"HTTP://127.0.0.1:{server.port}"}).status_code == 200


def test_the_usual_port_may_be_named_or_not(index: Path) -> None:
    settings = ServerSettings(hosts=("search.example",))
    with serving(index, settings, ColourEncoder()) as server:
        for origin, host in (
            ("https://search.example", "search.example:443"),
            ("https://search.example", "search.example"),
            ("http://search.example:80", "search.example"),
        ):
            answer = server.get("/search?text=red", headers={"Host": host, "Origin": origin})
            assert answer.status_code == 200
        refused(
            server.get("/search?text=red", headers={"Host": "search.example", "Origin": "https://search.example:8443"}),
            403,
        )


LINKED = [
    site("cross-site", "navigate", "document"),
    site("same-site", "navigate", "document"),
    {"Referer": f"{EVIL}/", "Accept": "text/html,*/*"},
]


@pytest.mark.parametrize("headers", LINKED)
def test_a_link_of_another_site_opens_the_page_and_searches_only_when_told(
    server: Served, headers: dict[str, str]
) -> None:
    assert "From this index" in server.get("/", headers=headers).text
    answer = server.get("/", params={"q": "red", "where": "width > 1"}, headers=headers)
    assert answer.status_code == 200
    assert 'href="?q=red&amp;where=width+%3E+1"' in answer.text
    assert "A link of another site" in answer.text
    assert 'value="red"' in answer.text
    assert "thumbnails?" not in answer.text
    told = server.get("/", params={"q": "red", "where": "width > 1"}, headers=site("same-origin", "navigate"))
    assert "thumbnails?" in told.text
    assert "A link of another site" not in told.text


@pytest.mark.parametrize(
    "headers",
    [
        site("cross-site", "navigate", "iframe"),
        site("cross-site", "cors", "empty"),
        site("cross-site", "navigate", "document", Origin="null"),
        site("cross-site"),
        {"Referer": f"{EVIL}/", "Accept": "image/*"},
    ],
)
def test_another_site_can_neither_frame_nor_fetch_the_page(server: Served, headers: dict[str, str]) -> None:
    refused(server.get("/", headers=headers), 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "localhost:", "127.0.0.1:80", "[::1]:8000"])
def test_the_own_names_are_known_in_every_spelling(server: Served, host: str) -> None:
    assert server.get("/search?text=red", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.1", "xn--bcher-kva", "[::2]", "[1::]"])
def test_other_names_are_not_answered(server: Served, host: str) -> None:
    assert "--allow-host" in refused(server.get("/search?text=red", headers={"Host": host}), 421)
    assert server.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost:abc",
        "localhost:99999",
        "localhost:80:80",
        "evil.example@localhost",
        "localhost@evil.example",
        "localhost/",
        "localhost?",
        "localhost#evil.example",
        "localhost, evil.example",
        "local host",
        "[::1",
        "::1",
        "[::1]evil",
        "[127.0.0.1]",
        "[::1%25lo]",
        "..",
        "bücher.example",
    ],
)
def test_what_is_no_name_is_refused(server: Served, host: str) -> None:
    answer = server.get("/search?text=red", headers={"Host": host.encode()})
    assert "is not one host name" in refused(answer, 400)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /search?text=red HTTP/1.0\r\n\r\n",
        b"GET /search?text=red HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /search?text=red HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /search?text=red HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_no_name_and_several_are_refused(server: Served, sent: bytes) -> None:
    assert raw(server, sent).startswith(b"HTTP/1.1 400")


def test_names_that_are_allowed_are_known_in_every_spelling(index: Path) -> None:
    settings = ServerSettings(hosts=("Bücher.Example.", "0:0::1"))
    assert settings.hosts == ("xn--bcher-kva.example", "::1")
    with serving(index, settings, ColourEncoder()) as server:
        for host in ("xn--bcher-kva.example", "XN--BCHER-KVA.example.:443", "[::1]"):
            assert server.get("/search?text=red", headers={"Host": host}).status_code == 200
    for wrong in ("", "a b", "example.org:80", "http://example.org", "[::1]:80"):
        with pytest.raises(ServerError, match="no name of a host"):
            ServerSettings(hosts=(wrong,))
    assert host_name("x" * 64) is None


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("shown", "lets_in"),
    [
        ([f"Bearer {TOKEN}"], True),
        ([f"bearer {TOKEN}"], True),
        ([f"BEARER   {TOKEN}"], True),
        ([basic(f"anyone:{TOKEN}")], True),
        ([basic(f":{TOKEN}").replace("Basic", "basic")], True),
        ([TOKEN], False),
        ([f"Token {TOKEN}"], False),
        ([f"Digest {TOKEN}"], False),
        ([f"Negotiate {TOKEN}"], False),
        ([f"Bearer{TOKEN}"], False),
        ([f"Basic {TOKEN}"], False),
        ([basic(TOKEN)], False),
        ([basic(f"{TOKEN}:")], False),
        ([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], False),
        ([f"Bearer {TOKEN}", "Bearer wrong"], False),
        ([], False),
    ],
)
def test_only_the_token_in_one_of_two_ways_lets_in(index: Path, shown: list[str], lets_in: bool) -> None:
    with serving(index, ServerSettings(token=TOKEN), ColourEncoder()) as server:
        headers: Any = [("Authorization", value) for value in shown]
        answer = server.get("/search?text=red", headers=headers)
        assert answer.status_code == (200 if lets_in else 401)
        assert lets_in == ("www-authenticate" not in answer.headers)


@pytest.mark.parametrize("path", [b"/search", b"/", b"/healthz"])
def test_a_length_that_is_said_in_two_ways_closes_the_connection(server: Served, path: bytes) -> None:
    body = b"0\r\n\r\nGET /items?id=smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    both = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(body)
    got = raw(server, head + both + body)
    assert got.startswith(b"HTTP/1.1 400")
    assert got.count(b"HTTP/1.1") == 1
    assert b"send one of them" in got
