"""Processes that answer requests: started, asked, too slow, ended, and kept for the next request."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import child_process
from storage.child_process import ChildProcess, ProcessEndedError, ProcessPool, serve

MODULE = """
import sys, time
from storage.child_process import own_output, serve

def answer(request, data):
    if "exit" in request:
        sys.exit(request["exit"])
    time.sleep(request.get("sleep", 0))
    return {"said": request["say"]}, data * request.get("times", 1), request.get("last", False)

def main(how="ready"):
    if how != "ready":
        sys.exit(9)
    serve(sys.stdin.buffer, own_output(), answer)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "answering.py").write_text(MODULE, "ascii")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "answering"


@pytest.fixture
def pool(module: str) -> Iterator[ProcessPool]:
    pool = ProcessPool(lambda: ChildProcess(module), at_once=2)
    yield pool
    pool.close()


def test_answers_of_any_length_come_back_from_one_process(pool: ProcessPool) -> None:
    for times in (0, 1, 700_000):
        told, data = pool.ask({"say": times, "times": times}, b"abc", seconds=30)
        assert (told["said"], data) == (times, b"abc" * times)
    assert len(pool.idle) == 1


def test_a_process_that_is_not_ready_says_how_it_ended(module: str) -> None:
    with pytest.raises(ProcessEndedError) as caught:
        ChildProcess(module, ("broken",))
    assert caught.value.code == 9


def test_one_that_is_too_slow_is_ended_and_the_next_one_answers(pool: ProcessPool) -> None:
    with pytest.raises(TimeoutError):
        pool.ask({"say": 1, "sleep": 60}, seconds=0.05)
    assert pool.idle == []
    assert pool.ask({"say": 2}, seconds=30)[0]["said"] == 2


def test_one_that_ends_at_a_request_says_how_and_one_that_ended_before_is_replaced(pool: ProcessPool) -> None:
    assert pool.ask({"say": 1, "last": True}, seconds=30)[0]["said"] == 1
    assert pool.ask({"say": 2}, seconds=30)[0]["said"] == 2
    with pytest.raises(ProcessEndedError) as caught:
        pool.ask({"exit": 3, "say": 0}, seconds=30)
    assert caught.value.code == 3


def test_a_pool_that_is_closed_meanwhile_keeps_no_process(pool: ProcessPool) -> None:
    asking = threading.Thread(target=lambda: pool.ask({"say": 1, "sleep": 0.3}, seconds=30))
    asking.start()
    time.sleep(0.05)
    pool.close()
    asking.join()
    assert pool.idle == []


def test_a_fork_leaves_the_processes_alone_and_starts_its_own(
    pool: ProcessPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.ask({"say": 1}, seconds=30)
    (process,) = pool.idle
    monkeypatch.setattr(pool, "_owner", -1)  # as in a fork, whose own number is another
    child_process._end_all(pool._idle, -1)
    assert process.is_alive()
    assert pool.ask({"say": 2}, seconds=30)[0]["said"] == 2
    assert process not in pool.idle
    process.end()


@pytest.mark.parametrize(("last", "answered"), [(False, 2), (True, 1)])
def test_serving_ends_with_the_requests_or_with_the_last_answer(last: bool, answered: int) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb") as sent:
        sent.write(b'{"bytes": 2}\nab{"bytes": 0}\n')

    def answer(_: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes, bool]:
        return {"length": len(data)}, data, last

    with os.fdopen(ours, "rb", buffering=0) as requests, io.BytesIO() as answers:
        serve(requests, answers, answer)  # type: ignore[arg-type]
        lines = answers.getvalue().split(b"\n")
    assert json.loads(lines[0]) == {"bytes": 0}
    assert json.loads(lines[1]) == {"length": 2, "bytes": 2}
    assert len(lines) - 2 == answered


def test_private_memory_is_that_of_the_kernel_or_the_most_that_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 << 20 < child_process.data_bytes() < 1 << 42
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert 1 << 20 < child_process.data_bytes() < 1 << 42
