"""Concurrent questions answered together: one call of the encoder or of the index for all that wait."""

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
    """Collects what is asked while a call is under way, and asks it in the next.

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
        seen: Callable[[int], object] = lambda size: None,
    ) -> None:
        """Set up a batcher.

        Args:
            work: From the questions of a batch to one answer each, in order; an exception as answer is raised for its
                caller alone, one that is raised for all of them.
            pool: Where the work runs, one batch at a time.
            most: Questions a batch at most.
            wait: Seconds to wait at most for the callers of the last batches.
            seen: Told the size of each batch.
        """
        self._work = work
        self._pool = pool
        self._most = most
        self._wait = wait
        self._seen = seen
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._recent = (1, 1)
        self._ended = 0.0

    async def ask(self, question: T) -> R:
        """Return the answer to one question.

        Raises:
            BaseException: What `work` gave or raised for it.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
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
            question, answer = self._waiting.popleft()
            if not answer.done():  # its caller may have gone meanwhile
                taken.append((question, answer))
        return taken

    async def _answer(self, taken: list[tuple[T, asyncio.Future[R]]]) -> None:
        if not taken:
            return
        self._seen(len(taken))
        loop = asyncio.get_running_loop()
        found: Sequence[R | BaseException]
        try:
            found = await loop.run_in_executor(self._pool, self._work, [question for question, _ in taken])
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked, and is raised there
            found = [error] * len(taken)
        self._recent, self._ended = (self._recent[1], len(taken)), loop.time()
        for (_, answer), value in zip(taken, found, strict=True):
            _settle(answer, value)


def _settle(answer: asyncio.Future[R], value: R | BaseException) -> None:
    if answer.done():
        return
    if isinstance(value, BaseException):
        answer.set_exception(value)
    else:
        answer.set_result(value)
