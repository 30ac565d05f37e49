"""The interval of a mean share holds the truth as often as it says, and has a width where nothing was missed."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.share_interval import share_interval


@pytest.mark.parametrize(("found", "missed", "queries"), [(9, 0.5, 50), (9, 0.5, 1000), (3, 0.2, 200), (19, 1, 50)])
def test_it_holds_the_truth_though_hits_of_one_query_hang_together(found: float, missed: float, queries: int) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        shares = random.binomial(10, random.beta(found, missed, queries)) / 10
        low, high = share_interval(shares, 10)
        held += low <= found / (found + missed) <= high
    assert 0.91 <= held / 300 <= 0.99


def test_it_is_wilsons_where_trials_are_independent_and_queries_have_one() -> None:
    shares = np.array([1.0] * 9 + [0.0])
    assert share_interval(shares, 1) == pytest.approx((0.5958, 0.9821), abs=1e-4)  # 9 of 10, any table of it


def test_nothing_missed_is_no_certainty() -> None:
    few, many = (share_interval(np.ones(count), 10) for count in (10, 1000))
    assert few == pytest.approx((0.7225, 1), abs=1e-4)  # as of 10 queries, not of 100 hits
    assert 0.99 < many[0] < 1
    assert share_interval([0.9], 10)[0] < 0.3


def test_a_wider_level_is_a_wider_interval() -> None:
    shares = np.array([1.0, 0.9, 0.8, 1.0])
    assert share_interval(shares, 10, 0.99)[0] < share_interval(shares, 10, 0.9)[0]


@pytest.mark.parametrize(
    ("shares", "trials", "level", "said"),
    [
        ([], 10, 0.95, "the number of shares is 0"),
        ([1.2], 10, 0.95, "a share is not between 0 and 1"),
        ([float("nan")], 10, 0.95, "a share is not between 0 and 1"),
        ([1.0], 0, 0.95, "trials is 0"),
        ([1.0], 10, 1.0, "level is 1.0"),
    ],
)
def test_what_has_no_interval_is_refused(shares: list[float], trials: float, level: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        share_interval(shares, trials, level)
