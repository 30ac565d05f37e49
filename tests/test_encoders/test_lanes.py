"""Work side by side: in order, with one thread of arithmetic each, and nobody else's threads touched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from encoders.inference import Lanes


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts() -> None:
    assert Lanes(3).map(lambda part: part * part, range(20)) == [part * part for part in range(20)]


def test_there_are_as_many_lanes_as_torch_uses_threads() -> None:
    assert Lanes().count == 3


def test_each_lane_computes_with_one_thread() -> None:
    assert Lanes(2).map(lambda _: torch.get_num_threads(), range(8)) == [1] * 8


def test_parts_run_at_the_same_time() -> None:
    together = threading.Barrier(3)
    assert sorted(Lanes(3).map(lambda _: together.wait(10), range(3))) == [0, 1, 2]


def test_nobody_elses_threads_change() -> None:
    Lanes(2).map(str, range(4))
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


@pytest.mark.parametrize(("count", "parts"), [(1, 5), (3, 1), (3, 0)])
def test_what_cannot_be_shared_is_done_by_the_caller(count: int, parts: int) -> None:
    names = Lanes(count).map(lambda _: threading.current_thread().name, range(parts))
    assert names == [threading.current_thread().name] * parts


def test_a_single_part_with_little_work_takes_a_lane() -> None:
    assert Lanes(2).map(lambda _: torch.get_num_threads(), [0], small=True) == [1]
    assert Lanes(2).map(lambda _: torch.get_num_threads(), [0]) == [3]
    assert Lanes(2).map(str, [], small=True) == []


def test_an_error_reaches_the_caller_and_the_lanes_go_on() -> None:
    lanes = Lanes(2)
    with pytest.raises(ZeroDivisionError, match="division"):
        lanes.map(lambda part: 1 / part, [1, 0, 2])
    assert lanes.map(abs, [-1, -2]) == [1, 2]


def test_many_callers_share_the_lanes() -> None:
    lanes = Lanes(2)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: lanes.map(lambda part: part + number, range(6)), range(8)))
    assert found == [[part + number for part in range(6)] for number in range(8)]
