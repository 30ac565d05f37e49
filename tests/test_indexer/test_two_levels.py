"""Many centroids in two levels, beside k-means that compares each row with each of them."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.ann.kmeans import nearest_centroids, train_centroids
from indexer.ann.plan import plan_ann
from indexer.ann.train import build_ann
from indexer.ann.two_levels import MANY, TwoLevels, train_many_centroids
from storage.ann import AnnIndex
from storage.exact_search import exact_search
from storage.vectors import VectorTable, VectorWriter

DIM, ROWS = 32, 12_000


def rows_of(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    spread = 1 / np.sqrt(1 + np.arange(DIM))
    rows = (random.standard_normal((300, DIM)) * spread)[random.integers(0, 300, count)]
    rows = rows + 0.4 * random.standard_normal((count, DIM)) * spread + 0.3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return rows_of(ROWS, 0)


def fit(sample: np.ndarray, centroids: np.ndarray) -> float:
    return float((sample * centroids[nearest_centroids(sample, centroids)]).sum(axis=1).mean())


def test_they_fit_the_rows_about_as_well(sample: np.ndarray) -> None:
    many = train_many_centroids(sample, 512, 0)
    assert (many.shape, many.dtype) == ((512, DIM), np.float32)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)
    assert np.bincount(nearest_centroids(sample, many), minlength=512).min() > 0
    flat = train_centroids(sample, 512, 0)
    one = sample[np.random.default_rng(1).choice(ROWS, 512, replace=False)]
    assert 1 - fit(sample, many) < 1.03 * (1 - fit(sample, flat)) < 0.9 * (1 - fit(sample, one))


def test_the_same_seed_gives_the_same(sample: np.ndarray) -> None:
    assert np.array_equal(train_many_centroids(sample, 100, 3), train_many_centroids(sample, 100, 3))
    assert not np.array_equal(train_many_centroids(sample, 100, 3), train_many_centroids(sample, 100, 4))


@pytest.mark.parametrize("nlist", [1, 2, 5, 64, 1000])
def test_rows_get_the_nearest_list_or_one_almost_as_near(sample: np.ndarray, nlist: int) -> None:
    centroids = rows_of(nlist, 1)
    lists = TwoLevels(centroids, 0).lists_of(sample)
    exact = nearest_centroids(sample, centroids)
    assert (lists == exact).mean() > (0.96 if nlist > 100 else 0.999)
    lost = ((centroids[exact] - centroids[lists]) * sample).sum(axis=1)
    assert lost.max() < 0.1


def test_as_many_lists_as_rows_and_equal_rows_are_none_too_many() -> None:
    equal = np.repeat(rows_of(3, 2), 20, axis=0)
    assert train_many_centroids(equal, 60, 0).shape == (60, DIM)
    assert np.isfinite(train_many_centroids(equal, 60, 0)).all()


def test_an_index_of_many_lists_is_built_with_them_and_finds_what_there_is(sample: np.ndarray, tmp_path: Path) -> None:
    with VectorWriter(tmp_path / "vectors.arrow", DIM) as writer:
        writer.append([str(row) for row in range(ROWS)], sample)
    vectors = VectorTable.open(tmp_path / "vectors.arrow")
    plan = build_ann(vectors, plan_ann("ivf-pq4", ROWS, DIM, nlist=MANY), tmp_path / "ann.faiss")
    ann, queries = AnnIndex.open(tmp_path / "ann.faiss", plan, vectors), rows_of(50, 5)
    ids, _ = ann.search(queries, 10, nprobe=200, oversample=32)
    expected = exact_search(vectors, queries, 10)[0]
    assert np.mean([len({*a} & {*b}) / 10 for a, b in zip(ids.tolist(), expected.tolist(), strict=True)]) > 0.95
    index = faiss.read_index(str(tmp_path / "ann.faiss"))
    lists = faiss.downcast_index(index.index)
    assert (lists.nlist, lists.ntotal) == (MANY, ROWS)
