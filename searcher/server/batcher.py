"""Batching of concurrent requests: one call of the encoder or of the index for all that wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# So long after a batch its size still says how many callers are about; then the next one is taken for alone.
_MEMORY_SECONDS = 0.02


class Batcher(Generic[T, R]):
    """Collects the items that arrive while a call is running, and gives them to the next call together.

    One that comes alone is worked on at once. When the last batches held several, a batch waits up to `wait` seconds
    for as many to come again: callers that were answered together come back together, but not in the same instant.
    Belongs to one event loop.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R | BaseException]],
        pool: Executor,
        *,
        most: int,
        wait: float,
        on_batch: Callable[[int], object] = lambda size: None,
    ) -> None:
        """Set up a batcher.

        Args:
            work: From the items of a batch to one answer each, in order; an exception as answer is raised for its
                caller alone, one that is raised for all of them.
            pool: Where the work runs, one batch at a time.
            most: Items a batch at most.
            wait: Seconds to wait at most for the callers of the last batches.
            on_batch: Called with the size of each batch.
        """
        self._work = work
        self._pool = pool
        self._most = most
        self._wait = wait
        self._on_batch = on_batch
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._recent = (1, 1)
        self._ended = 0.0

    async def submit(self, item: T) -> R:
        """Return the answer to one item.

        Raises:
            BaseException: What `work` gave or raised for it.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        self._arrived.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                await self._answer(self._take())
        finally:
            self._task = None

    async def _gather(self) -> None:
        """Wait a little for as many as came lately."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._ended > _MEMORY_SECONDS:
            return
        expected = min(max(self._recent), self._most)
        deadline = loop.time() + self._wait
        while len(self._waiting) < expected and (left := deadline - loop.time()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        taken: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(taken) < self._most:
            item, answer = self._waiting.popleft()
            if not answer.done():  # its caller may have gone meanwhile
                taken.append((item, answer))
        return taken

    async def _answer(self, taken: list[tuple[T, asyncio.Future[R]]]) -> None:
        if not taken:
            return
        self._on_batch(len(taken))
        loop = asyncio.get_running_loop()
        results: Sequence[R | BaseException]
        try:
            results = await loop.run_in_executor(self._pool, self._work, [item for item, _ in taken])
        except Exception as error:  # noqa: BLE001 - it belongs to the callers, and is raised there
            results = [error] * len(taken)
        self._recent, self._ended = (self._recent[1], len(taken)), loop.time()
        for (_, answer), value in zip(taken, results, strict=True):
            _settle(answer, value)


def _settle(answer: asyncio.Future[R], value: R | BaseException) -> None:
    if answer.done():
        return
    if isinstance(value, BaseException):
        answer.set_exception(value)
    else:
        answer.set_result(value)
