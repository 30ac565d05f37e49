"""The page's template, style and script: read once, named by their content so that browsers may keep them."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from .errors import RefusedError

_KINDS = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8",
          "icon.svg": "image/svg+xml"}  # fmt: skip


def asset_routes() -> APIRouter:
    """Return the routes of style and script."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{name}")
    async def asset(request: Request, name: str) -> Response:
        if name not in _KINDS:
            raise RefusedError(404, f"there is no file {name[:80]!r}; there are {', '.join(_KINDS)}")
        etag = f'"{_tag(name)}"'
        headers = {"ETag": etag, "Cache-Control": "private, max-age=86400"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(_read(f"static/{name}"), headers={**headers, "Content-Type": _KINDS[name]})

    return router


@lru_cache(maxsize=1)
def page_template() -> Template:
    """Return the template of the page; every text in it is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(lambda name: _read(f"templates/{name}").decode("utf-8")),
    )  # fmt: skip
    environment.globals["asset"] = lambda name: f"static/{name}?v={_tag(name)}"
    return environment.get_template("page.html")


@lru_cache(maxsize=8)
def _read(name: str) -> bytes:
    return files("searcher.server").joinpath(name).read_bytes()


def _tag(name: str) -> str:
    return sha256(_read(f"static/{name}")).hexdigest()[:16]
