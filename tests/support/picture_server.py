"""A real HTTP server on this machine: pictures, redirects, and every way of answering badly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class PictureServer(ThreadingHTTPServer):
    """Serves `pages` by path: bytes, (status, headers, body), or a callable that writes to the handler."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.under_way = 0
        self.most = 0
        self.lock = threading.Lock()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return the URL of a page."""
        return f"http://{host}:{self.server_address[1]}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.asked.append((self.path, self.headers.get("Host")))
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        try:
            self._answer(server.pages.get(self.path, (404, {}, b"")))
        except OSError:
            pass  # the other side hung up, as it should
        finally:
            with server.lock:
                server.under_way -= 1

    def _answer(self, page: Any) -> None:
        if callable(page):
            page(self)
            return
        status, headers, body = page if isinstance(page, tuple) else (200, {}, page)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        """Take one request; a handshake that the other side breaks off is no error."""
        with suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Send bytes for ever, and no length."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(65536))


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, each in time for a limit that counts from the last one."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Take the request and say nothing."""
    time.sleep(3)


def raw(data: bytes) -> Any:
    """Return a page that sends these bytes in place of an answer."""
    return lambda handler: handler.wfile.write(data)


@contextmanager
def serving() -> Iterator[PictureServer]:
    """Run a server for the length of a block."""
    server = PictureServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
