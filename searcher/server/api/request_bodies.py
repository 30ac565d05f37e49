"""How requests are read: URLs, JSON, forms and image files, within limits on what a body may hold."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NamedTuple, Never

from fastapi import Request
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from ...errors import ParameterError, SearchError
from ...query import shown_value
from ...request import SearchRequest, parse_request
from ..errors import RefusedError
from ..settings import ServerSettings

FIELDS = 20
# 100,000 numbers, the longest vector, take half of this. As a million lists the same bytes would hold up every request
# for seconds while they are read, so that lists are counted first.
_LONGEST_JSON = 4 * 1024 * 1024
_MOST_LISTS, _MOST_VALUES = 10_000, 200_000
_WAYS = "send application/json, multipart/form-data with a file named image, or the image itself as image/*"


class Asked(NamedTuple):
    """One search as it came: with the cursor of the page before, where it goes on from there."""

    search: SearchRequest
    cursor: str | None = None


def read_url(request: Request, settings: ServerSettings) -> Asked:
    """Return what a search by GET asks for.

    Raises:
        SearchError: A parameter is unknown or has no such value, or there is nothing to search with.
    """
    return _asked(dict(request.query_params), settings)


async def read_body(request: Request, settings: ServerSettings) -> Asked | list[SearchRequest]:
    """Return what a search by POST asks for, a list for `queries`; where the body is the image, the rest is in the URL.

    Raises:
        SearchError: As by GET; and RefusedError for a body that cannot be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        values = _json(await _short_body(request))
        return _several(values, settings) if "queries" in values else _asked(values, settings)
    if kind == "multipart/form-data":
        fields, image = await read_form(request)
        return _asked(fields, settings, image)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return _asked(dict(request.query_params), settings, await request.body())
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


def _asked(values: Mapping[str, Any], settings: ServerSettings, image: bytes | None = None) -> Asked:
    cursor = values.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise ParameterError(f"cursor={shown_value(cursor)} must be a text, as an answer has it")
    if cursor is not None and values.get("offset") is not None:
        raise RefusedError(400, "offset and cursor both say where the page begins; leave one of them out")
    search = parse_request({name: value for name, value in values.items() if name != "cursor"}, image)
    return Asked(limited(search, settings), cursor)


def _several(values: Mapping[str, Any], settings: ServerSettings) -> list[SearchRequest]:
    """Return the searches of `queries`; what stands beside it holds for each that says nothing else."""
    queries = values["queries"]
    if not isinstance(queries, list) or not 1 <= len(queries) <= settings.batch:
        raise ParameterError(f"queries={shown_value(queries)} must be a list of 1 to {settings.batch} texts or objects")
    shared = {name: value for name, value in values.items() if name != "queries"}
    asked = [_one_of_several(number, one, shared, settings) for number, one in enumerate(queries)]
    total = sum(one.k for one in asked)
    if total > settings.max_k:
        raise RefusedError(400, f"the queries ask for {total} hits, above this server's limit of {settings.max_k}")
    return asked


def _one_of_several(number: int, value: Any, shared: Mapping[str, Any], settings: ServerSettings) -> SearchRequest:
    own = {"text": value} if isinstance(value, str) else value
    if not isinstance(own, dict):
        raise ParameterError(f"queries[{number}]={shown_value(value)} must be a text or an object")
    if shared.keys() | own.keys() >= {"cursor"}:
        raise ParameterError("a cursor is of one search; send it without queries, or page them by offset")
    try:
        return _asked({**shared, **own}, settings).search
    except ParameterError as error:
        raise ParameterError(f"queries[{number}]: {error}") from error
    except SearchError as error:
        raise RefusedError(400, f"queries[{number}]: {error}") from error


def limited(search: SearchRequest, settings: ServerSettings) -> SearchRequest:
    """Return a search that asks for no more than the server gives.

    Raises:
        RefusedError: It asks for more hits, or for hits further down.
    """
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
