"""Exact nearest neighbors: those of sorting float64 scores, whatever the blocks and the vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from evaluation import exact_top_k

VALUES = st.integers(-3, 3).map(float)


def unit(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_sorting(base: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best k by float64 scores, one query at a time, equal scores by lower row."""
    scores = np.array([(base.astype(np.float64) * query.astype(np.float64)).sum(axis=1) for query in queries])
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(scores, ids, axis=1)


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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 300), st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_it_finds_what_sorting_all_scores_finds(count: int, rows: int, k: int, seed: int, duplicates: bool) -> None:
    queries, base = unit(count, 6, seed), unit(rows, 6, seed + 1)
    if duplicates:
        base = base[np.random.default_rng(seed).integers(0, max(1, rows // 3), rows)]
    ids, scores = exact_top_k(base, queries, k, query_block=3, base_block=37)
    expected = by_sorting(base, queries, k)
    assert np.array_equal(ids, expected[0])
    assert scores == pytest.approx(expected[1], abs=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, 1e150, 1e-150])
def test_wide_vectors_of_any_size_are_told_apart_where_float32_cannot(scale: float) -> None:
    random = np.random.default_rng(0)
    direction = random.standard_normal(32)
    base = (direction + 1e-9 * random.standard_normal((400, 32))) * scale
    queries = (direction + 1e-9 * random.standard_normal((5, 32))) * scale
    ids, scores = exact_top_k(base, queries, 10, base_block=77)
    expected = by_sorting(base, queries, 10)
    assert scores == pytest.approx(expected[1], rel=1e-13)
    assert (ids == expected[0]).mean() > 0.95  # the last digits of float64 are not known either


def test_equal_rows_come_by_lower_row() -> None:
    base = np.tile(unit(5, 8, 0), (40, 1))
    ids, _ = exact_top_k(base, base[:5], 40, query_block=2, base_block=13)
    for query in range(5):
        assert ids[query].tolist() == list(range(query, 200, 5))


def test_blocks_change_nothing_not_even_the_last_bit() -> None:
    queries, base = unit(70, 32, 0), unit(500, 32, 1)
    ids, scores = exact_top_k(base, queries, 7)
    for size in ({"query_block": 1, "base_block": 9}, {"query_block": 33}, {"base_block": 499}):
        again, others = exact_top_k(base, queries, 7, **size)
        assert np.array_equal(ids, again)
        assert np.array_equal(scores, others)


def test_half_precision_is_compared_exactly() -> None:
    base = np.array([[1.0, 0.0], [0.999, 0.045]], dtype=np.float16)
    assert exact_top_k(base, base, 2)[0].tolist() == [[0, 1], [1, 0]]


def test_whole_numbers_are_vectors_too() -> None:
    assert exact_top_k(np.eye(3, dtype=int), np.eye(3, dtype=int), 1)[0].tolist() == [[0], [1], [2]]


def test_more_hits_than_rows_give_all_rows() -> None:
    ids, scores = exact_top_k(unit(2, 4, 1), unit(3, 4, 0), 10)
    assert ids.shape == scores.shape == (3, 2)


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
