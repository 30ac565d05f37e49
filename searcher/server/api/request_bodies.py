"""How requests are read: URLs, JSON, forms and image files, within limits on what a body may hold."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, Never

from fastapi import Request
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from ...request import SearchRequest, parse_request
from ..errors import RefusedError
from ..settings import ServerSettings

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
