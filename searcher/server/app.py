"""The ASGI application: routes, errors as JSON, and the index followed while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from storage.errors import TwinlensError

from .api.answers import error_answer, one_line, status_of
from .api.api_routes import item_routes, search_routes, state_routes
from .api.films import film_routes
from .engine import Engine, Service
from .errors import RefusedError
from .live_index import LiveIndex
from .metrics import Metrics
from .middleware import Middleware
from .page.page import error_page, page_routes, wants_page
from .settings import ServerSettings

if TYPE_CHECKING:
    from encoders import Encoder


log = logging.getLogger(__name__)

_LONGEST_PATH = 200
_ABOUT = 'Search images with words and words with images. Every error is one line: {"error": "..."}.'


def create_app(
    index: str | Path | LiveIndex,
    settings: ServerSettings | None = None,
    *,
    encoder: Encoder | None = None,
    engine: Callable[[ServerSettings, Metrics], Engine] = Engine,
) -> ASGIApp:
    """Return an ASGI application that serves an index, and follows it when versions are published.

    Run it in one process: a second one would hold the encoder and the caches again. The index is closed when the
    server that runs the application stops.

    Args:
        index: The folder of the index, or one that is open already.
        settings: Limits and the rest; by default those of `ServerSettings`.
        encoder: An encoder that is there already.
        engine: Makes what answers searches.

    Raises:
        TwinlensError: The index or its encoder cannot be opened.
    """
    settings = settings or ServerSettings()
    live = index if isinstance(index, LiveIndex) else LiveIndex(Path(index), settings, encoder)
    service = Service(live, settings, engine)
    # The pages that document the API would load scripts from elsewhere; /openapi.json says the same.
    app = FastAPI(
        title="Twinlens",
        version=version("twinlens"),
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(service),
        redirect_slashes=False,
    )
    for routes in (search_routes, item_routes, film_routes, state_routes, page_routes):
        app.include_router(routes(service))
    _add_errors(app, service)
    return Middleware(app, settings, service.metrics)


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        tasks = [
            asyncio.create_task(_watch(service)),
            asyncio.create_task(service.engine.prepare(service.live.current.encoding)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            service.close()

    return lifespan


async def _watch(service: Service) -> None:
    """Look for a new version again and again, and for an encoder that failed; no request waits for either."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="twinlens-watch") as pool:
        while True:
            await asyncio.sleep(service.settings.watch_seconds)
            await loop.run_in_executor(pool, service.live.follow)
            if service.live.current.encoding.state == "failed":
                await loop.run_in_executor(pool, service.live.current.encoding.prepare)


def _add_errors(app: FastAPI, service: Service) -> None:
    async def known(request: Request, error: Exception) -> Response:
        status, message, headers = status_of(error)
        if status >= 500 and not isinstance(error, RefusedError):
            # As it came over the wire, so that no line of the log is of a caller's making.
            path = request.scope.get("raw_path", b"").decode("latin-1")
            log.error("%s %s: %s", request.method, path[:_LONGEST_PATH], one_line(str(error)))
        message = service.hide(message)
        if isinstance(error, HTTPException) and wants_page(request):
            return error_page(service, request, status, message)
        return error_answer(status, message, headers)

    for kind in (TwinlensError, HTTPException, RequestValidationError, ClientDisconnect, MemoryError, Exception):
        app.add_exception_handler(kind, known)
