"""What the last sweep measured reaches what is asked, and the page of promises shows just that."""

from __future__ import annotations

from pathlib import Path

import pytest
from figures import ASKED, Asked, last, table


def test_every_figure_that_is_asked_was_measured_and_reached() -> None:
    parts = last()["parts"]
    assert [asked.what for asked in ASKED if not asked.reached(parts)] == []


def test_the_page_of_promises_shows_the_last_sweep(home: Path) -> None:
    page = (home / "docs" / "promises.md").read_text(encoding="utf-8")
    assert "\n".join(table(last()["parts"])) in page


def test_the_whole_sweep_takes_less_than_an_hour() -> None:
    assert sum(part["seconds"] for part in last()["parts"].values()) < 3600


@pytest.mark.parametrize(
    ("part", "reached"),
    [
        ({"states": 12}, True),
        ({"states": 9}, False),
        ({"states": 12, "broken promises": 1}, False),
        ({"states": 12, "differing": 1}, False),
        ({"other": 12}, False),
    ],
)
def test_a_figure_is_reached_when_it_is_large_enough_and_nothing_broke(part: dict[str, int], reached: bool) -> None:
    asked = Asked(what="states", key="states", parts="loss-*", least=10)
    assert asked.reached({"loss-0": part}) == reached
    assert not asked.reached({})


def test_a_bound_is_reached_from_below() -> None:
    asked = Asked(what="growth", key="growth*", parts="memory*", least=2, how="below")
    assert asked.reached({"memory": {"growth, percent": 1.9}})
    assert not asked.reached({"memory-a": {"growth, percent": 1.0}, "memory-b": {"growth, percent": 2.0}})
