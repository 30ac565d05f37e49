"""What is sent to a server for a search, and the hits that its answer holds."""

from __future__ import annotations

import io
import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from PIL import Image

from ..compose import composed_label
from ..errors import SearchError
from ..hits import Explanation, Hit, Hits
from ..operating_points import Choice
from ..query import QueryPart
from ..request import OPTIONS, SearchRequest

_LONGEST_IMAGE = 64 * 1024 * 1024  # as `DecodeLimits`; a server takes 16 MB unless it is told otherwise
_DEFAULTS = SearchRequest().options
_JSON = "application/json"
# What stands in a hit under its own name; all else is a column of the catalog.
_OWN = frozenset(one.name for one in fields(Hit)) - {"metadata", "collection", "root"}


@dataclass(frozen=True, kw_only=True)
class Message:
    """A request of HTTP: the target is below the address of the server."""

    target: str
    method: str = "GET"
    body: bytes | None = None
    kind: str = ""


def search_message(request: SearchRequest, cursor: str | None = None) -> Message:
    """Return what asks for one search; an image alone is the body, which may be larger than one in JSON.

    Raises:
        SearchError: An image cannot be read.
    """
    given = _given(request) | ({} if cursor is None else {"cursor": cursor})
    if not request.is_composed and request.part.kind == "image":
        query = urlencode({name: option_text(value) for name, value in given.items()}, quote_via=quote)
        target = f"search?{query}" if query else "search"
        return Message(target=target, method="POST", body=_image_bytes(request.part), kind="image/*")
    return _posted({**_query(request), **given})


def many_message(requests: Sequence[SearchRequest]) -> Message:
    """Return what asks for several searches.

    Raises:
        SearchError: An image cannot be read.
    """
    return _posted({"queries": [{**_query(one), **_given(one)} for one in requests]})


def option_text(value: Any) -> str:
    """Return the value of an option as it stands in a URL."""
    if isinstance(value, tuple | list):
        return ",".join(value)
    return "1" if value is True else str(value)


def hits_of_answer(request: SearchRequest, answer: Mapping[str, Any]) -> Hits:
    """Return the hits of an answer; what a server does not tell is None in them.

    Raises:
        KeyError, TypeError, ValueError: No server of ours gives such an answer.
    """
    found, ann, direction = answer["hits"], answer["ann"], answer["direction"]
    collection = "images" if direction.endswith("_to_image") else "texts"
    hits = tuple(_hit(one, collection) for one in found)
    choice = Choice(**{name: value for name, value in ann.items() if value is not None})
    names = [one.name for one in fields(Hits) if one.name in OPTIONS]
    asked: dict[str, Any] = {name: answer[name] if name in answer else getattr(request, name) for name in names}
    return Hits(
        query=_asked_with(request),
        collection=collection,  # type: ignore[arg-type]
        row_ids=np.full(len(hits), -1, dtype=np.int64),
        scores=np.array([hit.score for hit in hits], dtype=np.float32),
        choice=choice,
        hits=hits,
        **asked,
    )


def _posted(body: Mapping[str, Any]) -> Message:
    return Message(target="search", method="POST", body=json.dumps(body).encode(), kind=_JSON)


def _query(request: SearchRequest) -> dict[str, Any]:
    """Return the parts of a request, but not words alone, which are an option."""
    parts = [_part(part) for part in request.parts if part.kind != "words"]
    return {"query": parts} if parts else {}


def _given(request: SearchRequest) -> dict[str, Any]:
    """Return the options that are not as they are by default, in JSON's types."""
    given = {name: value for name, value in request.options.items() if value != _DEFAULTS[name]}
    return {name: list(value) if OPTIONS[name].type is list else value for name, value in given.items()}


def _part(part: QueryPart) -> dict[str, Any]:
    weight = {} if part.weight == 1 else {"weight": part.weight}
    if part.kind == "vector":
        modality = {} if part.modality is None else {"modality": part.modality}
        return {"vector": np.asarray(part.content, dtype=np.float64).tolist(), **modality, **weight}
    if part.kind == "image":
        return {"image": b64encode(_image_bytes(part)).decode("ascii"), **weight}
    collection = {} if part.collection is None else {"collection": part.collection}
    return {part.kind: part.content, **collection, **weight}


def _image_bytes(part: QueryPart) -> bytes:
    data = _read(part)
    if not data or len(data) > _LONGEST_IMAGE:
        raise SearchError(f"the query image {part.label!r} has {len(data)} bytes or more; a server takes none such")
    return data


def _read(part: QueryPart) -> bytes:
    if isinstance(part.content, Image.Image):
        file = io.BytesIO()
        part.content.save(file, format="PNG")
        return file.getvalue()
    if isinstance(part.content, bytes):
        return part.content
    path: Path = part.content
    try:
        with path.open("rb") as opened:
            return opened.read(_LONGEST_IMAGE + 1)
    except OSError as error:
        raise SearchError(f"the query image {part.label!r} cannot be read: {error.strerror or error}") from error


def _asked_with(request: SearchRequest) -> QueryPart:
    if not request.is_composed:
        return request.part
    return QueryPart(kind="composed", label=composed_label(request.parts), content=request.parts)


def _hit(given: Mapping[str, Any], collection: Any) -> Hit:
    own = {name: value for name, value in given.items() if name in _OWN}
    copies, explanation = own.pop("copies", ()), own.pop("explanation", None)
    metadata = {
        name.removeprefix("metadata.") if name.removeprefix("metadata.") in _OWN else name: value
        for name, value in given.items()
        if name not in _OWN
    }
    score = math.nan if given["score"] is None else float(given["score"])
    return Hit(
        **{**own, "rank": int(given["rank"]), "item_id": str(given["item_id"]), "score": score},
        copies=tuple(copies),
        explanation=None if explanation is None else Explanation(**explanation),
        metadata=metadata,
        collection=collection,
    )
