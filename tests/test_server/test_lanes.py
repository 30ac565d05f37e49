"""Lanes: what is slow holds up nothing else for long, and what would wait too long is told so."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour import ColourEncoder
from PIL import Image
from served_index import Served, serving

from searcher.server import ServerSettings
from searcher.server.errors import RefusedError
from searcher.server.lanes import Lane

SLOW_SIZE = (13, 17)


class SlowImages(ColourEncoder):
    """Prepares an image of one size when it is let, and any other at once."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.begun = threading.Semaphore(0)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        if image.size == SLOW_SIZE:
            self.begun.release()
            self.may.wait(30)
        return super().preprocess(image)


def image(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def slow() -> Iterator[SlowImages]:
    encoder = SlowImages()
    yield encoder
    encoder.may.set()


def search(server: Served, size: tuple[int, int]) -> Any:
    return server.post("/search", content=image(size), headers={"Content-Type": "image/png"})


def test_slow_images_hold_up_neither_others_nor_thumbnails(index: Path, slow: SlowImages) -> None:
    with serving(index, encoder=slow) as server, ThreadPoolExecutor(3) as callers:
        waiting = [callers.submit(search, server, SLOW_SIZE) for _ in range(2)]
        for _ in waiting:
            assert slow.begun.acquire(timeout=5)
        started = time.monotonic()
        assert server.get("/thumbnails/blue/0002.png").status_code == 200
        assert server.ask(text="red")["hits"]
        assert time.monotonic() - started < 0.8  # at once
        assert search(server, (20, 20)).status_code == 200  # when the two have turned out slow
        waiting.append(callers.submit(search, server, SLOW_SIZE))
        assert slow.begun.acquire(timeout=5)
        assert search(server, (20, 20)).status_code == 200
        slow.may.set()
        assert [one.result().status_code for one in waiting] == [200] * 3


def test_images_that_would_wait_too_long_are_told_when_to_come_again(index: Path, slow: SlowImages) -> None:
    settings = ServerSettings(concurrency=12, seconds=4)
    with serving(index, settings, slow) as server, ThreadPoolExecutor(12) as callers:
        begun = [callers.submit(search, server, SLOW_SIZE) for _ in range(4)]
        for _ in begun:
            assert slow.begun.acquire(timeout=5)
        queued = [callers.submit(search, server, SLOW_SIZE) for _ in range(6)]
        while "twinlens_requests_under_way 10.0" not in server.get("/metrics").text:
            time.sleep(0.01)
        time.sleep(0.1)
        answer = search(server, (20, 20))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "6 requests wait for the image threads" in answer.json()["error"]
        assert 'twinlens_refused_total{reason="full"} 1.0' in server.get("/metrics").text
        assert server.ask(text="red")["hits"]
        assert server.get("/thumbnails/blue/0002.png").status_code == 200
        assert {one.result().status_code for one in begun + queued} == {503}  # their time is over
        assert search(server, (20, 20)).status_code == 503  # every thread is stuck, and its own time is over too
        slow.may.set()
        assert search(server, (20, 20)).status_code == 200


def test_a_thumbnail_that_is_known_needs_no_thread(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from searcher.server.engine import Engine

    with serving(index, encoder=ColourEncoder()) as server:
        first = server.get("/thumbnails/blue/0002.png")

        def none(self: Engine, *given: object) -> None:
            raise AssertionError("no thread is needed")

        monkeypatch.setattr(Engine, "run", none)
        again = server.get("/thumbnails/blue/0002.png")
    assert again.content == first.content
    assert again.headers["etag"] == first.headers["etag"]


def lane(**given: Any) -> Lane:
    return Lane("test", **{"width": 1, "threads": 2, "waiting": 2, "patience": 0.05, **given})


def test_a_caller_who_gives_up_frees_its_turn_but_not_its_thread() -> None:
    async def play() -> None:
        slow, done = threading.Event(), lane(patience=60)
        first = asyncio.create_task(done.run(slow.wait, 10))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(done.run(str, number)) for number in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(RefusedError, match="2 requests wait"):
            await done.run(str, 2)
        others[0].cancel()
        first.cancel()
        await asyncio.sleep(0.01)
        third = asyncio.create_task(done.run(str, 3))  # the turn of one who went
        await asyncio.sleep(0.05)
        assert not third.done()  # the thread of the first is not free before its work has ended
        slow.set()
        assert await asyncio.wait_for(asyncio.gather(others[1], third), 5) == ["1", "3"]
        done.close()

    asyncio.run(play())


def test_a_slow_call_takes_a_spare_thread_and_no_more_than_there_are() -> None:
    async def play() -> None:
        slow, all_of = threading.Event(), lane(waiting=9)
        stuck = [asyncio.create_task(all_of.run(slow.wait, 10)) for _ in range(2)]
        quick = asyncio.create_task(all_of.run(str, 1))
        await asyncio.sleep(0.3)
        assert not quick.done()
        slow.set()
        assert await asyncio.wait_for(quick, 5) == "1"
        assert await asyncio.gather(*stuck) == [True, True]
        all_of.close()

    asyncio.run(play())


def test_whatever_callers_do_every_thread_comes_back() -> None:
    async def play() -> None:
        busy = lane(width=2, threads=3, waiting=20, patience=0.003)
        random = np.random.default_rng(0)
        running, most = 0, 0
        lock = threading.Lock()

        def work(seconds: float) -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(seconds)
            with lock:
                running -= 1
            if seconds > 0.005:
                raise ValueError(seconds)

        async def caller(seconds: float, patience: float) -> str:
            try:
                await asyncio.wait_for(busy.run(work, seconds), patience)
            except (TimeoutError, ValueError, RefusedError) as error:
                return type(error).__name__
            return "done"

        given = random.uniform(0, (0.01, 0.1), (300, 2))
        ends: list[str] = []
        for part in np.split(given, 10):
            ends += await asyncio.gather(*(caller(*row) for row in part.tolist()))
        assert {"done", "TimeoutError", "ValueError", "RefusedError"} == set(ends)
        await asyncio.sleep(0.1)
        assert running == 0
        assert most == 3
        assert await asyncio.gather(*(busy.run(str, number) for number in range(20))) == [*map(str, range(20))]
        busy.close()

    asyncio.run(play())
