"""A client of a running server: the searches of `Searcher`, answered elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from storage.errors import check_keywords
from storage.schema import Collection

from ..compose import Query
from ..errors import ClientError, QueryError
from ..hits import Hits
from ..query import text_part
from ..request import OPTIONS, SearchRequest
from .connection import Connection
from .messages import Message, hits_of_answer, many_message, search_message

# What a server takes in one request, unless it was started with less.
_TOGETHER, _HITS_TOGETHER, _FILTERS_TOGETHER = 64, 1_000, 8
_NUMBER = re.compile(r"queries\[(\d+)\]")

Asked = str | Query | SearchRequest


class Client:
    """Asks a running `twinlens serve`. Safe from many threads.

    What a server does not tell stays None in the hits: where an image lies, and its row.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 30.0, retries: int = 2) -> None:
        """Take an address; nothing is asked yet.

        Args:
            url: Of the server, as it prints it, or a prefix behind a proxy.
            token: What the server asks callers to show; None for nothing.
            timeout: Seconds to wait for a connection, and for each part of an answer.
            retries: How often a server that is full (429, 503) is asked again, each time after the seconds that it
                names by `Retry-After`, 10 at most.

        Raises:
            SearchError: It is no address; the message says what one looks like.
        """
        self._connection = Connection(url=url, token=token, timeout=timeout, retries=retries)

    def search(self, query: Asked, k: int = 10, **options: Any) -> Hits:
        """Return the hits of one query.

        Args:
            query: Words; a `Query`, of an image say, or of several parts; or a whole request, without further options.
            k: Hits wanted.
            **options: Of `SearchRequest`.

        Raises:
            ClientError: Nothing answers, or it refuses; the message says which, in the server's words.
            SearchError: The query or an option cannot be used at all.
        """
        return self._hits(request_of(query, k, options))[0]

    def search_many(self, queries: Sequence[Asked], k: int = 10, **options: Any) -> list[Hits]:
        """Return the hits of each of several queries, which the server encodes and ranks together.

        Queries with an image are asked one by one, since a body of JSON may have 4 MB.

        Raises:
            SearchError: As by `search`; an error of one names its position.
        """
        requests = [request_of(query, k, options) for query in queries]
        found: list[Hits] = []
        for group in _groups(requests):
            found += [self._hits(group[0])[0]] if len(group) == 1 else self._together(group, len(found))
        return found

    def pages(self, query: Asked, k: int = 10, **options: Any) -> Iterator[Hits]:
        """Yield the hits of a query page by page, until there are no more or the server's limit is reached.

        Raises:
            ClientError: As by `search`; with status 410 where another version was published between two pages.
        """
        request = request_of(query, k, options)
        hits, cursor = self._hits(request)
        yield hits
        while cursor is not None:
            hits, cursor = self._hits(request, cursor)
            if hits:  # the page before may have ended with the last one
                yield hits

    def similar(self, item_id: str, k: int = 10, collection: Collection | None = None, **options: Any) -> Hits:
        """Return what is like an item of the index, itself left out; among the images first, without `collection`.

        Raises:
            SearchError: As by `search`; ClientError with status 404 where there is no such item.
        """
        return self.search(Query.item(item_id, collection), k, **options)

    def item(self, item_id: str, collection: Collection | None = None) -> dict[str, Any]:
        """Return one item: caption, columns, and as `pairs` what the corpus pairs it with.

        Raises:
            ClientError: As by `search`; with status 404 where there is no such item.
        """
        given = {"id": item_id} | ({} if collection is None else {"collection": collection})
        return self._object(Message(target=f"items?{urlencode(given, errors='replace')}"))

    def health(self) -> dict[str, Any]:
        """Return `status`, the `version` of the index, and whether texts can be encoded, as `encoder`.

        Raises:
            ClientError: Nothing answers.
        """
        return self._object(Message(target="healthz"))

    def _hits(self, request: SearchRequest, cursor: str | None = None) -> tuple[Hits, str | None]:
        answer = self._connection.ask(search_message(request, cursor))
        try:
            return hits_of_answer(request, answer), answer["cursor"]
        except (KeyError, TypeError, ValueError) as error:
            raise self._connection.unreadable(error) from error

    def _together(self, requests: Sequence[SearchRequest], first: int) -> list[Hits]:
        """Return the hits of requests that go in one message; `first` is the position of the first among all."""
        try:
            answer = self._connection.ask(many_message(requests))
        except ClientError as error:
            message = _NUMBER.sub(lambda found: f"queries[{first + int(found[1])}]", str(error), count=1)
            raise ClientError(message, error.status) from error
        try:
            pairs = zip(requests, answer["answers"], strict=True)
            return [hits_of_answer(request, one) for request, one in pairs]
        except (KeyError, TypeError, ValueError) as error:
            raise self._connection.unreadable(error) from error

    def _object(self, message: Message) -> dict[str, Any]:
        answer = self._connection.ask(message)
        if not isinstance(answer, dict):
            raise self._connection.unreadable(TypeError("it is no object"))
        return answer


def request_of(query: Asked, k: int, options: dict[str, Any]) -> SearchRequest:
    """Return the request that a query with options makes.

    Raises:
        SearchError: An option cannot be used, or stands beside a whole request.
    """
    if isinstance(query, SearchRequest):
        if options:
            raise QueryError(f"the option {next(iter(options))!r} belongs into the request, or beside a Query")
        return query
    check_keywords("Client.search", options, [name for name in OPTIONS if name != "k"])
    if isinstance(query, str):
        return SearchRequest(parts=(text_part(query),), k=k, **options)
    if not isinstance(query, Query):
        kind = type(query).__name__
        raise QueryError(f"the query is of type {kind}; give words, Query.image(...) or a SearchRequest")
    return SearchRequest(parts=query.parts, k=k, **options)


def _groups(requests: Sequence[SearchRequest]) -> Iterator[list[SearchRequest]]:
    """Yield the requests in order, as many together as go in one message."""
    group: list[SearchRequest] = []
    for request in requests:
        if group and not _fits(group, request):
            yield group
            group = []
        group.append(request)
    if group:
        yield group


def _fits(group: Sequence[SearchRequest], request: SearchRequest) -> bool:
    together = [*group, request]
    return (
        len(together) <= _TOGETHER
        and sum(one.k for one in together) <= _HITS_TOGETHER
        and len({(one.into, one.where) for one in together}) <= _FILTERS_TOGETHER
        and not any(part.kind == "image" for one in (group[0], request) for part in one.parts)
    )
