"""The API: search, items, thumbnails, health, metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from storage.schema import Collection, Direction

from ..hits import Hits, plain
from ..request import PARAMETERS, SearchRequest, body_schema
from .engine import Service
from .image_cache import Jpeg, Size
from .messages import json_answer, read_body, read_url
from .metrics import CONTENT_TYPE
from .snapshot import HIDDEN_COLUMNS, Snapshot

_ERROR = {
    "description": "What is wrong, in one line",
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
        }
    },
}
_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": _ERROR, 503: _ERROR}
_JPEG: dict[int | str, dict[str, Any]] = {**_ERRORS, 200: {"content": {"image/jpeg": {}}}}
_FILE = {"type": "string", "format": "binary"}
_FORM = body_schema(vector=False)
_FORM["properties"]["image"] = _FILE
_URL = [
    {"name": name, "in": "query", "required": False, "description": option.help, "schema": option.json_schema()}
    for name, option in PARAMETERS.items()
]
_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": body_schema(vector=True)},
        "multipart/form-data": {"schema": _FORM},
        "image/*": {"schema": _FILE},
    },
}

ItemId = Annotated[str, Query(alias="id", max_length=10_000, description="An item id.")]
Where = Annotated[Collection | None, Query(description="Where the item is; by default images, else texts.")]
ThumbnailSize = Annotated[Size, Query(description="small fits into 480 x 360, large into 1280 x 960.")]


def search_routes(service: Service) -> APIRouter:
    """Return the routes of `/search`."""
    router = APIRouter(tags=["search"])

    @router.get("/search", summary="Search by text or by item", responses=_ERRORS, openapi_extra={"parameters": _URL})
    async def search(request: Request) -> Response:
        return await _searched(service, read_url(request, service.settings))

    @router.post(
        "/search",
        summary="Search by image, vector, text or item",
        responses=_ERRORS,
        openapi_extra={"requestBody": _BODY},
    )
    async def search_posted(request: Request) -> Response:
        return await _searched(service, await read_body(request, service.settings))

    return router


def item_routes(service: Service) -> APIRouter:
    """Return the routes of items and thumbnails; an id may stand in the path, or after `?id=` whatever is in it."""
    router = APIRouter(tags=["items"])

    @router.get("/items", summary="One item", responses=_ERRORS)
    @router.get("/items/{id:path}", include_in_schema=False)
    async def item(id: str, collection: Where = None) -> Response:
        with service.live.acquire() as snapshot:
            return json_answer(await service.engine.run("look-up", item_facts, snapshot, id, collection))

    @router.get("/thumbnails", summary="The thumbnail of an image", response_class=Response, responses=_JPEG)
    @router.get("/thumbnails/{id:path}", include_in_schema=False)
    async def thumbnail(request: Request, id: str, size: ThumbnailSize = "small", v: int | None = None) -> Response:
        with service.live.acquire() as snapshot:
            jpeg = await service.engine.run("image", service.thumbnails.of_item, snapshot, id, size)
            return image_answer(request, jpeg, lasting=v == snapshot.number)

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


def image_answer(request: Request, jpeg: Jpeg, *, lasting: bool) -> Response:
    """Return an image; to a browser that has it already, only that it has."""
    age = "private, max-age=86400, immutable" if lasting else "private, no-cache"
    headers = {"ETag": jpeg.etag, "Cache-Control": age}
    if request.headers.get("if-none-match") == jpeg.etag:
        return Response(status_code=304, headers=headers)
    return Response(jpeg.data, media_type="image/jpeg", headers=headers)


def item_facts(snapshot: Snapshot, item_id: str, collection: Collection | None) -> dict[str, Any]:
    """Return what callers may know of an item, its partners in the corpus included.

    Raises:
        ItemNotFoundError: There is no such item.
    """
    half, row = snapshot.find(item_id, collection)
    (entry,) = snapshot.entries(half, [row])
    other: Collection = "texts" if half == "images" else "images"
    partners = snapshot.partners(half, row)[:100]
    pairs = [
        {"item_id": one["item_id"], "caption": one["caption"]}
        for one in (snapshot.entries(other, partners) if partners else [])
    ]
    return {"version": snapshot.number, "collection": half, **shown_entry(entry), "pairs": pairs}


def shown_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a catalog entry or hit that may leave, in JSON's own types."""
    return {name: plain(value) for name, value in entry.items() if name not in HIDDEN_COLUMNS and name != "row_id"}


async def _searched(service: Service, search: SearchRequest) -> Response:
    started = time.perf_counter()
    with service.live.acquire() as snapshot:
        direction, hits = await service.engine.search(snapshot, search)
        answer = _answer(snapshot, search, direction, hits)
    answer["ms"] = round((time.perf_counter() - started) * 1e3, 3)
    return json_answer(answer)


def _answer(snapshot: Snapshot, search: SearchRequest, direction: Direction, hits: Hits) -> dict[str, Any]:
    part = search.part
    query = {"kind": part.kind} | ({part.kind: part.content} if part.kind in ("text", "item") else {})
    return {
        "version": snapshot.number,
        "query": query,
        "direction": direction,
        "k": search.k,
        "where": search.where,
        "hits": [shown_entry(hit.to_json()) for hit in hits],
        "ann": hits.ann,
    }
