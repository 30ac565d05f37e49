"""The page: one address, rendered here, which works without a script."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any, Literal, cast

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from storage.errors import TwinlensError
from storage.spec import Collection, Direction

from .api import picture_answer
from .assets import asset_routes, page_template
from .body import read_form
from .engine import Plan, Seed
from .errors import RefusedError
from .generation import Generation
from .page_query import MOST_K, PageQuery, page_query
from .problems import status_of
from .question import Question
from .remembered import QueryPicture
from .service import Service
from .view import Section, Subject, View, columns_of, entry_card, hit_section, sample_section

_SAMPLE = 24
_BESIDE = 8
_CAPTIONS = 10
_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self' 'nonce-{nonce}'; script-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_TITLES = {"images": "More like this", "texts": "Matching texts"}
_GONE = "this server does not remember that picture any more; drop or choose it again"


def page_routes(service: Service) -> APIRouter:
    """Return the routes of the page and of what it loads."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page(request: Request) -> Response:
        return await _page(service, request)

    @router.post("/")
    async def picture_given(request: Request) -> Response:
        return await _remember(service, request)

    @router.get("/pictures/{name}")
    async def query_picture(request: Request, name: str) -> Response:
        picture = service.remembered.find(name)
        if picture is None:
            raise RefusedError(404, _GONE)
        return picture_answer(request, picture.thumbnail, lasting=True)

    router.include_router(asset_routes())
    return router


def wants_page(request: Request) -> bool:
    """Whether somebody looks with a browser, rather than a program that reads JSON."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def error_page(service: Service, request: Request, status: int, message: str) -> Response:
    """Return the page with nothing on it but an error."""
    del request
    with service.live.borrow() as generation:
        return _rendered(service, generation, PageQuery(), View(), status, message)


async def _page(service: Service, request: Request) -> Response:
    query, status, message = PageQuery(), 200, ""
    view = View()
    started = time.perf_counter()
    with service.live.borrow() as generation:
        try:
            query = page_query(request.query_params)
            view = await _view(service, generation, query)
        except TwinlensError as error:
            status, message, _ = status_of(error)
        view = View(**{**vars(view), "seconds": time.perf_counter() - started})
        return _rendered(service, generation, query, view, status, message)


async def _remember(service: Service, request: Request) -> Response:
    """Take a picture, and send the browser to the address that shows what it finds."""
    fields, picture = await read_form(request)
    with service.live.borrow() as generation:
        query = PageQuery()
        try:
            query = page_query({name: value for name, value in fields.items() if name in ("into", "where", "k")})
            if picture is None:
                raise RefusedError(400, "no picture came with the form; drop, paste or choose one")
            name = await _remembered(service, generation, picture)
        except TwinlensError as error:
            status, message, _ = status_of(error)
            return _rendered(service, generation, query, View(), status, message)
    return RedirectResponse(query.link(picture=name), status_code=303)


async def _remembered(service: Service, generation: Generation, data: bytes) -> str:
    seed = await service.engine.seed(generation, Question(picture=data))
    thumbnail = await service.engine.run("picture", service.pictures.of_query, data)
    fingerprint = generation.encoder.fingerprint if generation.encoder else ""
    return service.remembered.keep(QueryPicture(vector=seed.vector, fingerprint=fingerprint, thumbnail=thumbnail))


async def _view(service: Service, generation: Generation, query: PageQuery) -> View:
    if query.kind == "nothing":
        sample = await service.engine.run("look-up", sample_section, generation, _SAMPLE)
        return View(sections=[sample])
    seed, subject = await _seed(service, generation, query)
    into = query.into or generation.collections[0]
    wanted = [(query, into)]
    other: Collection = "texts" if into == "images" else "images"
    if subject is not None and other in generation.collections:
        wanted.append((PageQuery(**{**vars(query), "k": _BESIDE, "where": ""}), other))
    sections = await asyncio.gather(*(_section(service, generation, one, seed, half) for one, half in wanted))
    return View(sections=sections, subject=subject, said=_said(sections[0], query))


async def _seed(service: Service, generation: Generation, query: PageQuery) -> tuple[Seed, Subject | None]:
    if query.kind == "text":
        return await service.engine.seed(generation, Question(text=query.q)), None
    if query.kind == "item":
        seed = await service.engine.seed(generation, Question(item=query.item, collection=query.of))
        return seed, await service.engine.run("look-up", _item_subject, generation, seed)
    picture = service.remembered.find(query.picture)
    fingerprint = generation.encoder.fingerprint if generation.encoder else ""
    if picture is None or picture.fingerprint != fingerprint:
        raise RefusedError(404, _GONE)
    shown = Subject(title="Your picture", picture=f"pictures/{query.picture}")
    return Seed(vector=picture.vector, modality="image"), shown


def _item_subject(generation: Generation, seed: Seed) -> Subject:
    """Return an item as the page shows it above what is like it, with what the corpus pairs it with."""
    collection, row = seed.origin or ("images", 0)
    (entry,) = generation.entries(collection, [row])
    card = entry_card(generation, collection, entry, "large")
    if collection == "texts":
        return Subject(title="This text", card=card)
    partners = generation.partners(collection, row)[:_CAPTIONS]
    captions = [one["caption"] for one in (generation.entries("texts", partners) if partners else [])]
    return Subject(title="This picture", card=card, captions=[text for text in captions if text])


async def _section(service: Service, generation: Generation, query: PageQuery, seed: Seed, into: Collection) -> Section:
    modality: Literal["text", "image"] = seed.modality or "image"
    direction = cast("Direction", f"{modality}_to_{into.removesuffix('s')}")
    most = min(MOST_K, service.settings.max_k)
    plan = Plan(direction=direction, k=min(query.k, most), where=query.where or None)
    hits = await service.engine.hits(generation, seed, plan)
    title = {"images": "Pictures", "texts": "Texts"}[into] if query.kind == "text" else _TITLES[into]
    if modality == "text" and query.kind == "item":
        title = {"images": "Matching pictures", "texts": "Texts like this"}[into]
    whole = len(hits) == plan.k and plan.k < most and query.k != _BESIDE
    return hit_section(generation, hits, title, query.link(k=min(2 * plan.k, most)) if whole else "", query)


def _said(section: Section, query: PageQuery) -> str:
    """Return what was found, in words; a screen reader says it first."""
    count = len(section.cards)
    what = {"images": "picture", "texts": "text"}[section.collection] + ("" if count == 1 else "s")
    asked = {"text": f" for “{query.q}”", "item": " like this", "picture": " like yours"}[query.kind]
    return f"{count} {what}{asked}"


def _rendered(
    service: Service, generation: Generation, query: PageQuery, view: View, status: int, message: str
) -> Response:
    into = query.into if query.into in generation.collections else generation.collections[0]
    nonce = secrets.token_urlsafe(12)
    context: dict[str, Any] = {
        "name": service.live.name, "version": generation.number, "query": query, "view": view, "nonce": nonce,
        "error": service.hide(" ".join(message.split())), "into": into, "collections": generation.collections,
        "counts": {name: generation.count(name) for name in generation.collections},
        "columns": {name: columns_of(generation, name) for name in generation.collections},
        "can_encode": generation.encoder is not None,
    }  # fmt: skip
    headers = {"Content-Security-Policy": _POLICY.format(nonce=nonce), "Cache-Control": "private, no-cache"}
    body = page_template().render(context).encode("utf-8", errors="replace")
    return Response(body, status, headers={**headers, "Content-Type": "text/html; charset=utf-8"})
