"""What torch computes on a device is what the CPU computes: tested without a GPU, on torch's own CPU."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from vector_tables import unit_rows

from indexer.ann.kmeans import add_to_lists, list_centroids, lists_of

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def test_centres_are_of_unit_length_repeatable_and_as_good_as_those_of_faiss(device: str) -> None:
    sample = unit_rows(4000, 32, clusters=40)
    centres = list_centroids(sample, 64, device=device)
    assert centres.shape == (64, 32)
    assert np.allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    assert np.allclose(centres, list_centroids(sample, 64, device=device), atol=1e-5)
    theirs = faiss.Kmeans(32, 64, niter=10, spherical=True, seed=1)
    theirs.train(sample)
    ours = (sample @ centres.T).max(axis=1).mean()
    assert ours > (sample @ theirs.centroids.T).max(axis=1).mean() - 0.02


def test_no_centre_stays_without_rows(device: str) -> None:
    sample = np.concatenate([np.repeat(unit_rows(3, 32), 50, axis=0), unit_rows(40, 32, seed=2)])
    centres = list_centroids(sample, 20, device=device)
    assert len(np.unique(lists_of(sample, centres, device=device))) >= 18


def test_rows_added_to_their_lists_are_found_as_if_faiss_had_added_them(device: str) -> None:
    vectors, queries = unit_rows(3000, 32), unit_rows(50, 32, seed=3)
    index = faiss.index_factory(32, "IVF16,PQ8x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    other = faiss.clone_index(index)
    index.add(vectors)
    centres = other.quantizer.reconstruct_n(0, 16)
    for start in range(0, 3000, 700):
        part = vectors[start : start + 700]
        add_to_lists(other, part, np.arange(start, start + len(part)), lists_of(part, centres, device=device))
    assert other.ntotal == 3000
    expected, found = index.search(queries, 10), other.search(queries, 10)
    assert np.array_equal(expected[1], found[1])
    assert np.allclose(expected[0], found[0])
