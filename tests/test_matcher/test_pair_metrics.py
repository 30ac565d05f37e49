"""Figures of labelled pairs beside those of scikit-learn, and the calibration error beside its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher import DataError
from matcher.pair_metrics import pair_figures, reliability

# Few distinct values, so that ties are the rule.
PAIRS = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=4, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(PAIRS)
def test_figures_equal_those_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra demo")
    p, y = np.array([value / 8 for value, _ in rows]), np.array([label for _, label in rows])
    found, called = pair_figures(p, y), p >= 0.5
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(y, p))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(y, p))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, called))
    assert found["f1"] == pytest.approx(metrics.f1_score(y, called, zero_division=0))
    assert found["precision"] == pytest.approx(metrics.precision_score(y, called, zero_division=0))
    assert found["recall"] == pytest.approx(metrics.recall_score(y, called))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(y, p))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, np.clip(p, 1e-15, 1 - 1e-15)))


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    p = np.repeat([0.2, 0.8], 50)
    y = np.array([1] * 10 + [0] * 40 + [1] * 40 + [0] * 10)
    assert reliability(p, y, bins=2).error == pytest.approx(0)


def test_the_calibration_error_is_how_far_promises_miss() -> None:
    p = np.full(10, 0.9)
    y = np.array([1] * 5 + [0] * 5)
    assert pair_figures(p, y)["ece"] == pytest.approx(0.4)


def test_bins_do_not_depend_on_the_order_of_pairs_with_one_probability() -> None:
    p, y = np.full(300, 0.5), np.repeat([1, 0], 150)
    shuffled = np.random.default_rng(0).permutation(y)
    assert reliability(p, y).error == reliability(p, shuffled).error == 0


def test_bins_hold_equal_numbers_where_all_probabilities_differ() -> None:
    curve = reliability(np.linspace(0, 1, 150), np.arange(150) % 2)
    assert curve.pairs.tolist() == [10] * 15
    assert np.all(np.diff(curve.predicted) > 0)


def test_a_threshold_moves_what_is_called_a_match_and_not_the_order() -> None:
    p, y = np.array([0.1, 0.4, 0.6, 0.9]), np.array([0, 1, 0, 1])
    low, high = pair_figures(p, y, 0.3), pair_figures(p, y, 0.8)
    assert (low["recall"], high["recall"]) == (1, 0.5)
    assert (low["precision"], high["precision"]) == (pytest.approx(2 / 3), 1)
    assert low["roc_auc"] == high["roc_auc"] == 0.75


@pytest.mark.parametrize(("labels", "word"), [([1, 1, 1], "a match"), ([0, 0], "no match"), ([], "no match")])
def test_labels_that_are_all_equal_are_refused(labels: list[int], word: str) -> None:
    with pytest.raises(DataError, match=f"all {len(labels)} pairs are labelled {word}; give pairs of both kinds"):
        pair_figures(np.full(len(labels), 0.5), np.array(labels))
