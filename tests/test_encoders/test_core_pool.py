"""Work side by side: in order, with one thread of arithmetic each, and nobody else's threads touched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from encoders.open_clip_encoder import CorePool


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts() -> None:
    assert CorePool(3).map(lambda part: part * part, range(20)) == [part * part for part in range(20)]


def test_there_are_as_many_threads_as_torch_uses_threads() -> None:
    assert CorePool().count == 3


def test_each_thread_computes_on_one_core() -> None:
    assert CorePool(2).map(lambda _: torch.get_num_threads(), range(8)) == [1] * 8


def test_parts_run_at_the_same_time() -> None:
    together = threading.Barrier(3)
    assert sorted(CorePool(3).map(lambda _: together.wait(10), range(3))) == [0, 1, 2]


def test_nobody_elses_threads_change() -> None:
    CorePool(2).map(str, range(4))
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


@pytest.mark.parametrize(("count", "parts"), [(1, 5), (3, 1), (3, 0)])
def test_what_cannot_be_shared_is_done_by_the_caller(count: int, parts: int) -> None:
    names = CorePool(count).map(lambda _: threading.current_thread().name, range(parts))
    assert names == [threading.current_thread().name] * parts


def test_a_single_part_with_little_work_takes_a_thread_of_the_pool() -> None:
    assert CorePool(2).map(lambda _: torch.get_num_threads(), [0], small=True) == [1]
    assert CorePool(2).map(lambda _: torch.get_num_threads(), [0]) == [3]
    assert CorePool(2).map(str, [], small=True) == []


def test_an_error_reaches_the_caller_and_the_pool_goes_on() -> None:
    pool = CorePool(2)
    with pytest.raises(ZeroDivisionError, match="division"):
        pool.map(lambda part: 1 / part, [1, 0, 2])
    assert pool.map(abs, [-1, -2]) == [1, 2]


def test_many_callers_share_the_pool() -> None:
    pool = CorePool(2)
    with ThreadPoolExecutor(4) as callers:
        results = list(callers.map(lambda number: pool.map(lambda part: part + number, range(6)), range(8)))
    assert results == [[part + number for part in range(6)] for number in range(8)]
