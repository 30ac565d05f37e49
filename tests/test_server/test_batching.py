"""Concurrent queries share calls; one alone waits for nobody; what fails for one fails for it alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served_index import SlowEncoder, serving

from searcher import Searcher
from searcher.server import ServerSettings
from searcher.server.engine import Batcher


def test_queries_that_come_during_a_call_share_the_next_one(index: Path, direct: Searcher) -> None:
    slow = SlowEncoder()
    texts = [f"a {colour} square {n}" for n in range(4) for colour in ("red", "green", "blue", "white", "black")]
    with serving(index, encoder=slow) as server, ThreadPoolExecutor(21) as callers:
        first = callers.submit(server.ask, text="the first")
        assert slow.begun.wait(5)
        others = [callers.submit(server.ask, text=text, k=5) for text in texts]
        while "twinlens_requests_under_way 21.0" not in server.get("/metrics").text:
            time.sleep(0.01)
        slow.may.set()
        assert first.result()["hits"]
        answers = [one.result() for one in others]
        assert slow.calls == 2
        assert 'twinlens_batch_queries_bucket{le="32.0",stage="text"} 2.0' in server.get("/metrics").text
    for text, answer in zip(texts, answers, strict=True):
        expected = direct.text_to_image(text, k=5)
        assert [hit["item_id"] for hit in answer["hits"]] == expected.item_ids.tolist()


def test_a_text_that_was_asked_before_needs_no_encoder(index: Path) -> None:
    encoder = SlowEncoder()
    encoder.may.set()
    with serving(index, encoder=encoder) as server:
        for k in (1, 5, 9):
            assert len(server.ask(text="twice and again", k=k)["hits"]) == k
    assert encoder.calls == 1


def test_searches_with_one_filter_share_a_call_once_it_is_known(index: Path, direct: Searcher) -> None:
    where = "caption ILIKE '%green%' OR caption ILIKE '%red%'"
    encoder = SlowEncoder()
    encoder.may.set()
    with serving(index, ServerSettings(wait_ms=500), encoder=encoder) as server, ThreadPoolExecutor(8) as callers:
        for _ in range(3):
            asked = [callers.submit(server.ask, text=f"red {n}", where=where, k=6) for n in range(8)]
            answers = [one.result() for one in asked]
        lines = server.get("/metrics").text.splitlines()
        largest = next(line for line in lines if 'le="2.0",stage="search"' in line)
        everything = next(line for line in lines if 'le="+Inf",stage="search"' in line)
        assert float(everything.split()[1]) > float(largest.split()[1])  # some held more than two
    for number, answer in enumerate(answers):
        expected = direct.text_to_image(f"red {number}", k=6, where=where)
        assert [hit["item_id"] for hit in answer["hits"]] == expected.item_ids.tolist()
        assert answer["ann"]["filtered_rows"] == 10


class Recorder:
    """Doubles numbers; minus ones are refused; remembers the batches, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.seconds = seconds
        self.threads: set[int] = set()

    def __call__(self, asked: Sequence[int]) -> list[int | BaseException]:
        self.batches.append(list(asked))
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if 666 in asked:
            raise OSError("all of it")
        return [ValueError("no minus") if one == -1 else 2 * one for one in asked]


def run(recorder: Recorder, scene: object, *, most: int = 64, wait: float = 0.0) -> object:
    with ThreadPoolExecutor(1) as pool:

        async def play() -> object:
            return await scene(Batcher(recorder, pool, most=most, wait=wait))  # type: ignore[operator]

        return asyncio.run(play())


def test_one_alone_is_answered_at_once_however_long_the_wait() -> None:
    async def scene(batcher: Batcher[int, int]) -> float:
        started = time.perf_counter()
        for number in range(5):
            assert await batcher.submit(number) == 2 * number
        return time.perf_counter() - started

    recorder = Recorder()
    took = run(recorder, scene, wait=5.0)
    assert isinstance(took, float)
    assert took < 1
    assert recorder.batches == [[0], [1], [2], [3], [4]]


def test_callers_answered_together_are_waited_for_when_they_come_again() -> None:
    async def caller(batcher: Batcher[int, int], number: int) -> None:
        for _ in range(10):
            await batcher.submit(number)
            await asyncio.sleep(0.001 * number)

    async def scene(batcher: Batcher[int, int]) -> None:
        await asyncio.gather(*(caller(batcher, number) for number in range(8)))

    hasty, patient = Recorder(0.002), Recorder(0.002)
    run(hasty, scene)
    run(patient, scene, wait=0.03)
    assert len(patient.batches) < len(hasty.batches)
    assert max(map(len, patient.batches)) == 8


def test_a_batch_is_no_larger_than_allowed_and_keeps_the_order() -> None:
    async def scene(batcher: Batcher[int, int]) -> list[int]:
        return await asyncio.gather(*(batcher.submit(number) for number in range(10)))

    recorder = Recorder()
    assert run(recorder, scene, most=4) == [2 * number for number in range(10)]
    assert [len(batch) for batch in recorder.batches] == [4, 4, 2]
    assert len(recorder.threads) == 1


def test_what_fails_for_one_fails_for_it_alone() -> None:
    async def scene(batcher: Batcher[int, int]) -> list[int | BaseException]:
        return await asyncio.gather(*(batcher.submit(number) for number in (1, -1, 3)), return_exceptions=True)

    first, second, third = run(Recorder(), scene)  # type: ignore[misc]
    assert (first, third) == (2, 6)
    assert isinstance(second, ValueError)


def test_a_call_that_fails_as_a_whole_fails_for_all_and_the_next_one_works() -> None:
    async def scene(batcher: Batcher[int, int]) -> int:
        for found in await asyncio.gather(*(batcher.submit(number) for number in (1, 666)), return_exceptions=True):
            with pytest.raises(OSError, match="all of it"):
                raise found  # type: ignore[misc]
        return await batcher.submit(4)

    assert run(Recorder(), scene) == 8


def test_a_caller_that_has_gone_is_left_out() -> None:
    async def scene(batcher: Batcher[int, int]) -> None:
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.01)
        gone = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        assert await batcher.submit(3) == 6
        assert await first == 2

    recorder = Recorder(0.05)
    run(recorder, scene)
    assert recorder.batches == [[1], [3]]
