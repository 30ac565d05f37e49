"""What torch computes on a device is what the CPU computes: tested without a GPU, on torch's own CPU."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from vector_tables import unit_rows, write_table

from indexer.ann import kmeans as gpu
from indexer.ann.kmeans import add_to_lists, exact_neighbours, list_centroids, lists_of
from storage.exact_search import exact_search

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.mark.parametrize("k", [1, 10, 50])
def test_neighbours_are_those_of_the_exact_search_to_the_last_bit(
    k: int, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_BLOCK_ROWS", 1024)
    monkeypatch.setattr(gpu, "_QUERIES", 64)
    with write_table(tmp_path, unit_rows(5000, 32)) as table:
        queries = unit_rows(150, 32, seed=1)
        ours, theirs = exact_neighbours(table, queries, k, device=device), exact_search(table, queries, k)
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])


def test_equal_vectors_come_by_row_however_many_there_are(device: str, tmp_path: Path) -> None:
    with write_table(tmp_path, np.repeat(unit_rows(20, 32), 100, axis=0)) as table:
        queries = unit_rows(20, 32)
        ours, theirs = exact_neighbours(table, queries, 5, device=device), exact_search(table, queries, 5)
        assert np.array_equal(ours[0], theirs[0])


def test_a_query_does_not_find_its_own_row(device: str, tmp_path: Path) -> None:
    vectors = unit_rows(300, 32)
    own = np.arange(300)
    own[7] = -1
    with write_table(tmp_path, vectors) as table:
        ours = exact_neighbours(table, vectors, 3, device=device, exclude=own)[0]
        assert np.array_equal(ours, exact_search(table, vectors, 3, exclude=own)[0])
        assert (ours[7, 0], bool((ours[8] == 8).any())) == (7, False)


def test_fewer_rows_than_asked_for_are_padded(device: str, tmp_path: Path) -> None:
    with write_table(tmp_path, unit_rows(4, 32)) as table:
        ids, scores = exact_neighbours(table, unit_rows(2, 32, seed=1), 9, device=device)
        assert ids.shape == scores.shape == (2, 9)
        assert (ids[:, 4:] == -1).all()
        assert np.isneginf(scores[:, 4:]).all()


def test_no_queries_give_no_rows(tmp_path: Path) -> None:
    with write_table(tmp_path, unit_rows(4, 32)) as table:
        assert exact_neighbours(table, np.empty((0, 32)), 3, device="cpu")[0].shape == (0, 3)


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
