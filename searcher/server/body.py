"""The body of a search by POST: JSON, a form with a picture, or the picture alone."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, Never

from pydantic import ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from .errors import RefusedError
from .question import Question, SearchBody, SearchQuery, question_of
from .settings import ServerSettings

FIELDS = 20
_WAYS = "send application/json, multipart/form-data with a file named image, or the picture itself as image/*"


async def read_question(request: Request, settings: ServerSettings) -> Question:
    """Return what a search by POST asks for; where the body is the picture, the rest stands in the URL.

    Raises:
        RefusedError: 400, 413, 415 or 422, with what is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return question_of(_model(_json(await request.body()), SearchBody), settings.max_k)
    if kind == "multipart/form-data":
        fields, picture = await read_form(request)
        return question_of(_model(fields, SearchQuery), settings.max_k, picture)
    if kind.startswith("image/") or kind == "application/octet-stream":
        asked = _model(dict(request.query_params), SearchQuery)
        return question_of(asked, settings.max_k, await request.body())
    raise RefusedError(415, f"a search cannot have a body of type {kind[:80]!r}; {_WAYS}")


async def read_form(request: Request) -> tuple[dict[str, str], bytes | None]:
    """Return the fields of a form, empty ones left out, and the picture; None where none was chosen.

    Raises:
        RefusedError: 400, it is no whole form, has too many fields, or a file under another name than `image`.
    """
    body = await request.body()
    form = await _parsed(request.headers.get("content-type", ""), body)
    fields: dict[str, str] = {}
    picture: bytes | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            picture = await _file(name, value, picture)
        elif value:
            fields[name] = value
    return fields, picture


async def _file(name: str, file: UploadFile, before: bytes | None) -> bytes | None:
    data = await file.read()
    await file.close()
    if not data and not file.filename:
        return before  # what a browser sends where no file was chosen
    if name != "image" or before is not None:
        raise RefusedError(400, f"the form has a file {name[:80]!r}; give one picture, under the name image")
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
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise RefusedError(400, "the JSON body is nested too deeply; give one flat object") from error
    except ValueError as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RefusedError(400, f"the JSON body is of type {type(value).__name__}; give one object")
    return value


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number of JSON")


def _model(fields: dict[str, Any], model: type[SearchQuery]) -> SearchQuery:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RefusedError(422, wrong_fields(error.errors(include_url=False), list(model.model_fields))) from error


def wrong_fields(errors: Any, known: list[str]) -> str:
    """Return what is wrong with parameters, on one line; the first three of them."""
    return "; ".join(_wrong_field(error, known) for error in list(errors)[:3])


def _wrong_field(error: dict[str, Any], known: list[str]) -> str:
    place = [str(part) for part in error.get("loc", ()) if part not in ("query", "body", "path")]
    name = ".".join(place)[:80] or "the request"
    if error.get("type") == "extra_forbidden":
        return f"there is no parameter {name!r}; there are {', '.join(known)}"
    value = repr(error.get("input"))
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{name}={shown}: {_lower(str(error.get('msg', 'cannot be used')))}"


def _lower(sentence: str) -> str:
    sentence = sentence.removeprefix("Value error, ")
    return sentence[:1].lower() + sentence[1:]
