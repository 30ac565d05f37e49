from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_tables import brute_force, build_index, unit_rows, write_table

from storage import VectorTable, ann
from storage.ann import AnnIndex
from storage.errors import CorruptIndexError, SearchParameterError
from storage.schema import ANN_KINDS, AnnKind, AnnPlan

CODED: tuple[AnnKind, ...] = tuple(kind for kind in ANN_KINDS if kind != "flat")
ROWS, DIM, LISTS = 3000, 32, 16


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    return write_table(tmp_path_factory.mktemp("table"), unit_rows(ROWS, DIM))


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory, table: VectorTable) -> dict[AnnKind, AnnIndex]:
    folder = tmp_path_factory.mktemp("indexes")
    coded = {kind: build_index(folder, kind, table, None if kind == "hnsw" else LISTS) for kind in CODED}
    return {"flat": AnnIndex.open(None, AnnPlan(kind="flat"), table), **coded}


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return unit_rows(30, DIM, seed=1)


@pytest.fixture
def always_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small collections never probe with a filter, since comparing their rows is quicker."""
    monkeypatch.setattr(ann, "NARROW_VALUES", 0)


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_probing_everything_equals_brute_force(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray, kind: AnnKind
) -> None:
    ids, scores = indexes[kind].search(queries, 10, nprobe=ROWS, oversample=ROWS // 10)
    assert np.array_equal(ids, brute_force(table, queries, 10))
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("kind", CODED)
@pytest.mark.parametrize("dim", [8, 30, 31, 64, 512])
def test_every_kind_takes_every_dim(tmp_path: Path, kind: AnnKind, dim: int) -> None:
    table = write_table(tmp_path, unit_rows(400, dim))
    queries = unit_rows(5, dim, seed=2)
    found = build_index(tmp_path, kind, table).search(queries, 7, nprobe=400, oversample=60)[0]
    assert np.array_equal(found, brute_force(table, queries, 7))


@pytest.mark.parametrize("kind", CODED)
def test_scores_are_exact_even_where_codes_are_coarse(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray, kind: AnnKind
) -> None:
    ids, scores = indexes[kind].search(queries, 10, nprobe=2, oversample=2)
    stored = table.gather(ids).astype(np.float64)
    assert np.allclose(scores, np.einsum("qd,qkd->qk", queries, stored), atol=1e-6)


@pytest.mark.parametrize("kind", CODED)
def test_a_batch_and_its_queries_alone_give_the_same(
    indexes: dict[AnnKind, AnnIndex], queries: np.ndarray, kind: AnnKind
) -> None:
    together = indexes[kind].search(queries, 10, nprobe=4, oversample=16)
    alone = [indexes[kind].search(query[None], 10, nprobe=4, oversample=16) for query in queries]
    assert np.array_equal(together[0], np.concatenate([one[0] for one in alone]))
    assert np.array_equal(together[1], np.concatenate([one[1] for one in alone]))


@pytest.mark.parametrize("kind", CODED)
def test_too_few_hits_make_the_probing_wider(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray, kind: AnnKind
) -> None:
    """One list does not hold that many rows."""
    ids = indexes[kind].search(queries, 2000, nprobe=1, oversample=1)[0]
    assert (ids >= 0).all()
    assert all(len(np.unique(line)) == 2000 for line in ids)


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_more_hits_than_rows_are_padded(indexes: dict[AnnKind, AnnIndex], queries: np.ndarray, kind: AnnKind) -> None:
    ids, scores = indexes[kind].search(queries[:2], ROWS + 5, nprobe=1, oversample=2)
    assert np.array_equal(np.sort(ids[:, :ROWS], axis=1), np.tile(np.arange(ROWS), (2, 1)))
    assert (ids[:, ROWS:] == -1).all()
    assert np.isneginf(scores[:, ROWS:]).all()


@pytest.mark.parametrize("kind", ANN_KINDS)
@settings(max_examples=12, deadline=None)
@given(share=st.sampled_from([0.002, 0.05, 0.4, 1.0]), seed=st.integers(0, 1000), k=st.integers(1, 20))
def test_a_filter_equals_brute_force_over_its_rows(
    indexes: dict[AnnKind, AnnIndex],
    table: VectorTable,
    queries: np.ndarray,
    kind: AnnKind,
    share: float,
    seed: int,
    k: int,
) -> None:
    rows = some_rows(share, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann, "NARROW_VALUES", 0)
        ids = indexes[kind].search(queries, k, nprobe=ROWS, oversample=ROWS, rows=rows)[0]
    assert np.array_equal(ids, brute_force(table, queries, k, rows))


@pytest.mark.usefixtures("always_probe")
@pytest.mark.parametrize("kind", ANN_KINDS)
def test_no_hit_is_outside_the_filter(indexes: dict[AnnKind, AnnIndex], queries: np.ndarray, kind: AnnKind) -> None:
    for share in (0.005, 0.1, 0.7):
        rows = some_rows(share, 3)
        ids = indexes[kind].search(queries, 12, nprobe=1, oversample=1, rows=rows)[0]
        assert np.isin(ids, rows).all()


def test_a_narrow_filter_is_answered_exactly_at_any_setting(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray
) -> None:
    rows = some_rows(0.5, 4)
    ids = indexes["ivf-pq4"].search(queries, 10, nprobe=1, oversample=1, rows=rows)[0]
    assert np.array_equal(ids, brute_force(table, queries, 10, rows))


@pytest.mark.usefixtures("always_probe")
def test_a_filter_widens_the_probing_by_what_it_leaves_out(
    indexes: dict[AnnKind, AnnIndex], table: VectorTable, queries: np.ndarray
) -> None:
    rows = some_rows(1 / LISTS, 5)
    ids = indexes["ivf-flat"].search(queries, 5, nprobe=1, oversample=4, rows=rows)[0]
    assert np.array_equal(ids, brute_force(table, queries, 5, rows))


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_an_empty_filter_finds_nothing(indexes: dict[AnnKind, AnnIndex], queries: np.ndarray, kind: AnnKind) -> None:
    none = np.array([], dtype=np.int64)
    assert (indexes[kind].search(queries, 3, nprobe=4, oversample=4, rows=none)[0] == -1).all()


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_no_queries_give_no_rows(indexes: dict[AnnKind, AnnIndex], queries: np.ndarray, kind: AnnKind) -> None:
    ids, scores = indexes[kind].search(queries[:0], 3, nprobe=4, oversample=4)
    assert ids.shape == scores.shape == (0, 3)


@pytest.mark.parametrize("kind", CODED)
def test_threads_with_their_own_settings_do_not_disturb_each_other(
    indexes: dict[AnnKind, AnnIndex], queries: np.ndarray, kind: AnnKind
) -> None:
    calls = [
        (line, k, nprobe, rows)
        for line in range(0, 30, 3)
        for k, nprobe in ((1, 1), (10, 4), (25, 16))
        for rows in (None, some_rows(0.3, line))
    ]

    def search(call: tuple[int, int, int, np.ndarray | None]) -> list[int]:
        line, k, nprobe, rows = call
        found = indexes[kind].search(queries[line : line + 2], k, nprobe=nprobe, oversample=4, rows=rows)
        return [*found[0].ravel().tolist(), *found[1].ravel().tolist()]

    expected = [search(call) for call in calls]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(search, calls)) == expected


def test_searching_changes_nothing_on_the_shared_index(
    indexes: dict[AnnKind, AnnIndex], queries: np.ndarray, tmp_path: Path
) -> None:
    narrow = indexes["ivf-pq4"].search(queries, 10, nprobe=1, oversample=4)
    indexes["ivf-pq4"].search(queries, 10, nprobe=LISTS, oversample=64)
    again = indexes["ivf-pq4"].search(queries, 10, nprobe=1, oversample=4)
    assert np.array_equal(narrow[0], again[0])


def test_threads_set_their_own_number_of_faiss_threads() -> None:
    """What the documentation of `AnnIndex` tells servers to do."""
    before = faiss.omp_get_max_threads()

    def set_and_get(count: int) -> int:
        faiss.omp_set_num_threads(count)
        return int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(set_and_get, before + 2).result() == before + 2
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("kind", CODED)
def test_duplicates_come_by_row_id(tmp_path: Path, kind: AnnKind) -> None:
    table = write_table(tmp_path, np.repeat(unit_rows(100, 16), 6, axis=0))
    query = table.gather(np.array([300])).astype(np.float32)
    ids, scores = build_index(tmp_path, kind, table).search(query, 6, nprobe=600, oversample=20)
    assert ids.tolist() == [[300, 301, 302, 303, 304, 305]]
    assert len(np.unique(scores)) == 1


@pytest.mark.parametrize("kind", CODED)
def test_a_collection_of_one_vector_many_times_can_be_indexed(tmp_path: Path, kind: AnnKind) -> None:
    table = write_table(tmp_path, np.repeat(unit_rows(1, 16), 300, axis=0))
    ids = build_index(tmp_path, kind, table).search(unit_rows(1, 16), 5, nprobe=300, oversample=60)[0]
    assert ids.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0; give 1 or more"),
        ({"nprobe": -2}, "nprobe is -2; give 1 or more"),
        ({"oversample": 0}, "oversample is 0"),
        ({"queries": np.ones((2, 5))}, r"shape \(2, 5\); this index takes \(n, 32\)"),
        ({"queries": np.ones(32)}, r"shape \(32,\)"),
        ({"queries": np.full((1, 32), np.nan)}, "NaN or infinity"),
        ({"rows": np.array([5, 3])}, "ascending"),
        ({"rows": np.array([0, ROWS])}, f"from 0 to {ROWS - 1}"),
    ],
)
def test_a_search_out_of_range_is_refused(
    indexes: dict[AnnKind, AnnIndex], queries: np.ndarray, change: dict[str, object], message: str
) -> None:
    call = {"queries": queries, "k": 3, "nprobe": 2, "oversample": 2, **change}
    with pytest.raises(SearchParameterError, match=message):
        indexes["ivf-pq"].search(call.pop("queries"), call.pop("k"), **call)


def test_flat_has_no_candidates(indexes: dict[AnnKind, AnnIndex], queries: np.ndarray) -> None:
    with pytest.raises(SearchParameterError, match="use search"):
        indexes["flat"].candidates(queries, 10, nprobe=1, k=10)


@pytest.fixture(scope="module")
def spilled(tmp_path_factory: pytest.TempPathFactory, table: VectorTable) -> AnnIndex:
    """Filled with queries in mind that lie elsewhere than the vectors: some rows stand in two lists or more."""
    folder = tmp_path_factory.mktemp("spilled")
    found = build_index(folder, "ivf-pq4", table, LISTS, queries=unit_rows(500, DIM, seed=5, clusters=3))
    assert found.plan.spilled > 0
    return found


@pytest.mark.parametrize("oversample", [1, 2, 30])
@pytest.mark.parametrize("nprobe", [1, LISTS])
def test_a_spilled_row_is_found_once(spilled: AnnIndex, nprobe: int, oversample: int) -> None:
    """Also where so few candidates are asked for that a row that comes twice leaves too few."""
    ids, scores = spilled.search(unit_rows(100, DIM, seed=5, clusters=3), 25, nprobe=nprobe, oversample=oversample)
    assert (ids >= 0).all()
    assert all(len(np.unique(line)) == 25 for line in ids)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_spilled_index_probed_to_the_end_equals_brute_force(
    spilled: AnnIndex, table: VectorTable, queries: np.ndarray
) -> None:
    ids, _ = spilled.search(queries, 10, nprobe=LISTS, oversample=ROWS)
    assert np.array_equal(ids, brute_force(table, queries, 10))
    everything = spilled.search(queries[:2], ROWS, nprobe=1, oversample=1)[0]
    assert np.array_equal(np.sort(everything, axis=1), np.tile(np.arange(ROWS), (2, 1)))


@pytest.mark.usefixtures("always_probe")
@pytest.mark.parametrize("share", [0.005, 0.1, 0.7])
def test_a_filter_holds_for_spilled_rows(
    spilled: AnnIndex, table: VectorTable, queries: np.ndarray, share: float
) -> None:
    rows = some_rows(share, 6)
    narrow = spilled.search(queries, 12, nprobe=1, oversample=1, rows=rows)[0]
    assert np.isin(narrow, rows).all()
    ids = spilled.search(queries, 12, nprobe=LISTS, oversample=ROWS, rows=rows)[0]
    assert np.array_equal(ids, brute_force(table, queries, 12, rows))


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_wrong_number_of_spilled_entries_is_refused(tmp_path: Path, table: VectorTable, wrong: int) -> None:
    plan = build_index(tmp_path, "ivf-pq4", table, LISTS, queries=unit_rows(200, DIM, seed=5, clusters=3)).plan
    changed = replace(plan, spilled=plan.spilled + wrong)
    with pytest.raises(CorruptIndexError, match=r"has rows \d+ where \d+ is expected"):
        AnnIndex.open(tmp_path / "ivf-pq4.faiss", changed, table)


@pytest.mark.parametrize("kind", CODED)
def test_an_index_of_other_vectors_is_refused(tmp_path: Path, kind: AnnKind) -> None:
    build_index(tmp_path, kind, write_table(tmp_path / "a", unit_rows(400, 16)), None if kind == "hnsw" else 4)
    plan = AnnPlan(kind=kind, nlist=0 if kind == "hnsw" else 4)
    for name, other in (("rows", unit_rows(500, 16)), ("dim", unit_rows(400, 8))):
        table = write_table(tmp_path / name, other)
        with pytest.raises(CorruptIndexError, match=rf"{kind}\.faiss has {name} "):
            AnnIndex.open(tmp_path / f"{kind}.faiss", plan, table)


def test_an_index_of_another_plan_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path, unit_rows(400, 16))
    plan = build_index(tmp_path, "ivf-pq4", table, 4).plan
    with pytest.raises(CorruptIndexError, match="has nlist 4 where 8 is expected"):
        AnnIndex.open(tmp_path / "ivf-pq4.faiss", replace(plan, nlist=8), table)
    with pytest.raises(CorruptIndexError, match="needs a file and none was named"):
        AnnIndex.open(None, plan, table)


def some_rows(share: float, seed: int) -> np.ndarray:
    count = max(1, round(share * ROWS))
    return np.sort(np.random.default_rng(seed).choice(ROWS, count, replace=False)).astype(np.int64)
