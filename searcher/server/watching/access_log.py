"""The access log: a line for each request, as JSON or text, without what was searched for unless that is wanted."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from storage.schema import Direction, direction_of

from ...query import QueryPart, ResolvedQuery
from ...request import SearchRequest
from ..settings import LogStyle
from ..snapshot import Snapshot

LOGGER = "searcher.server.access"
REQUEST_ID = "X-Request-ID"

log = logging.getLogger(LOGGER)

# A line has a bounded length, whatever callers send.
_LONGEST_PATH, _LONGEST_TEXT, _MOST_TEXTS = 200, 500, 20
# What a proxy in front gave; anything else might forge a line of the log, and gets an id of ours.
_KNOWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass
class _Searched:
    """What the searches of one request were."""

    searches: int = 0
    k: int | None = None
    direction: Direction | None = None
    version: int | None = None
    texts: list[str] = field(default_factory=list)


_searched: ContextVar[_Searched | None] = ContextVar("twinlens_searched", default=None)


def note_search(snapshot: Snapshot, request: SearchRequest, query: ResolvedQuery) -> None:
    """Remember, for the log, what the request that is worked on searches."""
    noted = _searched.get()
    if noted is None:
        return
    noted.searches += 1
    noted.k = max(noted.k or 0, request.k)
    noted.version = snapshot.number
    if query.modality is not None:
        noted.direction = direction_of(query.modality, request.into or snapshot.collections[0])
    room = _MOST_TEXTS - len(noted.texts)
    noted.texts += [text[:_LONGEST_TEXT] for text in _texts(query.part)[: max(0, room)]]


def _texts(part: QueryPart) -> list[str]:
    parts = part.content if part.kind == "composed" else (part,)
    return [one.content for one in parts if one.kind in ("text", "words")]


def request_id_of(headers: Headers) -> str:
    """Return the id that a request came with, or a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if _KNOWN_ID.fullmatch(given) else secrets.token_hex(8)


class AccessLog:
    """Writes a line for each request to the logger `searcher.server.access`."""

    def __init__(self, style: LogStyle, *, queries: bool = False) -> None:
        """Set up a log.

        Args:
            style: `json` for an object a line, `text` for people, `off` for none.
            queries: Whether the texts that are searched with stand in it; they are private.
        """
        self._style = style
        self._queries = queries

    @contextmanager
    def request(self) -> Iterator[None]:
        """Collect what is noted within a block, which belongs to one request."""
        if self._style == "off":
            yield
            return
        token = _searched.set(_Searched())
        try:
            yield
        finally:
            _searched.reset(token)

    def write(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Write the line of the request whose block this is.

        Args:
            scope: Of the request, as it came.
            request_id: Its id.
            status: Of its answer; 0 where the client had gone before there was one.
            seconds: From its headers to the end of its answer.
        """
        if self._style == "off":
            return
        noted = _searched.get() or _Searched()
        # As it came over the wire, and without the query string: that is what was searched for.
        path = scope.get("raw_path", b"").decode("latin-1")
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "method": scope["method"],
            "path": path[:_LONGEST_PATH],
            "status": status or None,
            "ms": round(seconds * 1e3, 3),
            "searches": noted.searches,
            "k": noted.k,
            "direction": noted.direction,
            "version": noted.version,
            "client": (scope.get("client") or [None])[0],
            "request_id": request_id,
        }
        if self._queries:
            line["texts"] = noted.texts
        log.info("%s", json.dumps(line) if self._style == "json" else _as_text(line))


def _as_text(line: dict[str, Any]) -> str:
    shown = json.dumps(line["path"])[1:-1]  # a sign that is no plain character is escaped
    method = json.dumps(line["method"])[1:-1]
    head = f"{line['time']} {line['client'] or '-'} {method} {shown} {line['status'] or '-'} {line['ms']:.1f} ms"
    if line["searches"]:
        head += f" k={line['k']} {line['direction'] or '-'} version={line['version']}"
    if line.get("texts"):
        head += f" texts={json.dumps(line['texts'])}"
    return f"{head} id={line['request_id']}"


class JsonLines(logging.Formatter):
    """Gives what else a server says as JSON too, so that all lines of one stream can be read alike."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"time": when, "level": record.levelname, "message": record.getMessage()})
