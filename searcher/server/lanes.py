"""Threads for one kind of work, with a bounded queue, in which what is slow holds up nothing else for long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from .errors import full

T = TypeVar("T")

# What takes longer is slow: one of a thousand photographs, and most of what somebody sends to do harm.
_PATIENCE = 1.0


@dataclass(kw_only=True)
class _Call:
    """A call that is worked on.

    Attributes:
        counted: Whether it is one of those that the lane is as wide as; a slow one is not.
        timer: Takes it for slow.
    """

    counted: bool = True
    timer: asyncio.TimerHandle | None = None


class Lane:
    """Works on some calls at once, lets some wait, and refuses the rest. Belongs to one event loop.

    A call that takes longer than a second no longer counts: the next one begins beside it, in a spare thread.
    A caller who gives up while waiting leaves the queue; a call that has begun keeps its thread until it ends.
    """

    def __init__(
        self,
        name: str,
        *,
        width: int,
        threads: int,
        waiting: int,
        patience: float = _PATIENCE,
        on_full: Callable[[], object] = lambda: None,
    ) -> None:
        """Set up a lane.

        Args:
            name: Of the work, for messages and threads.
            width: Calls that are worked on at once, slow ones aside.
            threads: All calls that are worked on at once.
            waiting: Calls that wait at most.
            patience: Seconds after which a call is slow.
            on_full: Called for each call that is refused.
        """
        self._name = name
        self._width = width
        self._threads = threads
        self._most_waiting = waiting
        self._patience = patience
        self._on_full = on_full
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"twinlens-{name}")
        self._queue: deque[asyncio.Future[None]] = deque()
        self._counted = 0
        self._running = 0

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what `work` gives in one of the threads.

        Raises:
            RefusedError: 503, too many calls wait already.
            BaseException: What `work` raised.
        """
        await self._enter()
        loop = asyncio.get_running_loop()
        call = _Call()
        call.timer = loop.call_later(self._patience, self._is_slow, call)
        try:
            future = self._pool.submit(partial(work, *arguments))
        except RuntimeError:  # the pool was closed
            self._leave(call)
            raise
        # Of the thread's own end, not of its caller's, who may have given up.
        future.add_done_callback(partial(_later, loop, partial(self._leave, call)))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end; what waits for one is not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _enter(self) -> None:
        """Wait for a thread; from then on it is this caller's."""
        if self._has_room():
            self._begin()
            return
        if len(self._queue) >= self._most_waiting:
            self._on_full()
            raise full(f"{self._most_waiting} requests wait for the {self._name} threads")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came in the same moment
                self._leave(_Call())
            with suppress(ValueError):
                self._queue.remove(turn)
            raise

    def _has_room(self) -> bool:
        return self._counted < self._width and self._running < self._threads

    def _begin(self) -> None:
        self._counted += 1
        self._running += 1

    def _is_slow(self, call: _Call) -> None:
        call.counted = False
        self._counted -= 1
        self._next()

    def _leave(self, call: _Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
        self._running -= 1
        self._counted -= call.counted
        self._next()

    def _next(self) -> None:
        while self._queue and self._has_room():
            turn = self._queue.popleft()
            if not turn.done():  # its caller may have given up
                self._begin()
                turn.set_result(None)


def _later(loop: asyncio.AbstractEventLoop, work: Callable[[], object], future: object) -> None:
    """Do something in the event loop, from another thread; nothing where the loop has ended."""
    del future
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(work)
