"""Cursors: where the next page of a search begins, bound to the search and to the version of the index."""

from __future__ import annotations

import json
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from ...query import QueryPart
from ...request import SearchRequest
from ..errors import RefusedError
from ..snapshot import Snapshot

# The index, the search, and the offset of the next page.
_LAYOUT = struct.Struct(">8s8sI")


def next_cursor(snapshot: Snapshot, search: SearchRequest, shown: int, most: int) -> str | None:
    """Return the cursor of the page after one; None where this one was the last, or the next reaches beyond `most`.

    Of a search with a floor of probability a page may have fewer hits than `k`, and the next one some all the same.

    Args:
        snapshot: The index that was searched.
        search: What was asked for.
        shown: How many hits came.
        most: How deep the server lets a search reach.
    """
    offset = search.offset + search.k
    is_last = shown == 0 if search.min_probability is not None else shown < search.k
    if is_last or offset + search.k > most:
        return None
    packed = _LAYOUT.pack(snapshot.identity[:8], _digest(search), offset)
    return urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def at_cursor(snapshot: Snapshot, search: SearchRequest, cursor: str | None) -> SearchRequest:
    """Return a search as it goes on at a cursor; without one as it is.

    Raises:
        RefusedError: 400 for what is no cursor, or one of another search; 410 for one of another index or version.
    """
    if cursor is None:
        return search
    try:
        identity, digest, offset = _LAYOUT.unpack(urlsafe_b64decode(cursor.encode("ascii") + b"=="))
    except (ValueError, struct.error) as error:
        raise RefusedError(400, f"{cursor[:60]!r} is no cursor; give one as an answer has it") from error
    if identity != snapshot.identity[:8]:
        now = f"{snapshot.location!r} is at version {snapshot.number}"
        raise RefusedError(410, f"the cursor is of another index or version, and {now}; search again without it")
    if digest != _digest(search):
        raise RefusedError(400, "the cursor is of another search; give it with the query and options that it came with")
    return replace(search, offset=offset)


def _digest(search: SearchRequest) -> bytes:
    options = {name: value for name, value in search.options.items() if name != "offset"}
    described = [[_described(part) for part in search.parts], options]
    return sha256(json.dumps(described, sort_keys=True, default=list).encode()).digest()[:8]


def _described(part: QueryPart) -> list[Any]:
    content = part.content
    if isinstance(content, np.ndarray):
        content = content.tobytes()
    if isinstance(content, bytes):
        content = sha256(content).hexdigest()
    return [part.kind, content, part.modality, part.collection, part.weight]
