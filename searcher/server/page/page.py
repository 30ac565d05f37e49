"""The web page: one address, rendered on the server, which works without a script."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from storage.errors import TwinlensError
from storage.schema import Collection

from ...query import MOST_PARTS, ResolvedQuery, image_part, item_part, text_part
from ...request import SearchRequest
from ..api.answers import has_already, image_answer, status_of
from ..api.request_bodies import read_form
from ..callers import LINKED
from ..engine import Service
from ..errors import RefusedError
from ..image_cache import QueryImage, shaded_jpeg
from ..snapshot import Snapshot
from .cards import Chip, Section, Subject, View, chips, columns_of, entry_card, hit_section, sample_section, topics
from .page_query import MOST_K, NEWEST, WORDS, PagePart, PageQuery, added, page_query, view_of

_KINDS = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def asset_routes() -> APIRouter:
    """Return the routes of style and script."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{name}")
    async def asset(request: Request, name: str) -> Response:
        if name not in _KINDS:
            raise RefusedError(404, f"there is no file {name[:80]!r}; there are {', '.join(_KINDS)}")
        etag = f'"{_tag(name)}"'
        headers = {"ETag": etag, "Cache-Control": "private, max-age=86400"}
        if has_already(request, etag):
            return Response(status_code=304, headers=headers)
        return Response(_read(f"static/{name}"), headers={**headers, "Content-Type": _KINDS[name]})

    return router


@lru_cache(maxsize=1)
def page_template() -> Template:
    """Return the template of the page; every text in it is escaped."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: _read(f"templates/{name}").decode("utf-8")),
    )
    environment.globals["asset"] = lambda name: f"static/{name}?v={_tag(name)}"
    return environment.get_template("page.html")


@lru_cache(maxsize=8)
def _read(name: str) -> bytes:
    return files("searcher.server.page").joinpath(name).read_bytes()


def _tag(name: str) -> str:
    return sha256(_read(f"static/{name}")).hexdigest()[:16]


_SAMPLE = 24
_BESIDE = 8
_CAPTIONS = 10
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self'; media-src 'self'; "
    "style-src 'self' 'nonce-{nonce}'; script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_TITLES = {"images": "More like this", "texts": "Matching texts"}
_GONE = "this server does not remember that image any more; drop or choose it again"


def page_routes(service: Service) -> APIRouter:
    """Return the routes of the page and of what it loads."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page(request: Request) -> Response:
        return await _page(service, request)

    @router.post("/")
    async def image_given(request: Request) -> Response:
        return await _remember(service, request)

    @router.get("/images/{name}")
    async def query_image(request: Request, name: str) -> Response:
        image = service.query_images.find(name)
        if image is None:
            raise RefusedError(404, _GONE)
        return image_answer(request, image.thumbnail, lasting=True)

    @router.get("/maps")
    async def relevance_map(request: Request, show: str, v: int | None = None) -> Response:
        return await _relevance_map(service, request, show, v)

    router.include_router(asset_routes())
    return router


def wants_page(request: Request) -> bool:
    """Whether somebody looks with a browser, rather than a program that reads JSON."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def error_page(service: Service, request: Request, status: int, message: str) -> Response:
    """Return the page with nothing on it but an error; its links lead to the page from wherever it was asked for."""
    path = request.scope.get("raw_path") or request.scope["path"].encode()
    with service.live.acquire() as snapshot:
        return _rendered(service, snapshot, PageQuery(), View(up="../" * (path.count(b"/") - 1)), status, message)


async def _page(service: Service, request: Request) -> Response:
    query, status, message = PageQuery(), 200, ""
    view = View()
    started = time.perf_counter()
    with service.live.acquire() as snapshot:
        try:
            query = page_query(request.query_params, request.query_params.getlist("part"))
            if (changed := added(query, request.query_params.multi_items())) is not None:
                return RedirectResponse(changed.link(), status_code=303)
            if LINKED in request.scope and query.kind != "nothing":
                view = View(linked=True)
            else:
                chosen = await service.engine.run("look-up", chips, snapshot, query)
                view = View(chips=chosen)
                view = replace(await _view(service, snapshot, query, chosen), chips=chosen)
        except TwinlensError as error:
            status, message, _ = status_of(error)
        view = replace(view, seconds=time.perf_counter() - started)
        return _rendered(service, snapshot, query, view, status, message)


async def _relevance_map(service: Service, request: Request, item_id: str, version: int | None) -> Response:
    """Return an image shaded by how near its parts are to what the address searches with."""
    given = {name: value for name, value in request.query_params.items() if name not in ("show", "v")}
    with service.live.acquire() as snapshot:
        query = page_query(given, request.query_params.getlist("part"))
        if query.kind == "nothing":
            raise RefusedError(400, "there is nothing to compare the image with; give words by q")
        resolved, _ = await _resolve(service, snapshot, query)
        image = await service.engine.run("thumbnail", service.thumbnails.image_of, snapshot, item_id, "large")
        relevance = await service.engine.relevance_map(snapshot, image, resolved.vector)
        jpeg = await service.engine.run("thumbnail", shaded_jpeg, image, relevance)
        return image_answer(request, jpeg, lasting=version == snapshot.number)


async def _remember(service: Service, request: Request) -> Response:
    """Take an image, and send the browser to the address that shows what it finds."""
    fields, image = await read_form(request)
    with service.live.acquire() as snapshot:
        query = PageQuery()
        try:
            query = view_of(fields.get("view", ""))
            if image is None:
                raise RefusedError(400, "no image came with the form; drop, paste or choose one")
            name = await _keep(service, snapshot, image)
        except TwinlensError as error:
            status, message, _ = status_of(error)
            return _rendered(service, snapshot, query, View(), status, message)
    part = PagePart(kind="image", value=name)
    view = query.with_beside((*query.beside, part)) if "add" in fields else replace(query, q="").with_beside([part])
    return RedirectResponse(view.link(), status_code=303)


async def _keep(service: Service, snapshot: Snapshot, data: bytes) -> str:
    query = await service.engine.resolve(snapshot, image_part(data))
    thumbnail = await service.engine.run("image", service.thumbnails.of_query, data)
    key = snapshot.encoding.key
    return service.query_images.keep(QueryImage(vector=query.vector, fingerprint=key, thumbnail=thumbnail))


async def _view(service: Service, snapshot: Snapshot, query: PageQuery, chosen: Sequence[Chip]) -> View:
    if query.kind == "nothing":
        into = query.into or snapshot.collections[0]
        if query.where:
            await service.engine.prepare_filter(snapshot, into, query.where)
        sample = await service.engine.run("look-up", sample_section, snapshot, query, _SAMPLE)
        about = [] if query.where else await service.engine.run("look-up", topics, snapshot)
        return View(sections=[sample], topics=about, facets=snapshot.overview.facets.get(into, ()))
    resolved, subject = await _resolve(service, snapshot, query)
    into = query.into or snapshot.collections[0]
    searches = [(query, into)]
    other: Collection = "texts" if into == "images" else "images"
    if subject is not None and other in snapshot.collections and not query.offset:
        searches.append((query.with_options(k=_BESIDE, where=None), other))
    sections = await asyncio.gather(*(_section(service, snapshot, one, resolved, half) for one, half in searches))
    return View(sections=sections, subject=subject, said=_said(sections[0], query, chosen))


async def _resolve(service: Service, snapshot: Snapshot, query: PageQuery) -> tuple[ResolvedQuery, Subject | None]:
    if query.kind == "composed":
        return await _composed(service, snapshot, query), None
    if query.kind == "text":
        return await service.engine.resolve(snapshot, text_part(query.q)), None
    if query.kind == "item":
        resolved = await service.engine.resolve(snapshot, item_part(query.item, query.of))
        return resolved, await service.engine.run("look-up", _item_subject, snapshot, resolved)
    shown = Subject(title="Your image", image=f"images/{quote(query.image, safe='')}")
    return _remembered(service, snapshot, query.image), shown


async def _composed(service: Service, snapshot: Snapshot, query: PageQuery) -> ResolvedQuery:
    """Return everything that is searched with as one vector."""
    queries = [await _resolved_part(service, snapshot, part) for part in query.every[: MOST_PARTS + 1]]
    request = SearchRequest(into=query.into, parts=tuple(one.part for one in queries))
    return await service.engine.run("look-up", snapshot.searcher.composed, request, queries)


async def _resolved_part(service: Service, snapshot: Snapshot, part: PagePart) -> ResolvedQuery:
    if part.kind == "image":
        query = _remembered(service, snapshot, part.value)
    elif part.kind == "text":
        query = await service.engine.resolve(snapshot, text_part(part.value))
    else:
        collection = None if part.kind == "item" else part.kind
        query = await service.engine.resolve(snapshot, item_part(part.value, collection))
    return query._replace(part=replace(query.part, weight=part.weight))


def _remembered(service: Service, snapshot: Snapshot, name: str) -> ResolvedQuery:
    image = service.query_images.find(name)
    if image is None or image.fingerprint != snapshot.encoding.key:
        raise RefusedError(404, _GONE)
    return ResolvedQuery(image_part(image.thumbnail.data), image.vector, "image")


def _item_subject(snapshot: Snapshot, query: ResolvedQuery) -> Subject:
    """Return an item as the page shows it above what is like it, with what the corpus pairs it with."""
    collection, row = query.row or ("images", 0)
    (entry,) = snapshot.entries(collection, [row])
    card = entry_card(snapshot, collection, entry, "large")
    if collection == "texts":
        return Subject(title="This text", card=card)
    partners = snapshot.partners(collection, row)[:_CAPTIONS]
    captions = [one["caption"] for one in (snapshot.entries("texts", partners) if partners else [])]
    return Subject(title="This image", card=card, captions=[text for text in captions if text])


async def _section(
    service: Service, snapshot: Snapshot, query: PageQuery, resolved: ResolvedQuery, into: Collection
) -> Section:
    limit = min(MOST_K, service.settings.max_k)
    options = {**query.options, "into": into, "k": min(query.k, limit)}
    if into != (query.into or snapshot.collections[0]):
        options.pop("sort", None)  # what is shown beside has other columns
    if not query.has_words or not snapshot.has_words:
        options.pop("hybrid", None)  # the switch stays on for the next search that has words
    request = SearchRequest(**options)
    if query.offset + request.k > service.settings.max_k:
        most = service.settings.max_k
        raise RefusedError(400, f"offset={query.offset} reaches beyond this server's limit of {most} hits")
    request = replace(request, exact=True) if query.kind == "composed" else request
    hits = await service.engine.hits(snapshot, request, resolved)
    title = {"images": "Images", "texts": "Texts"}[into] if query.kind in ("text", "composed") else _TITLES[into]
    if resolved.modality == "text" and query.kind == "item":
        title = {"images": "Matching images", "texts": "Texts like this"}[into]
    return hit_section(snapshot, hits, title, query, **_page_links(query, request, len(hits), service.settings.max_k))


def _page_links(query: PageQuery, request: SearchRequest, shown: int, most: int) -> dict[str, str]:
    """Return the addresses of the pages before and after one, and of it and the next as one."""
    if query.k == _BESIDE:
        return {}
    end = request.offset + request.k
    # With a floor of probability a page may have fewer hits, and the next one some all the same.
    is_last = (shown < request.k and request.min_probability is None) or not shown or end + request.k > most
    return {
        "before": query.link(offset=max(0, request.offset - request.k) or None) if request.offset else "",
        "more": "" if is_last else query.link(offset=end),
        "longer": "" if is_last or end + request.k > MOST_K else query.link(k=end + request.k, offset=None),
    }


def _said(section: Section, query: PageQuery, chosen: Sequence[Chip]) -> str:
    """Return what was found, in words; a screen reader says it first."""
    count = len(section.cards)
    what = {"images": "image", "texts": "text"}[section.collection] + ("" if count == 1 else "s")
    parts = [query.q] if query.q else []
    parts += [f"{'+' if chip.wanted else '−'} {chip.label}" for chip in chosen]
    composed = f" for “{' '.join(parts).removeprefix('+ ')}”"
    subject = {"item": " like this", "image": " like yours"}.get(query.kind, composed)
    number = f"{query.offset + 1} to {query.offset + count}" if query.offset and count else str(count)
    return f"{number}{' of the' if query.offset else ''} {what}{subject}"


def _rendered(
    service: Service, snapshot: Snapshot, query: PageQuery, view: View, status: int, message: str
) -> Response:
    into = query.into if query.into in snapshot.collections else snapshot.collections[0]
    dated = snapshot.is_dated(into)
    nonce = secrets.token_urlsafe(12)
    offers = {NEWEST: dated, WORDS: snapshot.has_words}
    context: dict[str, Any] = {
        "name": service.live.name,
        "version": snapshot.number,
        "query": query,
        "view": view,
        "nonce": nonce,
        "error": service.hide(" ".join(message.split())),
        "into": into,
        "collections": snapshot.collections,
        "counts": {name: snapshot.count(name) for name in snapshot.collections},
        "columns": {name: columns_of(snapshot, name) for name in snapshot.collections},
        "switches": [one for one in query.switches if one[3] or offers.get(one[1], True)],
        "dated": dated,
        "can_encode": snapshot.encoding.state in ("loading", "ready"),
    }
    headers = {"Content-Security-Policy": _POLICY.format(nonce=nonce), "Cache-Control": "private, no-cache"}
    body = page_template().render(context).encode("utf-8", errors="replace")
    return Response(body, status, headers={**headers, "Content-Type": "text/html; charset=utf-8"})
