"""The routes for programs: search, items, thumbnails, health, metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from storage.schema import Collection, Direction

from ..hits import Hits, plain
from .engine import Service
from .image_cache import Picture, Size
from .live_index import HIDDEN_COLUMNS, Generation
from .metrics import CONTENT_TYPE
from .requests import Question, SearchBody, SearchQuery, question_of, read_question
from .responses import json_answer

_ERROR = {
    "description": "What is wrong, in one line",
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
        }
    },
}
_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": _ERROR, 503: _ERROR}
_PICTURE: dict[int | str, dict[str, Any]] = {**_ERRORS, 200: {"content": {"image/jpeg": {}}}}
_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "properties": {
        "image": _FILE,
        "k": {"type": "integer"},
        "where": {"type": "string"},
        "direction": {"type": "string"},
        "ann_recall": {"type": "number"},
    },
}

ItemId = Annotated[str, Query(alias="id", max_length=10_000, description="An item id.")]
Where = Annotated[Collection | None, Query(description="Where the item is; by default images, else texts.")]
Wanted = Annotated[Size, Query(description="small fits into 480 x 360, large into 1280 x 960.")]


def search_routes(service: Service) -> APIRouter:
    """Return the routes of `/search`."""
    router = APIRouter(tags=["search"])

    @router.get("/search", summary="Search by text or by item", responses=_ERRORS)
    async def search(asked: Annotated[SearchQuery, Query()]) -> Response:
        return await _found(service, question_of(asked, service.settings.max_k))

    body = {
        "required": True,
        "content": {
            "application/json": {"schema": SearchBody.model_json_schema()},
            "multipart/form-data": {"schema": _FORM},
            "image/*": {"schema": _FILE},
        },
    }

    @router.post(
        "/search",
        summary="Search by picture, vector, text or item",
        responses=_ERRORS,
        openapi_extra={"requestBody": body},
    )
    async def search_posted(request: Request) -> Response:
        return await _found(service, await read_question(request, service.settings))

    return router


def item_routes(service: Service) -> APIRouter:
    """Return the routes of items and thumbnails; an id may stand in the path, or after `?id=` whatever is in it."""
    router = APIRouter(tags=["items"])

    @router.get("/items", summary="One item", responses=_ERRORS)
    @router.get("/items/{id:path}", include_in_schema=False)
    async def item(id: str, collection: Where = None) -> Response:
        with service.live.borrow() as generation:
            return json_answer(await service.engine.run("look-up", item_facts, generation, id, collection))

    @router.get("/thumbnails", summary="The small picture of an image", response_class=Response, responses=_PICTURE)
    @router.get("/thumbnails/{id:path}", include_in_schema=False)
    async def small_picture(request: Request, id: str, size: Wanted = "small", v: int | None = None) -> Response:
        with service.live.borrow() as generation:
            picture = await service.engine.run("picture", service.pictures.of_item, generation, id, size)
            return picture_answer(request, picture, lasting=v == generation.number)

    return router


def state_routes(service: Service) -> APIRouter:
    """Return the routes for those who watch the server."""
    router = APIRouter(tags=["state"])

    @router.get("/healthz", summary="Whether it answers, and from which version")
    async def health() -> Response:
        return json_answer({"status": "ok", "version": service.live.current.number})

    @router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def counters() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return router


def picture_answer(request: Request, picture: Picture, *, lasting: bool) -> Response:
    """Return a picture; to a browser that has it already, only that it has."""
    age = "private, max-age=86400, immutable" if lasting else "private, no-cache"
    headers = {"ETag": picture.etag, "Cache-Control": age}
    if request.headers.get("if-none-match") == picture.etag:
        return Response(status_code=304, headers=headers)
    return Response(picture.data, media_type="image/jpeg", headers=headers)


def item_facts(generation: Generation, item_id: str, collection: Collection | None) -> dict[str, Any]:
    """Return what callers may know of an item, its partners in the corpus included.

    Raises:
        RefusedError: 404, there is no such item.
    """
    found, row = generation.find(item_id, collection)
    (entry,) = generation.entries(found, [row])
    other: Collection = "texts" if found == "images" else "images"
    partners = generation.partners(found, row)[:100]
    pairs = [
        {"item_id": one["item_id"], "caption": one["caption"]}
        for one in (generation.entries(other, partners) if partners else [])
    ]
    return {"version": generation.number, "collection": found, **shown_entry(entry), "pairs": pairs}


def shown_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a catalog entry or hit that may leave, in JSON's own types."""
    return {name: plain(value) for name, value in entry.items() if name not in HIDDEN_COLUMNS and name != "row_id"}


async def _found(service: Service, question: Question) -> Response:
    started = time.perf_counter()
    with service.live.borrow() as generation:
        direction, hits = await service.engine.search(generation, question)
        answer = _answer(generation, question, direction, hits)
    answer["ms"] = round((time.perf_counter() - started) * 1e3, 3)
    return json_answer(answer)


def _answer(generation: Generation, question: Question, direction: Direction, hits: Hits) -> dict[str, Any]:
    asked: dict[str, Any] = {"kind": question.kind}
    if question.text is not None or question.item is not None:
        asked[question.kind] = question.text if question.text is not None else question.item
    return {
        "version": generation.number,
        "query": asked,
        "direction": direction,
        "k": question.k,
        "where": question.where,
        "hits": [shown_entry(hit.to_json()) for hit in hits],
        "ann": hits.ann,
    }
