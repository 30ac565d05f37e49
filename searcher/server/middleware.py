"""ASGI middleware: host, token and origin checks, limits of body, time and concurrency, and the answers' headers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api import error_answer
from .errors import RefusedError
from .metrics import Metrics
from .settings import ServerSettings

# Answered whoever asks and however full it is: whoever watches the server must hear from it.
_OPEN = frozenset({"/healthz"})
_UNCOUNTED = frozenset({"/healthz", "/metrics"})
# Bodies of the largest size that may be in memory at once.
_BODIES = 16
_RETRY = {"Retry-After": "1"}
_ASK_TOKEN = {"WWW-Authenticate": 'Basic realm="twinlens", charset="UTF-8"'}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Middleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._token = None if settings.token is None else sha256(settings.token.encode()).digest()
        self._hosts = {host.lower() for host in settings.hosts}
        self._under_way = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # HEAD is GET without the body, which the HTTP layer leaves out by itself.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else {**scope}
        answer = _Answer(send)
        started = time.perf_counter()
        try:
            await self._admit(inner, receive, answer)
        finally:
            route = getattr(inner.get("route"), "path", "none")
            self._metrics.requests.labels(route, _known_method(scope["method"]), str(answer.status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _admit(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = Headers(scope=scope)
        try:
            if scope["path"] not in _OPEN:
                self._check(scope, headers)
            if scope["path"] in _UNCOUNTED:
                await self._app(scope, receive, answer)
                return
            with self._slot(headers):
                await self._timed(scope, receive, answer)
        except RefusedError as error:
            if not answer.status:
                await error_answer(error.status, str(error), error.headers)(scope, receive, answer)

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._hosts and _host(headers.get("host", "")) not in self._hosts:
            raise self._refused(
                "host",
                421,
                f"this server does not answer to the name {headers.get('host', '')[:80]!r}; start it with --allow-host",
            )
        if self._token is not None and not self._shown(headers.get("authorization", "")):
            raise self._refused(
                "token", 401, "this server wants its token: Authorization: Bearer TOKEN, or as password", _ASK_TOKEN
            )
        if scope["method"] not in ("GET", "HEAD") and not _same_origin(headers):
            raise self._refused("origin", 403, "another site sent this request; send it from the server's own page")

    def _shown(self, authorization: str) -> bool:
        """Whether a caller has the token; takes as long for a wrong one, whatever is wrong."""
        kind, _, value = authorization.partition(" ")
        given = value.strip().encode("latin-1", "replace")
        if kind.lower() == "basic":
            given = _password(given)
        return hmac.compare_digest(sha256(given).digest(), self._token or b"")

    def _slot(self, headers: Headers) -> _Slot:
        """Return a slot among the running requests, and room for the body that it announces."""
        size = self._size(headers)
        if self._held + size > _BODIES * self._settings.max_body:
            raise self._refused("full", 503, f"{_BODIES} large bodies are under way; try again in a second", _RETRY)
        if self._under_way >= self._settings.concurrency:
            raise self._refused(
                "full", 503, f"{self._settings.concurrency} requests are under way; try again in a second", _RETRY
            )
        return _Slot(self, size)

    def _size(self, headers: Headers) -> int:
        """Return the bytes that a body may take; one that does not say counts as the largest there may be."""
        limit = self._settings.max_body
        if "transfer-encoding" in headers:
            return limit
        stated = headers.get("content-length", "")
        if stated.isdecimal() and int(stated[:20]) > limit:
            raise self._refused("body", 413, _too_large(limit))
        return int(stated) if stated.isdecimal() else 0

    def enter(self, size: int) -> None:
        """Count a request in, and its body."""
        self._held += size
        self._under_way += 1
        self._metrics.under_way.inc()

    def leave(self, size: int) -> None:
        """Count a request out."""
        self._held -= size
        self._under_way -= 1
        self._metrics.under_way.dec()

    async def _timed(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        body = _Body(receive, self._settings.max_body)
        try:
            async with asyncio.timeout(self._settings.seconds) as limit:
                answer.limit = limit
                await self._app(scope, body, answer)
        except TimeoutError:
            raise self._late(body) from None
        finally:
            if body.over:
                self._metrics.refused.labels("body").inc()

    def _late(self, body: _Body) -> RefusedError:
        seconds = self._settings.seconds
        if not body.whole and body.asked:
            return self._refused("time", 408, f"the body did not come within {seconds:g} s; send it faster")
        return self._refused("time", 503, f"no answer within {seconds:g} s; try again, or ask for less", _RETRY)

    def _refused(
        self, reason: str, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> RefusedError:
        self._metrics.refused.labels(reason).inc()
        return RefusedError(status, message, headers)


class _Slot:
    """One request's slot among those running."""

    def __init__(self, middleware: Middleware, size: int) -> None:
        self._middleware = middleware
        self._size = size

    def __enter__(self) -> None:
        self._middleware.enter(self._size)

    def __exit__(self, *problem: object) -> None:
        self._middleware.leave(self._size)


class _Answer:
    """Sends an answer with the headers that all have, and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.limit: asyncio.Timeout | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            if self.limit is not None and not self.limit.expired():
                # From here on it is for the client to read; the HTTP layer sees that it does.
                self.limit.reschedule(None)
        await self._send(message)


class _Body:
    """Receives a body up to a limit."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0
        self.asked = False
        self.whole = False
        self.over = False

    async def __call__(self) -> Message:
        self.asked = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self._seen > self._limit:
                self.over = True
                raise RefusedError(413, _too_large(self._limit))
        return message


def _too_large(limit: int) -> str:
    return f"the body has more than {limit} bytes, which is this server's limit; send a smaller image"


def _host(header: str) -> str:
    """Return the name in a Host header, without port and brackets; empty for what is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _same_origin(headers: Headers) -> bool:
    """Whether a request that changes something comes from this server's own page, or from no page at all."""
    if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
        return False
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False


def _password(given: bytes) -> bytes:
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _known_method(method: str) -> Any:
    """Return the method as a label; whatever callers make up is one label together."""
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
