"""Asking a running `twinlens serve`: one request over its JSON API, and its answer as the hits of a search here."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import numpy as np

from .compose import composed_label
from .errors import SearchError
from .hits import Hit, Hits
from .operating_points import Choice
from .query import QueryPart
from .request import OPTIONS, SearchRequest

_LONGEST_ANSWER = 64 * 1024 * 1024
_LONGEST_IMAGE = 64 * 1024 * 1024  # as `DecodeLimits`; a server takes 16 MB unless it is told otherwise
_LONGEST_MESSAGE = 600
_OWN = ("rank", "item_id", "score", "uri", "caption")
_DEFAULTS = SearchRequest().options
_JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """A server to ask, and how.

    Attributes:
        url: Its address, e.g. `http://127.0.0.1:8000/`, or a prefix behind a proxy.
        token: What it asks callers to show; None for nothing.
        seconds: How long to wait for a connection, and for each part of an answer.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what is no address.

        Raises:
            SearchError: It is none; the message says what one looks like.
        """
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known or parts.query or parts.fragment or not self.url.isascii() or not self.url.isprintable():
            raise SearchError(
                f"{self.url[:200]!r} is no address of a server; give e.g. http://127.0.0.1:8000/, as `twinlens serve` "
                "prints it"
            )
        if parts.username is not None:
            raise SearchError("the address of the server holds a name or password; give the token by TWINLENS_TOKEN")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise SearchError("the token has characters that no server takes; give ASCII without spaces")

    def search(self, request: SearchRequest) -> Hits:
        """Return the hits of a request with one text, image or item; what a server does not tell is None in them.

        Raises:
            SearchError: Nothing answers there, or it refuses, or it is another release; the message says which.
        """
        target, body, kind = _message(request)
        status, data = self._posted(target, body, kind)
        answer = _parsed(data)
        if status != 200:
            said = answer.get("error") if isinstance(answer, dict) else None
            raise SearchError(self._refusal(status, said))
        try:
            return _hits(request, answer)
        except (KeyError, TypeError, ValueError) as error:
            raise SearchError(
                f"the answer of {self.url!r} cannot be read ({type(error).__name__}: {error}); is it a `twinlens "
                "serve` of this release?"
            ) from error

    def _posted(self, target: str, body: bytes, kind: str) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = made(str(parts.hostname), parts.port, timeout=self.seconds)
        headers = {"Content-Type": kind, "Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request("POST", f"{parts.path.rstrip('/')}/{target}", body, headers)
            answer = connection.getresponse()
            data = answer.read(_LONGEST_ANSWER + 1)
        except TimeoutError as error:
            raise SearchError(
                f"{self.url!r} did not answer within {self.seconds:g} seconds; try again, or give more by --timeout"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise SearchError(self._unreached(error)) from error
        finally:
            connection.close()
        if len(data) > _LONGEST_ANSWER:
            raise SearchError(f"{self.url!r} answered more than {_LONGEST_ANSWER} bytes; ask for fewer hits by -k")
        return answer.status, data

    def _unreached(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLError):
            return f"{self.url!r} does not speak TLS as it should: {error.reason or error}; check http or https"
        if isinstance(error, socket.gaierror):
            return f"there is no host {urlsplit(self.url).hostname!r}: {error.strerror}; check the address"
        if isinstance(error, http.client.HTTPException):
            return f"{self.url!r} does not answer in HTTP ({type(error).__name__}); check the address"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"no server answers at {self.url!r}: {reason}; start one by `twinlens serve INDEX`, or check the address"

    def _refusal(self, status: int, said: Any) -> str:
        if not isinstance(said, str):
            return f"{self.url!r} answered {status} and is no `twinlens serve`; check the address"
        line = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(said.split()))
        hint = "; give the token by TWINLENS_TOKEN" if status == 401 else ""
        return f"{self.url!r} answered {status}: {line[:_LONGEST_MESSAGE]}{hint}"


def option_text(value: Any) -> str:
    """Return the value of an option as it stands in a URL."""
    if isinstance(value, tuple | list):
        return ",".join(value)
    return "1" if value is True else str(value)


def _message(request: SearchRequest) -> tuple[str, bytes, str]:
    """Return the target below the address of a server, the body and its type."""
    given = {name: value for name, value in request.options.items() if value != _DEFAULTS[name]}
    if request.is_composed:
        return "search", json.dumps({"query": [_part(part) for part in request.parts], **_lists(given)}).encode(), _JSON
    part = request.part
    if part.kind == "image":
        query = urlencode({name: option_text(value) for name, value in given.items()}, quote_via=quote)
        return f"search?{query}" if query else "search", _image_bytes(part), "image/*"
    if part.kind == "vector":
        raise SearchError(f"a server is asked by text, image or item, and the query is {part.label}")
    return "search", json.dumps({part.kind: part.content, **_lists(given)}).encode(), _JSON


def _lists(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if OPTIONS[name].type is list else value for name, value in given.items()}


def _part(part: QueryPart) -> dict[str, Any]:
    if part.kind not in ("text", "item"):
        raise SearchError(f"a server takes texts and items as parts of a query, and one is {part.label}")
    return {part.kind: part.content, "weight": part.weight}


def _image_bytes(part: QueryPart) -> bytes:
    path: Path = part.content
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_IMAGE + 1)
    except OSError as error:
        raise SearchError(f"the query image {part.label!r} cannot be read: {error.strerror or error}") from error
    if not data or len(data) > _LONGEST_IMAGE:
        raise SearchError(f"the query image {part.label!r} has {path.stat().st_size} bytes; a server takes none such")
    return data


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _hits(request: SearchRequest, answer: Mapping[str, Any]) -> Hits:
    """Return the hits of an answer; KeyError, TypeError and ValueError say that no server gives such."""
    found, ann, direction = answer["hits"], answer["ann"], answer["direction"]
    collection = "images" if direction.endswith("_to_image") else "texts"
    hits = tuple(_hit(one, collection) for one in found)
    choice = Choice(**{name: value for name, value in ann.items() if value is not None})
    asked: dict[str, Any] = {one.name: getattr(request, one.name) for one in fields(Hits) if one.name in OPTIONS}
    return Hits(
        query=_asked_with(request),
        collection=collection,  # type: ignore[arg-type]
        row_ids=np.full(len(hits), -1, dtype=np.int64),
        scores=np.array([hit.score for hit in hits], dtype=np.float32),
        choice=choice,
        hits=hits,
        **asked,
    )


def _asked_with(request: SearchRequest) -> QueryPart:
    if not request.is_composed:
        return request.part
    return QueryPart(kind="composed", label=composed_label(request.parts), content=request.parts)


def _hit(given: Mapping[str, Any], collection: Any) -> Hit:
    metadata = {
        name.removeprefix("metadata.") if name.removeprefix("metadata.") in _OWN else name: value
        for name, value in given.items()
        if name not in _OWN
    }
    return Hit(
        rank=int(given["rank"]),
        item_id=str(given["item_id"]),
        score=float(given["score"]),
        caption=given["caption"],
        metadata=metadata,
        collection=collection,
    )
