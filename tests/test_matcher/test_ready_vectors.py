"""Embeddings given ready for semantic search, and how much of them is compared at a time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from matcher import DataError, MatcherError
from matcher.vector_search import Chunks, as_vectors


def unit(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("size", [{"queries": 0}, {"responses": -1}])
def test_blocks_of_nothing_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(MatcherError, match=r"chunk_size=.* is no size; give 1 or more"):
        Chunks(**size)


def test_embeddings_may_be_a_tensor_a_list_or_one_vector() -> None:
    import torch

    rows = unit(3, 4, 0)
    assert np.array_equal(as_vectors(torch.from_numpy(rows), "x"), rows)
    assert np.array_equal(as_vectors(rows.tolist(), "x"), rows)
    half = torch.from_numpy(rows).bfloat16().requires_grad_()
    assert as_vectors(half, "x") == pytest.approx(rows, abs=0.01)
    assert np.array_equal(as_vectors(list(half), "x"), as_vectors(half, "x"))
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
