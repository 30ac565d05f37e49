"""The client for asyncio: the same methods, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self, TypeVar

from storage.schema import Collection

from ..errors import SearchError
from ..hits import Hits
from .client import Asked, Client

T = TypeVar("T")

_MOST_CONNECTIONS = 1_000


class AsyncClient:
    """Asks a running `twinlens serve` from asyncio; the methods are those of `Client`, and raise what those raise.

    Each request waits in a thread, so that nothing but the standard library is needed. One that is cancelled is not
    waited for, and its thread is free again after its answer, or its timeout.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 30.0, retries: int = 2, connections: int = 16
    ) -> None:
        """Take an address; nothing is asked yet.

        Args:
            url: As for `Client`.
            token: Likewise.
            timeout: Likewise.
            retries: Likewise.
            connections: Requests under way at once; further ones wait. A server takes 128 unless told otherwise.

        Raises:
            SearchError: It is no address, or a number is out of range.
        """
        if not 1 <= connections <= _MOST_CONNECTIONS:
            raise SearchError(f"connections={connections!r} must be from 1 to {_MOST_CONNECTIONS}")
        self._client = Client(url, token=token, timeout=timeout, retries=retries)
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="twinlens-client")

    async def search(self, query: Asked, k: int = 10, **options: Any) -> Hits:
        """Return the hits of one query."""
        return await self._run(self._client.search, query, k, **options)

    async def search_many(self, queries: Sequence[Asked], k: int = 10, **options: Any) -> list[Hits]:
        """Return the hits of each of several queries, which the server encodes and ranks together."""
        return await self._run(self._client.search_many, queries, k, **options)

    async def pages(self, query: Asked, k: int = 10, **options: Any) -> AsyncIterator[Hits]:
        """Yield the hits of a query page by page, until there are no more or the server's limit is reached."""
        pages = self._client.pages(query, k, **options)
        while (hits := await self._run(next, pages, None)) is not None:
            yield hits

    async def similar(self, item_id: str, k: int = 10, collection: Collection | None = None, **options: Any) -> Hits:
        """Return what is like an item of the index, itself left out."""
        return await self._run(self._client.similar, item_id, k, collection, **options)

    async def item(self, item_id: str, collection: Collection | None = None) -> dict[str, Any]:
        """Return one item: caption, columns, and as `pairs` what the corpus pairs it with."""
        return await self._run(self._client.item, item_id, collection)

    async def health(self) -> dict[str, Any]:
        """Return `status`, the `version` of the index, and whether texts can be encoded, as `encoder`."""
        return await self._run(self._client.health)

    async def close(self) -> None:
        """Let the threads end; what is under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, work: Callable[..., T], *given: Any, **options: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *given, **options))
