"""From an exception to the status and the line that a caller gets."""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from encoders.errors import EncoderError
from searcher.errors import EncoderMismatchError, SearcherClosedError, SearchError
from storage.errors import SearchParameterError

from .body import wrong_fields
from .errors import RefusedError
from .question import SearchQuery

_BROKEN = "the server could not answer this; its log says why"


def status_of(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Return status, message and headers for whatever went wrong."""
    if isinstance(error, RefusedError):
        return error.status, str(error), error.headers
    if isinstance(error, RequestValidationError):
        return 422, wrong_fields(error.errors(), list(SearchQuery.model_fields)), {}
    if isinstance(error, HTTPException):
        return error.status_code, _plain_words(error), dict(error.headers or {})
    if isinstance(error, SearcherClosedError):
        return 503, "the server is about to stop; try again in a second", {"Retry-After": "1"}
    if isinstance(error, ClientDisconnect):
        return 400, "the body ended before it was whole", {}
    if isinstance(error, MemoryError):
        return 503, "not enough memory for this request; ask for less, or later", {"Retry-After": "1"}
    own_fault = isinstance(error, (EncoderError, EncoderMismatchError))
    if isinstance(error, (SearchError, SearchParameterError)) and not own_fault:
        return 400, str(error), {}
    return 500, _BROKEN, {}


def _plain_words(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this address; /openapi.json lists what there is"
    if error.status_code == 405:
        allowed = dict(error.headers or {}).get("Allow", "GET")
        return f"this method does not work here; use {allowed}"
    return str(error.detail)
