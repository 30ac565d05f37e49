from __future__ import annotations

import itertools
from pathlib import Path

import faiss
import numpy as np
import pytest
from vector_tables import brute_force, build_index, unit_rows, write_table

from evaluation import ann_recall
from indexer.ann.tune import tune
from storage import VectorTable
from storage.ann import AnnIndex
from storage.schema import ANN_KINDS, AnnKind, AnnPlan, OperatingPoint

CODED = [kind for kind in ANN_KINDS if kind != "flat"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    return write_table(tmp_path_factory.mktemp("table"), unit_rows(4000, 32, clusters=200))


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory, table: VectorTable) -> dict[AnnKind, AnnIndex]:
    folder = tmp_path_factory.mktemp("indexes")
    return {kind: build_index(folder, kind, table) for kind in CODED}


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return unit_rows(60, 32, seed=9, clusters=200)


def at(points: tuple[OperatingPoint, ...], k: int) -> list[OperatingPoint]:
    return [point for point in points if point.k == k]


@pytest.mark.parametrize("kind", CODED)
def test_points_are_a_front_from_cheap_to_exact(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray, kind: AnnKind
) -> None:
    tuning = tune(indexes[kind], table, queries, source="corpus")
    assert (tuning.query_source, tuning.queries) == ("corpus", 60)
    for k in (10, 100):
        points = at(tuning.points, k)
        assert [p.ms_per_query for p in points] == sorted(p.ms_per_query for p in points)
        recalls = [p.ann_recall for p in points]
        assert recalls == sorted(set(recalls))
        assert recalls[-1] >= 0.99


@pytest.mark.parametrize("kind", CODED)
def test_a_point_gives_the_recall_that_it_says(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray, kind: AnnKind
) -> None:
    for point in tune(indexes[kind], table, queries, source="corpus").points:
        found = indexes[kind].search(queries, point.k, nprobe=point.nprobe, oversample=point.oversample)[0]
        measured = ann_recall(found, brute_force(table, queries, point.k))
        # A search that finds too few goes on looking, so it may do better; codes that tie may come in another order.
        assert point.ann_recall - 0.005 <= measured <= point.ann_recall + 0.15


def test_spilled_rows_count_once(tmp_path: Path, table: VectorTable, queries: np.ndarray) -> None:
    """Points of an index in which rows stand twice give what they say, too."""
    ann = build_index(tmp_path, "ivf-pq4", table, 64, queries=unit_rows(2000, 32, seed=4, clusters=7))
    assert ann.plan.spilled > 100
    for point in tune(ann, table, queries, source="corpus", ks=(10,)).points:
        found = ann.search(queries, 10, nprobe=point.nprobe, oversample=point.oversample)[0]
        measured = ann_recall(found, brute_force(table, queries, 10))
        assert point.ann_recall - 0.005 <= measured <= point.ann_recall + 0.15


def test_flat_has_one_point_a_k(table: VectorTable, queries: np.ndarray) -> None:
    flat = AnnIndex.open(None, AnnPlan(kind="flat"), table)
    points = tune(flat, table, queries, source="bank").points
    assert [(p.k, p.nprobe, p.oversample, p.ann_recall) for p in points] == [(10, 0, 1, 1.0), (100, 0, 1, 1.0)]
    assert all(point.ms_per_query > 0 for point in points)


def test_stored_queries_do_not_count_finding_themselves(indexes: dict[AnnKind, AnnIndex], table: VectorTable) -> None:
    own = np.arange(0, 4000, 40)
    stored = table.gather(own).astype(np.float32)
    tuning = tune(indexes["ivf-flat"], table, stored, source="corpus", ks=(10,), self_rows=own)
    truth = without(own, brute_force(table, stored, 11))
    for point in tuning.points:
        found = indexes["ivf-flat"].search(stored, 11, nprobe=point.nprobe, oversample=1)[0]
        assert ann_recall(without(own, found), truth) == pytest.approx(point.ann_recall, abs=0.002)


def without(own: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.stack([line[line != row][:10] for row, line in zip(own, ids, strict=True)])


@pytest.mark.parametrize("kind", CODED)
def test_stored_queries_reach_a_high_recall(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, kind: AnnKind
) -> None:
    own = np.arange(0, 4000, 80)
    stored = table.gather(own).astype(np.float32)
    tuning = tune(indexes[kind], table, stored, source="corpus", self_rows=own)
    assert at(tuning.points, 100)[-1].ann_recall >= 0.99


def test_many_equal_vectors_do_not_lower_the_recall(tmp_path: Path) -> None:
    """A placeholder picture that is in the corpus a thousand times: any ten of them are right."""
    vectors = np.concatenate([np.repeat(unit_rows(1, 32), 1000, axis=0), unit_rows(1000, 32, seed=1)])
    table = write_table(tmp_path, vectors)
    tuning = tune(build_index(tmp_path, "ivf-pq4", table), table, unit_rows(1, 32), source="given", ks=(10,))
    assert tuning.points[0].ann_recall == 1


@pytest.mark.parametrize(("rows", "ks"), [(9, {9}), (10, {10}), (99, {10}), (100, {10, 100})])
def test_only_numbers_of_hits_that_the_collection_has_are_measured(tmp_path: Path, rows: int, ks: set[int]) -> None:
    table = write_table(tmp_path, unit_rows(rows, 16))
    flat = AnnIndex.open(None, AnnPlan(kind="flat"), table)
    assert {point.k for point in tune(flat, table, unit_rows(3, 16), source="bank").points} == ks


@pytest.mark.parametrize("kind", CODED)
def test_a_small_collection_is_measured_to_the_end(tmp_path: Path, kind: AnnKind) -> None:
    table = write_table(tmp_path, unit_rows(256, 16))
    tuning = tune(build_index(tmp_path, kind, table), table, unit_rows(20, 16, seed=3), source="bank")
    assert max(point.ann_recall for point in at(tuning.points, 10)) >= 0.995
    assert all(point.k * (point.oversample // 2) < 256 for point in tuning.points)


def test_nothing_to_ask_or_to_find_has_no_points(tmp_path: Path) -> None:
    one = write_table(tmp_path, unit_rows(1, 16))
    flat = AnnIndex.open(None, AnnPlan(kind="flat"), one)
    assert tune(flat, one, unit_rows(0, 16), source="bank").points == ()
    assert tune(flat, one, unit_rows(1, 16), source="corpus", self_rows=np.array([0])).points == ()


def test_at_most_a_thousand_queries_are_used(table: VectorTable) -> None:
    flat = AnnIndex.open(None, AnnPlan(kind="flat"), table)
    many = unit_rows(1500, 32)
    assert tune(flat, table, many, source="given", self_rows=np.full(1500, -1)).queries == 1000


def test_the_threads_of_faiss_are_put_back(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray
) -> None:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    tune(indexes["ivf-pq"], table, queries[:5], source="given")
    after = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before)
    assert after == 3


def test_a_slow_machine_measures_on_until_most_is_found(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count(step=3600.0)
    monkeypatch.setattr("indexer.ann.tune.time.perf_counter", lambda: next(hours))
    tuning = tune(indexes["ivf-pq4"], table, queries, source="captions")
    best = max(point.ann_recall for point in tuning.points if point.k == 10)
    assert best >= 0.95
