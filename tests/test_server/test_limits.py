"""Limits of body, time, number and patience; who may ask at all; and that the server recovers."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from colour import ColourEncoder
from served_index import Served, SlowEncoder, serving

from searcher.server import ServerSettings, uvicorn_server
from searcher.server.errors import ServerError


def figure(server: Served, name: str) -> float:
    lines = [line for line in server.get("/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


@pytest.fixture
def slow() -> Iterator[SlowEncoder]:
    encoder = SlowEncoder()
    yield encoder
    encoder.may.set()


def test_no_answer_waits_for_an_acknowledgement(server: Served) -> None:
    server.ask(text="quick")
    costs = []
    for _ in range(30):
        started = time.perf_counter()
        server.ask(text="quick")
        costs.append(time.perf_counter() - started)
    assert sorted(costs)[10] < 0.035  # what a delayed acknowledgement alone takes is 0.04


def test_a_full_server_says_when_to_come_again_and_recovers(index: Path, slow: SlowEncoder) -> None:
    settings = ServerSettings(concurrency=4)
    with serving(index, settings, slow) as server, ThreadPoolExecutor(4) as callers:
        waiting = [callers.submit(server.get, "/search", params={"text": f"red {n}"}) for n in range(4)]
        until(lambda: figure(server, "twinlens_requests_under_way") == 4)
        refused = server.get("/search", params={"text": "one too many"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "4 requests are under way" in refused.json()["error"]
        assert server.get("/").status_code == 503
        assert server.get("/healthz").json()["status"] == "ok"
        slow.may.set()
        assert [one.result().status_code for one in waiting] == [200] * 4
        assert server.ask(text="and now")["hits"]
        assert figure(server, 'twinlens_refused_total{reason="full"}') == 2
        assert figure(server, "twinlens_requests_under_way") == 0


def test_a_request_that_takes_too_long_ends_and_its_place_is_free_again(index: Path, slow: SlowEncoder) -> None:
    with serving(index, ServerSettings(seconds=0.5, concurrency=2), slow) as server:
        for _ in range(3):
            late = server.get("/search", params={"text": "late"})
            assert late.status_code == 503
            assert "no answer within 0.5 s" in late.json()["error"]
            assert late.headers["retry-after"] == "1"
        slow.may.set()
        assert server.ask(text="in time")["hits"]


def test_a_body_above_the_limit_is_refused_before_it_was_read(index: Path) -> None:
    with serving(index, ServerSettings(max_body=10_000), ColourEncoder()) as server:
        refused = server.post("/search", content=bytes(50_000), headers={"Content-Type": "image/png"})
        assert refused.status_code == 413
        assert "more than 10000 bytes" in refused.json()["error"]
        pieces = (bytes(4_000) for _ in range(5))  # chunked: nobody says how long
        refused = server.post("/search", content=pieces, headers={"Content-Type": "image/png"})
        assert refused.status_code == 413
        assert server.ask(text="red")["hits"]


def test_a_giant_body_that_is_only_announced_is_refused_at_once(server: Served) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(head + bytes(1000))
        assert raw.recv(1000).startswith(b"HTTP/1.1 413")


def test_who_sends_a_body_that_nobody_wants_reads_why(server: Served) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: %s\r\nContent-Type: image/png\r\n"
    sized, chunked = b"Content-Length: 8000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n7a1200\r\n"
    for host, more, status in ((b"evil.example", sized, b"421"), (b"evil.example", chunked, b"421")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(head % host + more + bytes(8_000_000))  # all of it, before the answer is looked at
            got = b""
            while part := raw.recv(65_536):
                got += part
            assert got.startswith(b"HTTP/1.1 " + status)
            assert b"connection: close" in got.lower()


def test_a_body_without_end_that_nobody_wants_is_cut_off(server: Served) -> None:
    head = b"POST / HTTP/1.1\r\nHost: evil.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(head)
        with suppress(ConnectionError):
            while sent < 500_000_000:
                raw.sendall(b"f4240\r\n" + bytes(1_000_000) + b"\r\n")
                sent += 1_000_000
    assert sent < 100_000_000


def test_a_connection_goes_on_after_an_error(server: Served) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    used = set()
    for _ in range(3):
        connection.request("POST", "/nothing", bytes(20_000))
        used.add(connection.sock)
        answer = connection.getresponse()
        assert answer.status == 404
        answer.read()
    assert len(used) == 1
    connection.close()


def test_many_large_bodies_at_once_do_not_fill_the_memory(index: Path) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    with serving(index, ServerSettings(max_body=1000), ColourEncoder()) as server:
        held = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(9)]
        try:
            for raw in held[:8]:
                raw.sendall(head)
            until(lambda: figure(server, "twinlens_requests_under_way") == 8)
            # What is only announced takes no room from others.
            assert server.post("/search", json={"text": "red"}).status_code == 200
            for raw in held[:8]:
                raw.sendall(bytes(999))
            time.sleep(0.3)
            held[8].sendall(head + bytes(999))
            assert held[8].recv(1000).startswith(b"HTTP/1.1 503")
            assert server.post("/search", json={"text": "red"}).status_code == 503
            assert server.ask(text="red")["hits"]
            assert figure(server, 'twinlens_refused_total{reason="full"}') == 2
        finally:
            for raw in held:
                raw.close()
        until(lambda: figure(server, "twinlens_requests_under_way") == 0)
        assert server.post("/search", json={"text": "red"}).status_code == 200


def test_bodies_that_drip_keep_no_others_out(index: Path) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(index, ServerSettings(concurrency=4), ColourEncoder()) as server:
        held = []
        try:
            for _ in range(40):  # of the 32 connections that there may be
                held.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
                held[-1].sendall(head + b"1\r\nx\r\n")
            until(lambda: 25 < figure(server, "twinlens_requests_under_way") < 32)
            for _ in range(10):
                assert httpx.post(f"{server.url}/search", json={"text": "red"}).status_code == 200
        finally:
            for raw in held:
                raw.close()


def test_a_caller_who_hangs_up_is_no_failure_of_the_server(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    with serving(index, encoder=ColourEncoder()) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
                raw.sendall(head + bytes(10))
                until(lambda: figure(server, "twinlens_requests_under_way") == 1)
            until(lambda: figure(server, "twinlens_requests_under_way") == 0)
        assert figure(server, 'twinlens_requests_total{method="POST",route="/search",status="400"}') == 3
        assert server.ask(text="red")["hits"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def drip(port: int, head: bytes, seconds: float) -> bytes:
    """Send a byte now and then for so long, and return what came back."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as raw:
        raw.sendall(head)
        end = time.monotonic() + seconds
        with suppress(ConnectionError):
            while time.monotonic() < end:
                with suppress(TimeoutError):
                    part = raw.recv(4096)
                    got += part
                    if not part:
                        return got
                raw.sendall(b"x")
    return got


def test_a_body_that_drips_is_cut_off(index: Path) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
    with serving(index, ServerSettings(seconds=0.5), ColourEncoder()) as server:
        got = drip(server.port, head, 3)
        assert got.startswith(b"HTTP/1.1 408")
        assert b"the body did not come within 0.5 s" in got


def test_headers_that_drip_are_cut_off(index: Path) -> None:
    with serving(index, ServerSettings(seconds=0.5), ColourEncoder()) as server:
        started = time.monotonic()
        assert drip(server.port, b"GET / HTTP/1.1\r\nHost: loc", 5) == b""
        assert time.monotonic() - started < 3


def test_those_who_only_hold_connections_keep_nobody_out(index: Path) -> None:
    with serving(index, ServerSettings(concurrency=1), ColourEncoder()) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(20)]
        try:
            for raw in idle:
                with suppress(ConnectionError):
                    raw.sendall(b"GET / HTTP/1.1\r\nHost: loc")
            for _ in range(20):
                assert httpx.get(f"{server.url}/search?text=red").status_code == 200
            assert [closed(raw) for raw in idle] == [True] * 13 + [False] * 7  # of the eight that there may be
        finally:
            for raw in idle:
                raw.close()


def closed(raw: socket.socket) -> bool:
    """Whether the server has closed a connection."""
    raw.settimeout(0.2)
    try:
        return raw.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_where_every_connection_is_at_work_a_further_one_is_refused_in_one_line(
    index: Path, slow: SlowEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_server, "_CONNECTIONS_A_REQUEST", 1)
    with serving(index, ServerSettings(concurrency=1), slow) as server, ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(httpx.get, f"{server.url}/search?text=red")
        assert slow.begun.wait(5)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            got = raw.recv(1000)
            assert got.startswith(b"HTTP/1.1 503 Service Unavailable")
            assert b"Retry-After: 1" in got
        slow.may.set()
        assert waiting.result().status_code == 200


def test_with_a_token_nobody_asks_without_it(index: Path) -> None:
    with serving(index, ServerSettings(token="a-long-secret"), ColourEncoder()) as server:
        basic = base64.b64encode(b"anyone:a-long-secret").decode()
        wrong = [
            "",
            "Bearer",
            "Bearer a-long-secre",
            "Bearer a-long-secret2",
            "Basic !!",
            "Basic eDp5",
            "Digest x",
            "é",
        ]
        for path in (
            "/",
            "/search?text=red",
            "/items/a",
            "/thumbnails/a",
            "/metrics",
            "/openapi.json",
            "/static/page.css",
        ):
            for shown in wrong:
                refused = server.get(path, headers={"Authorization": shown.encode("latin-1")})
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"].startswith("Basic")
                assert "a-long-secret" not in refused.text
            for shown in ("Bearer a-long-secret", f"Basic {basic}"):
                assert server.get(path, headers={"Authorization": shown}).status_code in (200, 404)
        assert server.get("/healthz").status_code == 200


def test_a_name_that_is_not_ours_is_not_answered(server: Served) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "a b"):
        refused = server.get("/search?text=red", headers={"Host": host})
        assert refused.status_code in (400, 421)
        assert set(refused.json()) == {"error"}
    for host in ("localhost", "LOCALHOST:99", "[::1]:8000", "127.0.0.1"):
        assert server.get("/search?text=red", headers={"Host": host}).status_code == 200


def test_another_site_cannot_send_pictures(server: Served, folder: Path) -> None:
    data = (folder / "photos/blue/0002.png").read_bytes()
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        refused = server.post("/", files={"image": data}, headers=headers)
        assert refused.status_code == 403
    own = server.post("/", files={"image": data}, headers={"Origin": server.url, "Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 303


def test_requests_under_way_are_answered_before_the_server_stops(index: Path, slow: SlowEncoder) -> None:
    with ThreadPoolExecutor(1) as callers:
        with serving(index, encoder=slow) as server:
            waiting = callers.submit(httpx.get, f"{server.url}/search?text=red")
            assert slow.begun.wait(5)
            threading.Timer(0.7, slow.may.set).start()
        assert waiting.result().status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_k": 0},
        {"max_k": 10_000},
        {"seconds": 0},
        {"seconds": float("nan")},
        {"concurrency": 0},
        {"batch": 0},
        {"max_body": -1},
        {"wait_ms": -1},
        {"token": "short"},
        {"token": "with a space in it"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=next(iter(wrong))):
        ServerSettings(**wrong)


def test_a_token_does_not_show_in_the_settings() -> None:
    assert "secret" not in repr(ServerSettings(token="a-long-secret"))
