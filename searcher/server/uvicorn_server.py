"""The HTTP server under the application, with its limits and its end."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, NoReturn, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from .settings import ServerSettings
from .watchdog import Watchdog


class PatientProtocol(H11Protocol):
    """Closes a connection whose request does not come, or whose answer is not read, within `seconds`.

    The time for a request's headers counts from when they could have come, not from the last byte; bodies have a limit
    in the application. Where there are more than `most` connections, the one that waits longest for its client goes,
    so that those who only hold connections keep nobody out; where none is waiting, the new one is answered 503.
    """

    seconds = 10.0
    most = 1_024
    # Those that wait for a request or the rest of its body, the longest first; as a dict, since it remembers the order.
    waiting: ClassVar[dict[PatientProtocol, None]]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._thrown_away: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or refuse the connection."""
        # What ends a connection after an answer is in the hands of each request's cycle.
        super().connection_made(cast("asyncio.Transport", _Lingering(transport, self._linger)))
        _send_at_once(transport)
        if len(self.connections) > self.most and not self._has_replaced_another():
            transport.write(_whole("503 Service Unavailable", "the server is full; try again in a second", 1))
            transport.close()
            return
        self._expect(self.seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request whose headers are whole ends the wait."""
        if self._thrown_away is not None:
            self._thrown_away += len(data)
            if self._thrown_away > _THROWN_AWAY:
                self.transport.abort()
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self._deadline is not None:
            self._deadline.cancel()
            self._waits(True)
        if self.cycle is not None and not self.cycle.more_body:
            self._waits(False)

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it was there already."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before and not self.transport.is_closing():
            self._expect(self.timeout_keep_alive)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self.transport.write(_whole("400 Bad Request", msg.rstrip(".").lower() + "; send HTTP/1.1"))
        self.transport.close()

    def _has_replaced_another(self) -> bool:
        for longest in self.waiting:
            longest.transport.abort()
            longest._waits(False)
            return True
        return False

    def _waits(self, begins: bool) -> None:
        """Put the connection last among those that wait for their clients, or take it out."""
        self.waiting.pop(self, None)
        if begins:
            self.waiting[self] = None

    def _linger(self) -> bool:
        """Whether a body is still coming; then its rest is thrown away for a while before the connection is closed.

        Closing at once would reset the connection, and the client, busy sending, would never read the answer.
        """
        if self.conn.their_state is not h11.SEND_BODY or self._thrown_away is not None:
            return False
        self._thrown_away = 0
        self.transport.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)
        return True

    def _expect(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.close)
        self._waits(True)

    def _cancel(self) -> None:
        self._waits(False)
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()


class _Lingering:
    """A transport that may be asked not to close yet."""

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], bool]) -> None:
        self._transport = transport
        self._linger = linger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close the connection, unless what the client still sends is thrown away first."""
        if not self._linger():
            self._transport.close()


def _send_at_once(transport: asyncio.Transport) -> None:
    """Let no answer's end wait 40 ms for the client to acknowledge its beginning.

    asyncio does so by itself only where a socket names TCP, and what `socket.create_server` gives names nothing.
    """
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _whole(status: str, message: str, retry_after: int | None = None) -> bytes:
    """Return an answer as it goes over the wire."""
    body = json.dumps({"error": message}) + "\n"
    again = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{again}Connection: close\r\n\r\n{body}".encode("ascii")


_KEEP_ALIVE = 15
# For requests under way; the rest is to close the index and to end.
_SHARE_OF_GRACE = 0.8
# Connections cost little while nothing is asked over them; a browser opens six.
_CONNECTIONS_A_REQUEST = 8
_HEADER_BYTES = 65_536
# What is thrown away of a body that nobody wants, so that its sender comes to read the answer.
_THROWN_AWAY = 32 * 1024 * 1024
_LINGER_SECONDS = 2.0
# Of indexes, libraries and pipes; each connection takes one more.
_OWN_FILES = 512


class _WatchedServer(uvicorn.Server):
    """A server that is told of by a watchdog when a signal ends it."""

    watchdog: Watchdog | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End: after the requests under way, or at once where it was told before."""
        if self.watchdog is not None:
            self.watchdog.signalled(sig)
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)


def server_of(app: ASGIApp, settings: ServerSettings) -> _WatchedServer:
    """Return a server for an application made by `create_app` with the same settings; run it once."""

    class Protocol(PatientProtocol):
        seconds = settings.seconds
        most = _CONNECTIONS_A_REQUEST * settings.concurrency
        waiting: ClassVar[dict[PatientProtocol, None]] = {}

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(_SHARE_OF_GRACE * settings.grace),
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    return _WatchedServer(config)


def run_until_stopped(
    app: ASGIApp, settings: ServerSettings, listener: socket.socket, ready: Callable[[], object]
) -> NoReturn:
    """Serve until Ctrl-C or SIGTERM; requests under way are answered first, a second Ctrl-C does not wait for them.

    Ends the process, within its grace: with exit code 0, or 124 where a thread is stuck.

    `ready` is called when a signal ends the server rather than the program: whoever is told may stop it at once.
    """
    server = server_of(app, settings)
    server.watchdog = watchdog = Watchdog(settings.grace)
    ended = False

    def stop(number: int, frame: FrameType | None) -> None:
        # The server has handlers of its own while it runs, and raises the signals again for this one when it has ended.
        if not server.started or ended:
            server.handle_exit(number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    _allow_files(_CONNECTIONS_A_REQUEST * settings.concurrency + _OWN_FILES)
    # Threads that compute hold the interpreter for 5 ms at a time by default, and every answer would wait for that.
    sys.setswitchinterval(0.001)
    ready()
    server.run(sockets=[listener])
    ended = True
    watchdog.finish()


def _allow_files(needed: int) -> None:
    """Let the process open that many files, as far as the system lets it: many systems begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
