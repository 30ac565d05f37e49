"""Clients that keep a server busy: an asyncio program that speaks just enough HTTP/1.1 to cost little itself."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

K = 10


@dataclass
class Seen:
    """What clients saw: milliseconds of each answer, and how many of each status; whatever went wrong, in words."""

    costs: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.costs) / self.seconds

    def at(self, percent: float) -> float:
        return float(np.percentile(self.costs, percent))


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(value: Any) -> bytes:
    body = json.dumps(value).encode()
    head = (
        f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return f"{head}\r\n".encode() + body


def text_request(text: str, more: str = "") -> bytes:
    return get(f"/search?k={K}&text={quote(text)}{more}")


Check = Callable[[int, bytes, bytes], str | None]


def all_well(status: int, head: bytes, body: bytes) -> str | None:
    return None if status == 200 else f"{status}: {body[:200]!r}"


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Clients that each send the next request as soon as the last is answered, over connections that stay open.

    With a `pause` each waits between an answer and its next request, for seconds of that mean, as people do.
    """

    url: str
    requests: Sequence[bytes]
    clients: int
    seconds: float = 1e9
    most: int = 10**9
    check: Check = all_well
    pause: float = 0.0

    def run(self) -> Seen:
        return asyncio.run(self._run())

    async def _run(self) -> Seen:
        seen, turn = Seen(), iter(range(self.most))
        started = time.perf_counter()
        await asyncio.gather(*(self._client(seen, turn, started + self.seconds) for _ in range(self.clients)))
        seen.seconds = time.perf_counter() - started
        return seen

    async def _client(self, seen: Seen, turn: Iterator[int], end: float) -> None:
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while (begun := time.perf_counter()) < end and (number := next(turn, None)) is not None:
            writer.write(self.requests[number % len(self.requests)])
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                seen.wrong.append(f"{type(error).__name__}: {error}")
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                continue
            seen.costs.append((time.perf_counter() - begun) * 1e3)
            status = int(head[9:12])
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
            if problem := self.check(status, head, body):
                seen.wrong.append(problem)
            if self.pause:
                await asyncio.sleep(random.expovariate(1 / self.pause))
        writer.close()
