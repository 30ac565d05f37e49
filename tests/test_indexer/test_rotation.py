"""The rotation before product codes: it changes no inner product, and shares the spread out among the codes."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from vector_tables import brute_force, write_table

from evaluation import ann_recall
from indexer.ann.plan import plan_ann
from indexer.ann.rotation import Seen, pq_rotation, turn
from indexer.ann.train import build_ann
from storage.ann import AnnIndex
from storage.faiss_file import write_ann


def uneven(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Unit vectors with a common mean, whose spread falls by half every fourth axis; the axes lie askew."""
    generator = np.random.default_rng([seed, dim])
    spreads = 0.5 ** (np.arange(dim) / 8)
    askew = np.linalg.qr(np.random.default_rng(dim).standard_normal((dim, dim)))[0]
    vectors = (generator.standard_normal((count, dim)) * spreads + 1.0) @ askew
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_inner_products_stay_what_they_are() -> None:
    vectors = uneven(500, 32)
    rotation = pq_rotation(vectors, 8)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(32), atol=1e-5)
    turned = vectors.copy()
    turn(turned, rotation)
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-5)


def test_every_code_gets_as_much_to_tell_as_the_others() -> None:
    vectors = uneven(4000, 32)
    turned = vectors @ pq_rotation(vectors, 8).T
    covariance = np.cov(turned.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6)
    products = np.log(np.diag(covariance)).reshape(8, 4).sum(axis=1)
    assert np.ptp(products) < 0.2 * np.ptp(np.sort(np.log(np.diag(covariance))).reshape(8, 4).sum(axis=1))


def test_codes_of_one_dimension_have_about_as_much_to_tell_as_one_another() -> None:
    vectors = uneven(4000, 32)
    plain, mixed = (np.var(vectors @ turned.T, axis=0) for turned in (np.eye(32), pq_rotation(vectors, 32)))
    assert mixed.sum() == pytest.approx(plain.sum(), rel=1e-4)
    assert np.allclose(mixed.reshape(8, 4), mixed.reshape(8, 4).mean(axis=1, keepdims=True), rtol=1e-3)
    spreads = np.linalg.eigvalsh(np.cov(vectors.T))
    assert mixed.max() / mixed.min() < 0.2 * spreads[-1] / spreads[0]


@pytest.mark.parametrize(("rows", "dim", "codes"), [(3, 8, 8), (3, 8, 2), (100, 1, 1), (50, 6, 6), (1, 4, 1)])
def test_few_rows_and_odd_sizes_give_a_rotation_too(rows: int, dim: int, codes: int) -> None:
    rotation = pq_rotation(uneven(rows, dim), codes)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-5)


def test_rows_and_queries_are_seen_alike(tmp_path: Path) -> None:
    table = write_table(tmp_path, uneven(300, 16))
    rotation = pq_rotation(uneven(300, 16), 4)
    seen, ids = Seen(table, rotation), np.array([5, 0, 7])
    np.testing.assert_allclose(seen.rows(ids), table.gather(ids).astype(np.float32) @ rotation.T, atol=1e-6)
    np.testing.assert_array_equal(Seen(table).rows(ids), table.gather(ids).astype(np.float32))


def test_the_same_codes_find_more_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_table(tmp_path, uneven(6000, 260))
    plan, queries = plan_ann("ivf-pq4", table.rows, table.dim), uneven(200, 260, seed=1)
    truth, recalls = brute_force(table, queries, 10), []
    for name, rotation in (("with", pq_rotation), ("without", lambda sample, _: np.eye(sample.shape[1], dtype="f4"))):
        monkeypatch.setattr("indexer.ann.train.pq_rotation", rotation)
        build_ann(table, plan, tmp_path / name)
        ann = AnnIndex.open(tmp_path / name, plan, table)
        recalls.append(ann_recall(ann.search(queries, 10, nprobe=plan.nlist, oversample=2)[0], truth))
    assert recalls[0] > recalls[1] + 0.05


def test_one_query_finds_what_it_finds_among_others(tmp_path: Path) -> None:
    table = write_table(tmp_path, uneven(6000, 64))
    plan, queries = plan_ann("ivf-pq4", table.rows, table.dim), uneven(50, 64, seed=1)
    build_ann(table, plan, tmp_path / "ann.faiss")
    ann = AnnIndex.open(tmp_path / "ann.faiss", plan, table)
    batch = ann.search(queries, 10, nprobe=4, oversample=8)[0]
    single = np.concatenate([ann.search(query[None], 10, nprobe=4, oversample=8)[0] for query in queries])
    assert (batch == single).mean() > 0.99


def test_the_file_holds_a_plain_rotation_that_faiss_reads(tmp_path: Path) -> None:
    table = write_table(tmp_path, uneven(3000, 16))
    for kind in ("ivf-pq", "ivf-pq4"):
        plan = plan_ann(kind, table.rows, table.dim)  # type: ignore[arg-type]
        build_ann(table, plan, tmp_path / kind)
        index = faiss.read_index(str(tmp_path / kind))
        assert isinstance(index, faiss.IndexPreTransform)
        transform = faiss.downcast_VectorTransform(index.chain.at(0))
        assert not transform.have_bias  # a mean that is taken off would change every inner product


def test_codes_without_a_rotation_are_read_too(tmp_path: Path) -> None:
    table = write_table(tmp_path, uneven(3000, 16))
    plan = plan_ann("ivf-pq4", table.rows, table.dim)
    build_ann(table, plan, tmp_path / "rotated")
    index = faiss.read_index(str(tmp_path / "rotated"))
    write_ann(faiss.downcast_index(index.index), tmp_path / "plain")
    turned = faiss.downcast_VectorTransform(index.chain.at(0)).apply(uneven(20, 16, seed=1))
    found = [
        AnnIndex.open(tmp_path / name, plan, table).candidates(queries, 50, nprobe=plan.nlist, k=50)
        for name, queries in (("rotated", uneven(20, 16, seed=1)), ("plain", turned))
    ]
    shared = [len({*one} & {*other}) / 50 for one, other in zip(*(ids.tolist() for ids in found), strict=True)]
    assert np.mean(shared) > 0.95  # the rotation is rounded where it is scanned compiled
