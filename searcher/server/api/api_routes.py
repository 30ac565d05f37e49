"""The routes of the HTTP API: search, items, thumbnails and health, and what /openapi.json says of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.convertors import PathConvertor, register_url_convertor

from storage.schema import Collection, Direction

from ...hits import Hits, plain
from ...query import QueryPart
from ...request import PARAMETERS, SearchRequest, body_schema
from ..engine import Service
from ..errors import RETRY
from ..image_cache import Size
from ..metrics import CONTENT_TYPE
from ..snapshot import HIDDEN_COLUMNS, Snapshot
from .answer_models import HealthAnswer, ItemAnswer, ReadyAnswer, SearchAnswer, SearchAnswers, answers
from .answers import image_answer, json_answer
from .cursors import at_cursor, next_cursor
from .multi_search import search_all
from .request_bodies import Asked, limited, read_body, read_url

_JPEG: dict[int | str, dict[str, Any]] = {**answers(None), 200: {"content": {"image/jpeg": {}}}}
_HEALTH: dict[int | str, dict[str, Any]] = {200: {"model": HealthAnswer}}
_READY: dict[int | str, dict[str, Any]] = {200: {"model": ReadyAnswer}, 503: {"model": ReadyAnswer}}
_NOT_READY = {
    "loading": "the encoder is being loaded",
    "failed": "the encoder cannot be loaded, the log says why; it is tried again every half minute",
}
_FILE = {"type": "string", "format": "binary"}
_FORM = body_schema(vector=False)
_FORM["properties"]["image"] = _FILE
_CURSOR = {"type": "string", "description": "What the answer before gave, for the next page of the same search."}
_FORM["properties"]["cursor"] = _CURSOR
_ONE = body_schema(vector=True)
_SEVERAL = {
    "type": "array",
    "minItems": 1,
    "items": {"anyOf": [{"type": "string"}, _ONE]},
    "description": "Several searches, each a text or an object with what else stands here; what stands beside "
    "`queries` holds for each that says nothing else. All are answered, in their order, or none.",
}
_JSON = {**_ONE, "properties": {**_ONE["properties"], "cursor": _CURSOR, "queries": _SEVERAL}}
_URL = [
    {"name": name, "in": "query", "required": False, "schema": schema}
    for name, schema in {**{name: one.json_schema() for name, one in PARAMETERS.items()}, "cursor": _CURSOR}.items()
]
_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": _JSON},
        "multipart/form-data": {"schema": _FORM},
        "image/*": {"schema": _FILE},
    },
}


class _ItemIds(PathConvertor):
    """Item ids in a path: whatever is left of it, line ends too, which the usual pattern stops at."""

    regex = r"[\s\S]*"


register_url_convertor("item_id", _ItemIds())
# All that may stand in a path after these is an item id.
ITEM_PATHS = ("/items/", "/thumbnails/")

Where = Annotated[Collection | None, Query(description="Where the item is; by default images, else texts.")]
ThumbnailSize = Annotated[Size, Query(description="small fits into 480 x 360, large into 1280 x 960.")]


def search_routes(service: Service) -> APIRouter:
    """Return the routes of `/search`."""
    router = APIRouter(tags=["search"])

    @router.get(
        "/search",
        summary="Search by text or by item",
        responses=answers(SearchAnswer),
        openapi_extra={"parameters": _URL},
    )
    async def search(request: Request) -> Response:
        return await _searched(service, read_url(request, service.settings))

    @router.post(
        "/search",
        summary="Search by image, vector, text or item",
        responses=answers(SearchAnswer | SearchAnswers),
        openapi_extra={"requestBody": _BODY},
    )
    async def search_posted(request: Request) -> Response:
        asked = await read_body(request, service.settings)
        return await (_searched_all(service, asked) if isinstance(asked, list) else _searched(service, asked))

    return router


def item_routes(service: Service) -> APIRouter:
    """Return the routes of items and thumbnails; an id may stand in the path, or after `?id=`."""
    router = APIRouter(tags=["items"])

    @router.get("/items", summary="One item", responses=answers(ItemAnswer))
    @router.get("/items/{id:item_id}", include_in_schema=False)
    async def item(id: str, collection: Where = None) -> Response:
        with service.live.acquire() as snapshot:
            return json_answer(await service.engine.run("look-up", item_facts, snapshot, id, collection))

    @router.get("/thumbnails", summary="The thumbnail of an image", response_class=Response, responses=_JPEG)
    @router.get("/thumbnails/{id:item_id}", include_in_schema=False)
    async def thumbnail(request: Request, id: str, size: ThumbnailSize = "small", v: int | None = None) -> Response:
        with service.live.acquire() as snapshot:
            jpeg = service.thumbnails.known(snapshot, id, size)
            if jpeg is None:
                jpeg = await service.engine.run("thumbnail", service.thumbnails.of_item, snapshot, id, size)
            return image_answer(request, jpeg, lasting=v == snapshot.number)

    return router


def state_routes(service: Service) -> APIRouter:
    """Return the routes for those who watch the server."""
    router = APIRouter(tags=["state"])

    summary = "Whether it answers, from which version, and whether texts can be encoded"

    @router.get("/healthz", summary=summary, responses=_HEALTH)
    async def health() -> Response:
        return json_answer(_health(service))

    @router.get("/readyz", summary="Whether it answers texts too; 503 while it does not", responses=_READY)
    async def ready() -> Response:
        readiness = _readiness(service)
        return json_answer(readiness, *(() if readiness["status"] == "ready" else (503, RETRY)))

    @router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def counters() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return router


def _health(service: Service) -> dict[str, Any]:
    snapshot = service.live.current
    return {"status": "ok", "version": snapshot.number, "encoder": snapshot.encoding.state}


def _readiness(service: Service) -> dict[str, Any]:
    """Return whether requests should be sent here, and why not; to anybody, so without what is wrong in detail."""
    snapshot = service.live.current
    state = snapshot.encoding.state
    reason = _NOT_READY.get(state)
    if reason is None and (number := service.live.failed_version) is not None:
        reason = f"version {number} was published and cannot be opened, the log says why; {snapshot.number} is served"
    return {
        "status": "not ready" if state in _NOT_READY else "ready",
        "version": snapshot.number,
        "encoder": state,
        "reason": reason,
    }


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


def _shown_part(part: QueryPart) -> dict[str, Any]:
    return {"kind": part.kind} | ({part.kind: part.content} if part.kind in ("text", "item", "words") else {})


async def _searched(service: Service, asked: Asked) -> Response:
    started = time.perf_counter()
    with service.live.acquire() as snapshot:
        search = limited(at_cursor(snapshot, asked.search, asked.cursor), service.settings)
        direction, hits = await service.engine.search(snapshot, search)
        answer = {"version": snapshot.number, **_answer(service, snapshot, search, direction, hits)}
    return json_answer({**answer, "ms": _ms_since(started)})


async def _searched_all(service: Service, searches: Sequence[SearchRequest]) -> Response:
    started = time.perf_counter()
    with service.live.acquire() as snapshot:
        found = await search_all(service.engine, snapshot, searches)
        answered = [_answer(service, snapshot, one, *hits) for one, hits in zip(searches, found, strict=True)]
    return json_answer({"version": snapshot.number, "answers": answered, "ms": _ms_since(started)})


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 3)


def _answer(
    service: Service, snapshot: Snapshot, search: SearchRequest, direction: Direction, hits: Hits
) -> dict[str, Any]:
    if search.is_composed:
        parts = [{**_shown_part(part), "weight": part.weight} for part in search.parts]
        query: dict[str, Any] = {"kind": "composed", "parts": parts}
    else:
        query = _shown_part(search.part)
    return {
        "query": query,
        "direction": direction,
        "k": search.k,
        "offset": search.offset,
        "where": search.where,
        "min_score": search.min_score,
        "min_probability": search.min_probability,
        "nothing_fits": hits.nothing_fits,
        "words": hits.words,
        "hits": [shown_entry(hit.to_json()) for hit in hits],
        "ann": hits.ann,
        "cursor": next_cursor(snapshot, search, len(hits), service.settings.max_k),
    }
