"""The HTTP server under the application, with its limits and its end."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from .protocol import PatientProtocol
from .settings import ServerSettings

_KEEP_ALIVE = 15
# Connections cost little while nothing is asked over them; a browser opens six.
_CONNECTIONS_A_REQUEST = 8
_HEADER_BYTES = 65_536


def server_of(app: ASGIApp, settings: ServerSettings) -> uvicorn.Server:
    """Return a server for an application made by `create_app` with the same settings; run it once."""

    class Protocol(PatientProtocol):
        seconds = settings.seconds
        most = _CONNECTIONS_A_REQUEST * settings.concurrency

    config = uvicorn.Config(
        app, http=Protocol, ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.seconds) + 5, h11_max_incomplete_event_size=_HEADER_BYTES,
    )  # fmt: skip
    return uvicorn.Server(config)


def run_until_stopped(
    app: ASGIApp, settings: ServerSettings, listener: socket.socket, ready: Callable[[], object]
) -> None:
    """Serve until Ctrl-C or SIGTERM; requests under way are answered first, a second Ctrl-C does not wait for them.

    `ready` is called when a signal ends the server rather than the program: whoever is told may stop it at once.
    """
    server = server_of(app, settings)

    def stop(number: int, frame: object) -> None:
        # The server has handlers of its own while it runs, and raises the signal again for this one when it has ended.
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    # Threads that compute hold the interpreter for 5 ms at a time by default, and every answer would wait for that.
    sys.setswitchinterval(0.001)
    ready()
    server.run(sockets=[listener])
