"""ASGI middleware: checks of callers, limits of body, time and concurrency, and the answers' headers."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api.answers import NO_ROUTE, error_answer
from .api.api_routes import ITEM_PATHS
from .callers import OPEN_PATHS, Callers
from .errors import RETRY, RefusedError, full
from .metrics import Metrics
from .settings import ServerSettings
from .watching.access_log import REQUEST_ID, AccessLog, request_id_of

# Answered however full the server is.
_UNCOUNTED = OPEN_PATHS | {"/metrics"}
# What is left of a smaller body is read, so that the connection can be used again.
_READ_ON = 65_536
# Bodies of the largest size that may be in memory at once.
_BODIES = 8
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
        self._callers = Callers(settings.hosts, settings.token)
        self._log = AccessLog(settings.access_log, queries=settings.log_queries)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # HEAD is GET without the body, which the HTTP layer leaves out by itself.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else {**scope}
        request_id = request_id_of(Headers(scope=scope))
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        with self._log.request():
            try:
                await self._admit(inner, receive, answer)
            finally:
                seconds = time.perf_counter() - started
                route = getattr(inner.get("route"), "path", "none")
                self._metrics.requests.labels(route, _known_method(scope["method"]), str(answer.status)).inc()
                self._metrics.seconds.labels(route, _status_class(answer.status)).observe(seconds)
                self._log.write(scope, request_id, answer.status, seconds)

    async def _admit(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = Headers(scope=scope)
        try:
            answer.announced = _announced(headers)
            _check_framing(headers)
            _check_path(scope["path"])
            self._callers.check(scope, headers)
            if scope["path"] in _UNCOUNTED:
                await self._app(scope, receive, answer)
                return
            if math.inf > answer.announced > self._settings.max_body:
                raise RefusedError(413, _too_large(self._settings.max_body), reason="body")
            with self._metrics.under_way.track_inprogress():
                await self._timed(scope, receive, answer)
        except RefusedError as error:
            if error.reason:
                self._metrics.refused.labels(error.reason).inc()
            if not answer.status:
                await error_answer(error.status, str(error), error.headers)(scope, receive, answer)

    def begin_work(self) -> None:
        """Count a request that is whole among those that are worked on.

        Raises:
            RefusedError: 503, there are enough of them.
        """
        if self._metrics.at_work >= self._settings.concurrency:
            raise full(f"{self._settings.concurrency} requests are under way")
        self._metrics.at_work += 1

    def end_work(self) -> None:
        """Count a request out."""
        self._metrics.at_work -= 1

    def hold(self, size: int) -> None:
        """Count bytes of bodies in memory in, or out where the size is negative.

        Raises:
            RefusedError: 503, there are enough of them.
        """
        self._held += size
        if size > 0 and self._held > _BODIES * self._settings.max_body:
            raise full(f"{_BODIES} large bodies are under way")

    async def _timed(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        body = _Body(receive, self._settings.max_body, self)
        try:
            if not answer.announced:
                body.begin_work()
            async with asyncio.timeout(self._settings.seconds) as limit:
                answer.limit, answer.body = limit, body
                await self._app(scope, body, answer)
        except TimeoutError:
            raise self._late(body) from None
        finally:
            body.close()
            if body.refused:
                self._metrics.refused.labels(body.refused).inc()

    def _late(self, body: _Body) -> RefusedError:
        seconds = self._settings.seconds
        if not body.whole and body.asked:
            return RefusedError(408, f"the body did not come within {seconds:g} s; send it faster", reason="time")
        message = f"no answer within {seconds:g} s; try again, or ask for less"
        return RefusedError(503, message, RETRY, reason="time")


class _Answer:
    """Sends an answer with the headers that all have, and remembers its status.

    Where a large body has not come yet the connection ends with the answer: nobody needs the rest of the body.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.body: _Body | None = None
        self.announced = 0.0
        self.status = 0
        self.limit: asyncio.Timeout | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            headers[REQUEST_ID] = self._request_id
            if self.announced > _READ_ON and not (self.body is not None and self.body.whole):
                headers["Connection"] = "close"
            if self.limit is not None and not self.limit.expired():
                # From here on it is for the client to read; the HTTP layer sees that it does.
                self.limit.reschedule(None)
        await self._send(message)


class _Body:
    """Receives a body up to a limit, and as long as there is room for it beside the others.

    A request is worked on once its body is whole: those that are slow to send theirs keep no others out.

    Attributes:
        asked: Whether somebody wanted it.
        whole: Whether all of it came.
        refused: The limit that it met; empty for none.
    """

    def __init__(self, receive: Receive, limit: int, middleware: Middleware) -> None:
        self._receive = receive
        self._limit = limit
        self._middleware = middleware
        self._seen = 0
        self._at_work = False
        self.asked = False
        self.whole = False
        self.refused = ""

    async def __call__(self) -> Message:
        self.asked = True
        message = await self._receive()
        if message["type"] == "http.request":
            try:
                self._take(len(message.get("body", b"")), last=not message.get("more_body", False))
            except RefusedError as error:
                self.refused = error.reason
                raise
        return message

    def begin_work(self) -> None:
        """Count the request among those that are worked on, once.

        Raises:
            RefusedError: 503, there are enough of them.
        """
        if not self._at_work:
            self._middleware.begin_work()
            self._at_work = True

    def close(self) -> None:
        """Count the request out, and its body."""
        self._middleware.hold(-self._seen)
        if self._at_work:
            self._middleware.end_work()

    def _take(self, size: int, *, last: bool) -> None:
        self._seen += size
        self.whole = last
        self._middleware.hold(size)
        if self._seen > self._limit:
            raise RefusedError(413, _too_large(self._limit), reason="body")
        if last:
            self.begin_work()


def _announced(headers: Headers) -> float:
    """Return the bytes that a body is said to have, infinity where it does not say."""
    stated = headers.get("content-length", "")
    return math.inf if "transfer-encoding" in headers else int(stated[:20]) if stated.isdecimal() else 0


def _check_framing(headers: Headers) -> None:
    """Refuse a body whose length is said in two ways: a proxy in front may have believed the other one.

    Raises:
        RefusedError: 400; the connection is closed after it, since nobody can say where the next request begins.
    """
    if "transfer-encoding" in headers and "content-length" in headers:
        message = "the request has Transfer-Encoding and Content-Length; send one of them"
        raise RefusedError(400, message, {"Connection": "close"})


def _check_path(path: str) -> None:
    """Refuse a path that ends in a line end, which routes take for one without; item ids may have some.

    Raises:
        RefusedError: 404.
    """
    if path.endswith("\n") and not path.startswith(ITEM_PATHS):
        raise RefusedError(404, NO_ROUTE)


def _too_large(limit: int) -> str:
    return f"the body has more than {limit} bytes, which is this server's limit; send a smaller image"


def _status_class(status: int) -> str:
    """Return `2xx` and so on as a label; `none` where the client had gone before there was an answer."""
    return f"{status // 100}xx" if status else "none"


def _known_method(method: str) -> Any:
    """Return the method as a label; whatever callers make up is one label together."""
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
