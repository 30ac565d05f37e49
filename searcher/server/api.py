"""The HTTP API: how requests are read and errors answered, and the routes of search, items, thumbnails and health."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Never
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from encoders.errors import EncoderError
from storage.errors import SearchParameterError
from storage.schema import Collection, Direction

from ..client import option_text
from ..errors import EncoderMismatchError, ItemNotFoundError, ParameterError, SearcherClosedError, SearchError
from ..hits import Hits, plain
from ..query import QueryPart
from ..request import OPTIONS, PARAMETERS, PARTS, SearchRequest, body_schema, parse_request
from .engine import Service
from .errors import RETRY, RefusedError
from .image_cache import Jpeg, Size
from .metrics import CONTENT_TYPE
from .settings import ServerSettings
from .snapshot import HIDDEN_COLUMNS, Snapshot

FIELDS = 20
# 100,000 numbers, the longest vector, take half of this. As a million lists the same bytes would hold up every request
# for seconds while they are read, so that lists are counted first.
_LONGEST_JSON = 4 * 1024 * 1024
_MOST_LISTS, _MOST_VALUES = 10_000, 200_000
_WAYS = "send application/json, multipart/form-data with a file named image, or the image itself as image/*"


def read_url(request: Request, settings: ServerSettings) -> SearchRequest:
    """Return what a search by GET asks for.

    Raises:
        SearchError: A parameter is unknown or has no such value, or there is nothing to search with.
    """
    return _limited(parse_request(dict(request.query_params)), settings)


async def read_body(request: Request, settings: ServerSettings) -> SearchRequest:
    """Return what a search by POST asks for; where the body is the image, the rest stands in the URL.

    Raises:
        SearchError: As by GET; and RefusedError for a body that cannot be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _limited(parse_request(_json(await _short_body(request))), settings)
    if kind == "multipart/form-data":
        fields, image = await read_form(request)
        return _limited(parse_request(fields, image), settings)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return _limited(parse_request(dict(request.query_params), await request.body()), settings)
    raise RefusedError(415, f"a search cannot have a body of type {kind[:80]!r}; {_WAYS}")


async def _short_body(request: Request) -> bytes:
    """Return a body that has no more bytes than JSON may have; what is announced as more is not read."""
    stated = request.headers.get("content-length", "")
    if (
        not (stated.isdecimal() and int(stated[:20]) > _LONGEST_JSON)
        and len(body := await request.body()) <= _LONGEST_JSON
    ):
        return body
    raise RefusedError(413, f"the JSON body has more than {_LONGEST_JSON} bytes; the longest vector has fewer")


def _limited(search: SearchRequest, settings: ServerSettings) -> SearchRequest:
    if search.k > settings.max_k:
        raise RefusedError(400, f"k={search.k} is above this server's limit of {settings.max_k}; ask for fewer")
    if search.offset + search.k > settings.max_k:
        reach = f"offset={search.offset} and k={search.k} reach beyond this server's limit of {settings.max_k} hits"
        raise RefusedError(400, f"{reach}; narrow the search by where")
    return search


async def read_form(request: Request) -> tuple[dict[str, str], bytes | None]:
    """Return the fields of a form, empty ones left out, and the image; None where none was chosen.

    Raises:
        RefusedError: 400, it is no whole form, has too many fields, or a file under another name than `image`.
    """
    body = await request.body()
    form = await _parsed(request.headers.get("content-type", ""), body)
    fields: dict[str, str] = {}
    image: bytes | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            image = await _file(name, value, image)
        elif value:
            fields[name] = value
    return fields, image


async def _file(name: str, file: UploadFile, before: bytes | None) -> bytes | None:
    data = await file.read()
    await file.close()
    if not data and not file.filename:
        return before  # what a browser sends where no file was chosen
    if name != "image" or before is not None:
        raise RefusedError(400, f"the form has a file {name[:80]!r}; give one image, under the name image")
    return data


async def _parsed(content_type: str, body: bytes) -> FormData:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    headers = Headers({"content-type": content_type})
    try:
        if content_type.lower().startswith("multipart/"):
            parser = MultiPartParser(headers, stream(), max_files=1, max_fields=FIELDS, max_part_size=200_000)
            parser.spool_max_size = len(body) + 1  # stays in memory, nothing is written to disk
            return await parser.parse()
        return await FormParser(headers, stream(), max_fields=FIELDS, max_part_size=200_000).parse()
    except (MultiPartException, ValueError) as error:
        detail = error.message if isinstance(error, MultiPartException) else str(error)
        raise RefusedError(400, f"the form cannot be read: {detail}") from error


def _json(body: bytes) -> dict[str, Any]:
    if body.count(b"[") + body.count(b"{") > _MOST_LISTS or body.count(b",") > _MOST_VALUES:
        raise RefusedError(
            400, "the JSON body has too many lists or values, or is nested too deeply; give one flat object"
        )
    try:
        value = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_no_name_twice)
    except RecursionError as error:
        raise RefusedError(400, "the JSON body is nested too deeply; give one flat object") from error
    except ValueError as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RefusedError(400, f"the JSON body is of type {type(value).__name__}; give one object")
    return value


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number of JSON")


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands in one object twice")
    return value


USUAL_K = 24
MOST_K = 384
_PARTS = ("q", "item", "of", "image")


@dataclass(frozen=True, kw_only=True)
class PageQuery:
    """One view of the page, as its address says it.

    Attributes:
        q: Words to search with; they go before an item or an image.
        item: An item id to search with.
        of: The collection of `item`.
        image: The name of a query image that the server remembers.
        options: The options of the search, by their names in `SearchRequest`.
    """

    q: str = ""
    item: str = ""
    of: Collection | None = None
    image: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What is searched with: `text`, `item`, `image`, or `nothing`."""
        if self.q:
            return "text"
        return "item" if self.item else "image" if self.image else "nothing"

    @property
    def into(self) -> Collection | None:
        """What to look for; None for the usual."""
        return self.options.get("into")

    @property
    def where(self) -> str:
        """A filter on what is looked for; empty for none."""
        return str(self.options.get("where", ""))

    @property
    def k(self) -> int:
        """Hits wanted."""
        return int(self.options.get("k", USUAL_K))

    @property
    def hidden_fields(self) -> list[tuple[str, str]]:
        """Name and value of the options that a new search keeps and that have no field of their own on the page."""
        return [(name, option_text(self.options[name])) for name in self.options if name not in ("into", "where", "k")]

    def with_options(self, **changes: Any) -> PageQuery:
        """Return the view with some options changed; None or an empty text takes one away."""
        options = {name: value for name, value in {**self.options, **changes}.items() if value not in (None, "")}
        return replace(self, options=options)

    def link(self, **changes: Any) -> str:
        """Return the relative address of this view with some things changed, an option or what is searched with."""
        parts = {name: changes.pop(name) for name in _PARTS if name in changes}
        view = replace(self, **parts).with_options(**changes)
        values = {name: getattr(view, name) for name in _PARTS} | dict(view.options)
        given = {
            name: option_text(value) for name, value in values.items() if value and (name, value) != ("k", USUAL_K)
        }
        return "?" + urlencode(given, errors="replace") if given else "./"


def page_query(given: Mapping[str, str]) -> PageQuery:
    """Return the view that an address asks for; names that are not known are left out, links grow such.

    Raises:
        ParameterError: A value cannot be used.
        RefusedError: More hits are wanted than the page shows.
    """
    texts = {name: value.strip() for name, value in given.items() if value.strip()}
    options = {name: option.parse(name, texts[name]) for name, option in OPTIONS.items() if name in texts}
    if options.get("k", 1) > MOST_K:
        raise RefusedError(400, f"k={options['k']} must be a whole number from 1 to {MOST_K} on the page")
    return PageQuery(
        q=texts.get("q", ""),
        item=given.get("item", ""),
        image=given.get("image", "")[:100],
        of=PARTS["collection"].parse("of", texts["of"]) if "of" in texts else None,
        options=options,
    )


_LONGEST = 600


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as one line of JSON; texts that are no Unicode show the replacement sign."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode("utf-8", errors="replace") + b"\n"
    return Response(body, status, headers=headers, media_type="application/json")


def error_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return `{"error": message}`, the message on one line."""
    return json_answer({"error": one_line(message)}, status, headers)


def one_line(message: str) -> str:
    """Return a message on one line of bounded length."""
    line = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(message.split()))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


NO_ROUTE = "there is nothing at this address; /openapi.json lists what there is"
_BROKEN = "the server could not answer this; its log says why"


def status_of(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Return status, message and headers for whatever went wrong."""
    if isinstance(error, RefusedError):
        return error.status, str(error), error.headers
    if isinstance(error, RequestValidationError):
        return 422, _wrong_fields(error.errors()), {}
    if isinstance(error, HTTPException):
        return error.status_code, _plain_words(error), dict(error.headers or {})
    if isinstance(error, SearcherClosedError):
        return 503, "the server is about to stop; try again in a second", RETRY
    if isinstance(error, ClientDisconnect):
        return 400, "the body ended before it was whole", {}
    if isinstance(error, MemoryError):
        return 503, "not enough memory for this request; ask for less, or later", RETRY
    if isinstance(error, (ParameterError, ItemNotFoundError)):
        return (422 if isinstance(error, ParameterError) else 404), str(error), {}
    own_fault = isinstance(error, (EncoderError, EncoderMismatchError))
    if isinstance(error, (SearchError, SearchParameterError)) and not own_fault:
        return 400, str(error), {}
    return 500, _BROKEN, {}


def _plain_words(error: HTTPException) -> str:
    if error.status_code == 404:
        return NO_ROUTE
    if error.status_code == 405:
        allowed = dict(error.headers or {}).get("Allow", "GET")
        return f"this method does not work here; use {allowed}"
    return str(error.detail)


def _wrong_fields(errors: Any) -> str:
    """Return what is wrong with parameters, on one line; the first three of them."""
    return "; ".join(_wrong_field(error) for error in list(errors)[:3])


def _wrong_field(error: dict[str, Any]) -> str:
    location = [str(part) for part in error.get("loc", ()) if part not in ("query", "body", "path")]
    value = repr(error.get("input"))
    shown = value if len(value) <= 60 else value[:57] + "..."
    message = str(error.get("msg", "cannot be used"))
    return f"{'.'.join(location)[:80] or 'the request'}={shown}: {message[:1].lower()}{message[1:]}"


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
    """Return the routes of items and thumbnails; an id may stand in the path, or after `?id=`."""
    router = APIRouter(tags=["items"])

    @router.get("/items", summary="One item", responses=_ERRORS)
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

    @router.get("/healthz", summary="Whether it answers, from which version, and whether texts can be encoded")
    async def health() -> Response:
        return json_answer(_health(service))

    @router.get("/readyz", summary="The same; 503 until texts can be encoded, or it is clear that they cannot")
    async def ready() -> Response:
        health = _health(service)
        return json_answer(health, 503, RETRY) if health["encoder"] == "loading" else json_answer(health)

    @router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def counters() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return router


def _health(service: Service) -> dict[str, Any]:
    snapshot = service.live.current
    return {"status": "ok", "version": snapshot.number, "encoder": snapshot.encoding.state}


def image_answer(request: Request, jpeg: Jpeg, *, lasting: bool) -> Response:
    """Return an image; to a browser that has it already, only that it has."""
    age = "private, max-age=86400, immutable" if lasting else "private, no-cache"
    headers = {"ETag": jpeg.etag, "Cache-Control": age}
    if has_already(request, jpeg.etag):
        return Response(status_code=304, headers=headers)
    return Response(jpeg.data, media_type="image/jpeg", headers=headers)


def has_already(request: Request, etag: str) -> bool:
    """Whether a browser says that it has what an entity tag names; a proxy that compresses makes the tag a weak one."""
    known = [tag.strip().removeprefix("W/") for tag in ",".join(request.headers.getlist("if-none-match")).split(",")]
    return etag in known or known == ["*"]


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
    return {"kind": part.kind} | ({part.kind: part.content} if part.kind in ("text", "item") else {})


async def _searched(service: Service, search: SearchRequest) -> Response:
    started = time.perf_counter()
    with service.live.acquire() as snapshot:
        direction, hits = await service.engine.search(snapshot, search)
        answer = _answer(snapshot, search, direction, hits)
    answer["ms"] = round((time.perf_counter() - started) * 1e3, 3)
    return json_answer(answer)


def _answer(snapshot: Snapshot, search: SearchRequest, direction: Direction, hits: Hits) -> dict[str, Any]:
    if search.is_composed:
        parts = [{**_shown_part(part), "weight": part.weight} for part in search.parts]
        query: dict[str, Any] = {"kind": "composed", "parts": parts}
    else:
        query = _shown_part(search.part)
    return {
        "version": snapshot.number,
        "query": query,
        "direction": direction,
        "k": search.k,
        "offset": search.offset,
        "where": search.where,
        "min_score": search.min_score,
        "hits": [shown_entry(hit.to_json()) for hit in hits],
        "ann": hits.ann,
    }
