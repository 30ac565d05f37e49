"""How requests are answered: JSON, images that browsers keep, and what went wrong as a status and one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from encoders.errors import EncoderError
from storage.errors import SearchParameterError

from ...errors import EncoderMismatchError, ItemNotFoundError, ParameterError, SearcherClosedError, SearchError
from ..errors import RETRY, RefusedError
from ..image_cache import Jpeg

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
