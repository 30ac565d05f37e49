"""Several searches in one request: encoded together, ranked together, and all answered or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TypeVar

from storage.errors import TwinlensError
from storage.schema import Direction, direction_of

from ...hits import Hits
from ...query import QueryPart, ResolvedQuery
from ...request import SearchRequest
from ..engine import Engine
from ..errors import RefusedError
from ..snapshot import Snapshot
from .answers import status_of

T = TypeVar("T")

# A new filter may take seconds, and the server remembers no more than a dozen.
MOST_FILTERS = 8
_IMAGES_AT_ONCE = 4


async def search_all(
    engine: Engine, snapshot: Snapshot, requests: Sequence[SearchRequest]
) -> list[tuple[Direction, Hits]]:
    """Return direction and hits of each of several requests.

    Raises:
        RefusedError: One of them cannot be answered; the message says which, and why.
    """
    queries = await _resolved(engine, snapshot, requests)
    await _prepare_filters(engine, snapshot, requests)
    searches = (engine.hits(snapshot, one.ranked, query) for one, query in zip(requests, queries, strict=True))
    found = _checked(enumerate(await asyncio.gather(*searches, return_exceptions=True)))
    modalities = [query.modality or "text" for query in queries]
    return [(direction_of(modality, hits.collection), hits) for modality, hits in zip(modalities, found, strict=True)]


async def _resolved(engine: Engine, snapshot: Snapshot, requests: Sequence[SearchRequest]) -> list[ResolvedQuery]:
    """Return the one vector of each request; lanes are narrow, so items go in one call, images few at once."""
    parts = [(number, part) for number, one in enumerate(requests) for part in one.parts]
    items = [part for _, part in parts if part.kind == "item"]
    looked_up = iter(await engine.run("look-up", _look_up, snapshot, items) if items else [])
    turns = asyncio.Semaphore(_IMAGES_AT_ONCE)
    others = (_in_turn(engine, snapshot, part, turns) for _, part in parts if part.kind != "item")
    encoded = iter(await asyncio.gather(*others, return_exceptions=True))
    found = [(number, next(looked_up if part.kind == "item" else encoded)) for number, part in parts]
    queries = iter(_checked(found))
    groups = [[next(queries) for _ in one.parts] for one in requests]
    if not any(one.is_composed for one in requests):
        return [group[0] for group in groups]
    return _checked(enumerate(await engine.run("look-up", _composed, snapshot, requests, groups)))


async def _in_turn(engine: Engine, snapshot: Snapshot, part: QueryPart, turns: asyncio.Semaphore) -> ResolvedQuery:
    if part.kind != "image":
        return await engine.resolve(snapshot, part)
    async with turns:
        return await engine.resolve(snapshot, part)


async def _prepare_filters(engine: Engine, snapshot: Snapshot, requests: Sequence[SearchRequest]) -> None:
    """Evaluate each filter once."""
    filters = {(one.into or snapshot.collections[0], one.where): number for number, one in enumerate(requests)}
    new = [(number, into, where) for (into, where), number in filters.items() if where is not None]
    if len(new) > MOST_FILTERS:
        raise RefusedError(400, f"the queries have {len(new)} different filters; give {MOST_FILTERS} at most")
    for number, into, where in new:
        try:
            await engine.prepare_filter(snapshot, into, where)
        except TwinlensError as error:
            _checked([(number, error)])


def _look_up(snapshot: Snapshot, parts: Sequence[QueryPart]) -> list[ResolvedQuery | TwinlensError]:
    return [_tried(snapshot.item_query, part) for part in parts]


def _composed(
    snapshot: Snapshot, requests: Sequence[SearchRequest], groups: Sequence[Sequence[ResolvedQuery]]
) -> list[ResolvedQuery | TwinlensError]:
    return [_tried(snapshot.searcher.composed, one, group) for one, group in zip(requests, groups, strict=True)]


def _tried(work: object, *given: object) -> ResolvedQuery | TwinlensError:
    try:
        query: ResolvedQuery = work(*given)  # type: ignore[operator]
    except TwinlensError as error:
        return error
    return query


def _checked(found: Iterable[tuple[int, T | BaseException]]) -> list[T]:
    """Return what was found for requests of these numbers; the first that failed is raised with its number."""
    values: list[T] = []
    for number, one in found:
        if isinstance(one, TwinlensError):
            status, message, headers = status_of(one)
            if status < 500 or isinstance(one, RefusedError):
                raise RefusedError(status, f"queries[{number}]: {message}", headers) from one
        if isinstance(one, BaseException):
            raise one
        values.append(one)
    return values
