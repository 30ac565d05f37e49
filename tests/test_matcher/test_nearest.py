"""Exact nearest neighbours in memory: the same as comparing everything, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluation import exact_top_k
from matcher import DataError, MatcherError
from matcher.semantic_search import Chunks, as_vectors, nearest


def unit(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 300), st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_it_finds_what_comparing_everything_finds(queries: int, responses: int, k: int, seed: int, twins: bool) -> None:
    asked, base = unit(queries, 6, seed), unit(responses, 6, seed + 1)
    if twins:
        base = base[np.random.default_rng(seed).integers(0, max(1, responses // 3), responses)]
    ids, scores = nearest(asked, base, k, Chunks(queries=3, responses=37))
    wanted, exact = exact_top_k(base, asked, k)
    assert scores == pytest.approx(exact, abs=1e-12)
    if not twins:
        assert np.array_equal(ids, wanted)


def test_equal_responses_come_by_lower_row() -> None:
    base = np.tile(unit(5, 8, 0), (40, 1))
    ids, _ = nearest(base[:5], base, 40, Chunks(queries=2, responses=13))
    for query in range(5):
        assert ids[query].tolist() == list(range(query, 200, 5))


def test_blocks_change_nothing_not_even_the_last_bit() -> None:
    asked, base = unit(70, 32, 0), unit(500, 32, 1)
    ids, scores = nearest(asked, base, 7)
    for size in (Chunks(queries=1, responses=9), Chunks(queries=33), Chunks(responses=499)):
        again, others = nearest(asked, base, 7, size)
        assert np.array_equal(ids, again)
        assert np.array_equal(scores, others)


def test_fewer_responses_than_asked_for_all_come() -> None:
    ids, scores = nearest(unit(3, 4, 0), unit(2, 4, 1), 10)
    assert ids.shape == scores.shape == (3, 2)


@pytest.mark.parametrize("size", [{"queries": 0}, {"responses": -1}])
def test_blocks_of_nothing_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(MatcherError, match=r"chunk_size=.* is no size; give 1 or more"):
        Chunks(**size)


def test_embeddings_may_be_a_tensor_a_list_or_one_vector() -> None:
    import torch

    rows = unit(3, 4, 0)
    assert np.array_equal(as_vectors(torch.from_numpy(rows), "x"), rows)
    assert np.array_equal(as_vectors(rows.tolist(), "x"), rows)
    assert as_vectors(rows[0], "x").shape == (1, 4)
    assert np.linalg.norm(as_vectors(rows * 7, "x"), axis=1) == pytest.approx([1, 1, 1])
    assert np.array_equal(as_vectors(rows * 2, "x", "dot"), rows * 2)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.zeros((2, 4)), "row 0, are all zeros"),
        (np.array([[1.0, 0], [np.nan, 1]]), "row 1, hold NaN"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        ([["a"]], "no array of numbers"),
        ([[1, 2], [3]], "no array of numbers"),
    ],
)
def test_embeddings_that_cannot_be_compared_are_told(embeddings: object, message: str) -> None:
    with pytest.raises(DataError, match=f"query_embeddings.*{message}"):
        as_vectors(embeddings, "query_embeddings")
