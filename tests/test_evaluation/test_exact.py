from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import evaluation.neighbors
from evaluation import exact_top_k

VALUES = st.integers(-3, 3).map(float)


@given(
    base=arrays(np.float32, (7, 3), elements=VALUES),
    queries=arrays(np.float32, (4, 3), elements=VALUES),
    k=st.integers(1, 9),
)
def test_hits_are_sorted_by_score_then_row(base: np.ndarray, queries: np.ndarray, k: int) -> None:
    ids, scores = exact_top_k(base, queries, k)
    for query, line, values in zip(queries, ids, scores, strict=True):
        expected = sorted(range(7), key=lambda row: (-float(base[row] @ query), row))[:k]
        assert line.tolist() == expected
        assert np.array_equal(values, base[line].astype(np.float64) @ query)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    base, queries = np.random.default_rng(0).standard_normal((2, 50, 8))
    whole = exact_top_k(base, queries, 5)
    monkeypatch.setattr(evaluation.neighbors, "_BLOCK_VALUES", 150)
    assert np.array_equal(exact_top_k(base, queries, 5)[0], whole[0])


def test_half_precision_is_compared_exactly() -> None:
    base = np.array([[1.0, 0.0], [0.999, 0.045]], dtype=np.float16)
    assert exact_top_k(base, base, 2)[0].tolist() == [[0, 1], [1, 0]]


def test_more_hits_than_rows_give_all_rows() -> None:
    assert exact_top_k(np.eye(3), np.eye(3), 10)[0].shape == (3, 3)


def test_nothing_to_compare_gives_nothing() -> None:
    assert exact_top_k(np.empty((0, 3)), np.eye(3), 2)[0].shape == (3, 0)
    assert exact_top_k(np.eye(3), np.empty((0, 3)), 2)[0].shape == (0, 2)


@pytest.mark.parametrize(
    ("base", "queries", "k", "message"),
    [(np.eye(3), np.eye(3), 0, "k is 0"), (np.eye(3), np.eye(2), 1, r"\(3, 3\) and queries \(2, 2\)")],
)
def test_what_does_not_fit_is_refused(base: np.ndarray, queries: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact_top_k(base, queries, k)
