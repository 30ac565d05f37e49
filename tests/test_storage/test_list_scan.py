"""The compiled scan of inverted lists against FAISS and against the exact re-rank."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from indexer.ann.plan import plan_ann
from indexer.ann.train import build_ann
from storage import compiled, list_scan
from storage.ann import AnnIndex
from storage.errors import SearchParameterError
from storage.exact_search import exact_search, inner_products, rerank
from storage.list_scan import ListScan
from storage.schema import VectorDType
from storage.vectors import VectorTable, VectorWriter

ROWS = 3000
LANES = [lanes for lanes in (256, 512) if compiled.list_scan and lanes <= compiled.list_scan.lanes()]
needs_scan = pytest.mark.skipif(not LANES, reason="the scan was not compiled, or this processor has no AVX2")


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    centers = random.standard_normal((40, dim)) * np.sqrt(1 / (1 + np.arange(dim)))
    vectors = centers[random.integers(0, 40, rows)] + 0.3 * random.standard_normal((rows, dim)) / np.sqrt(dim)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def opened(
    folder: Path, dim: int, spilling: bool = True, nlist: int = 32, dtype: VectorDType = "float16"
) -> tuple[AnnIndex, VectorTable]:
    path, table = folder / "ann.faiss", folder / "vectors.arrow"
    if not table.exists():
        with VectorWriter(table, dim, batch_rows=1024, dtype=dtype) as writer:
            writer.append([str(row) for row in range(ROWS)], unit(ROWS, dim, 0))
    vectors = VectorTable.open(table)
    plan = plan_ann("ivf-pq4", ROWS, dim, nlist=nlist)
    plan = build_ann(vectors, plan, path, queries=unit(400, dim, 1) if spilling else None)
    return AnnIndex.open(path, plan, vectors), vectors


@pytest.fixture(scope="module", params=[(64, "float16"), (200, "float16"), (264, "float16"), (72, "int8")])
def index(request, tmp_path_factory):
    dim, dtype = request.param
    return opened(tmp_path_factory.mktemp("scan"), dim, dtype=dtype)


def scan_of(ann: AnnIndex, vectors: VectorTable, lanes: int) -> ListScan:
    return ListScan(ann._index, ann._rotation, vectors, lanes)


@pytest.mark.parametrize("dim", [1, 3, 64, 65, 200])
def test_inner_products_are_added_in_the_stated_order(dim):
    random = np.random.default_rng(dim)
    row, query = random.standard_normal((2, dim)).astype(np.float32)
    sums = [np.float32(0)] * 64
    for place in range(dim):
        sums[place % 64] = sums[place % 64] + row[place] * query[place]
    width = 64
    while width > 1:
        width //= 2
        sums = [sums[place] + sums[place + width] for place in range(width)]
    found = inner_products(np.tile(row, (3, 1)), query[None])
    assert found.tolist() == [float(sums[0])] * 3
    assert found[0] == pytest.approx(float(row.astype(np.float64) @ query), abs=1e-4)


@needs_scan
@pytest.mark.parametrize("lanes", LANES)
def test_results_are_those_of_the_exact_re_rank_to_the_last_bit(index, lanes):
    ann, vectors = index
    scan, queries = scan_of(ann, vectors, lanes), unit(40, vectors.dim, 2)
    for nprobe, count in ((1, 10), (4, 60), (32, 300)):
        ids, scores = scan.search(queries, 10, count, nprobe)
        expected = rerank(vectors, queries, scan.candidates(queries, 10, count, nprobe), 10)
        assert np.array_equal(ids, expected[0])
        assert np.array_equal(scores, expected[1])


@needs_scan
@pytest.mark.parametrize("lanes", LANES)
def test_candidates_are_those_of_faiss_but_for_rounding(index, lanes):
    ann, vectors = index
    assert ann.plan.spilled
    scan, queries = scan_of(ann, vectors, lanes), unit(100, vectors.dim, 3)
    turned = queries if ann._rotation is None else queries @ ann._rotation.T
    found = scan.candidates(queries, 50, 50, 6)
    known = ann._index.search(turned, 50, params=faiss.SearchParametersIVF(nprobe=6))[1]
    alike = []
    for one, other in zip(found, known, strict=True):
        rows, expected = {*one.tolist()} - {-1}, {*other.tolist()} - {-1}
        alike.append(len(expected & rows) / len(expected))
    assert np.mean(alike) > 0.9


@needs_scan
@pytest.mark.parametrize("lanes", LANES)
def test_all_lists_and_all_candidates_find_what_comparing_all_finds(index, lanes):
    ann, vectors = index
    scan, queries = scan_of(ann, vectors, lanes), unit(5, vectors.dim, 4)
    ids, scores = scan.search(queries, 10, ROWS + ann.plan.spilled, 1000)
    assert np.array_equal(ids, exact_search(vectors, queries, 10)[0])
    assert np.array_equal(scores, exact_search(vectors, queries, 10)[1])


@needs_scan
def test_a_filter_lets_only_its_rows_through(index):
    ann, vectors = index
    allowed = np.zeros(ROWS, dtype=np.bool_)
    allowed[::7] = True
    ids, _ = ann._scan.search(unit(9, vectors.dim, 5), 10, 40, 32, np.packbits(allowed, bitorder="little"))
    assert (ids >= 0).all()
    assert (ids % 7 == 0).all()


@needs_scan
def test_fewer_rows_than_asked_for_are_padded(index):
    ann, vectors = index
    allowed = np.zeros(ROWS, dtype=np.bool_)
    allowed[[5, 17]] = True
    ids, scores = ann._scan.search(unit(1, vectors.dim, 6), 4, 40, 32, np.packbits(allowed, bitorder="little"))
    assert sorted(ids[0].tolist()) == [-1, -1, 5, 17]
    assert scores[0, 0] >= scores[0, 1] > scores[0, 2] == -np.inf


@needs_scan
def test_a_batch_over_threads_and_searches_at_once_give_what_one_query_gives(index):
    ann, vectors = index
    queries = unit(300, vectors.dim, 7)
    alone = np.concatenate([ann._scan.search(queries[row : row + 1], 10, 60, 4)[0] for row in range(len(queries))])
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        assert np.array_equal(ann._scan.search(queries, 10, 60, 4)[0], alone)
    finally:
        faiss.omp_set_num_threads(before)
    with ThreadPoolExecutor(4) as pool:
        for ids, _ in pool.map(lambda _: ann._scan.search(queries, 10, 60, 4), range(8)):
            assert np.array_equal(ids, alone)


@needs_scan
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(("number", "nprobe", "count"), [(2, 1, 10), (2, 32, 700), (129, 3, 20), (260, 20, 40)])
def test_queries_together_find_what_each_finds_alone(index, lanes, number, nprobe, count):
    ann, vectors = index
    scan, queries = scan_of(ann, vectors, lanes), unit(number, vectors.dim, 11)
    queries[1::2] = queries[0]  # and the same lists again and again
    some = np.packbits(np.arange(ROWS) % 3 > 0, bitorder="little")
    faiss.omp_set_num_threads(1)
    for allowed in (None, some):
        ids, scores = scan.search(queries, 10, count, nprobe, allowed)
        candidates = scan.candidates(queries, 10, count, nprobe, allowed)
        for row in [*range(0, number, 7), number - 1]:
            alone = scan.search(queries[row : row + 1], 10, count, nprobe, allowed)
            assert np.array_equal(ids[row], alone[0][0])
            assert np.array_equal(scores[row], alone[1][0])
            alone = scan.candidates(queries[row : row + 1], 10, count, nprobe, allowed)
            assert np.array_equal(candidates[row], alone[0])


@pytest.fixture(scope="module")
def finely(tmp_path_factory):
    """So many lists that codes say which centroids are compared with a query; FAISS keeps its own, to compare with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ListScan, "let_centroids_go", lambda *_: None)
        return opened(tmp_path_factory.mktemp("finely"), 64, nlist=1030)


@needs_scan
def test_searches_need_no_floats_of_many_centroids(finely):
    ann, vectors = finely
    spared = AnnIndex.open(vectors.path.parent / "ann.faiss", ann.plan, vectors)
    floats = [faiss.downcast_index(faiss.downcast_index(one._index.quantizer).refine_index) for one in (ann, spared)]
    assert [one.ntotal for one in floats] == [1030, 0]
    for queries in (unit(1, 64, 5), unit(40, 64, 5)):
        for rows in (None, np.arange(0, ROWS, 2)):
            expected, found = (one.search(queries, 10, nprobe=20, oversample=8, rows=rows) for one in (ann, spared))
            assert np.array_equal(found[0], expected[0])
            assert np.array_equal(found[1], expected[1])


@needs_scan
@pytest.mark.parametrize("lanes", LANES)
def test_lists_found_by_codes_of_their_centroids_are_those_of_all_centroids(finely, lanes):
    ann, vectors = finely
    scan, queries = scan_of(ann, vectors, lanes), unit(100, 64, 12)
    turned = queries if ann._rotation is None else queries @ ann._rotation.T
    centroids = faiss.downcast_index(ann._index.quantizer).reconstruct_n(0, 1030)
    ranked = np.argsort(-(turned @ centroids.T), axis=1)
    homes = {row: number for number in range(1030) for row in ids_of(ann._index, number)}
    visited = 30
    for query, found in enumerate(scan.candidates(queries, 40, 40, visited).tolist()):
        near = {*ranked[query, : 2 * visited].tolist()}
        assert np.mean([homes[row] in near for row in found if row >= 0]) > 0.95
    ids, scores = scan.search(queries, 10, 200, 200)
    exact = exact_search(vectors, queries, 10)
    assert np.mean([len({*a} & {*b}) / 10 for a, b in zip(ids.tolist(), exact[0].tolist(), strict=True)]) > 0.95
    assert np.array_equal(scores[:, 0], exact[1][:, 0])


@needs_scan
@pytest.mark.parametrize("lanes", LANES)
def test_fewer_candidates_are_the_first_of_more(finely, lanes):
    ann, vectors = finely
    scan, queries = scan_of(ann, vectors, lanes), unit(60, 64, 13)
    for nprobe in (1, 7, 64, 400):
        many = scan.candidates(queries, 10, 300, nprobe)
        for count in (10, 60, 150):
            assert np.array_equal(scan.candidates(queries, 10, count, nprobe), many[:, :count])


@needs_scan
def test_lists_that_are_passed_over_have_next_to_nothing_among_the_hits(finely):
    ann, vectors = finely
    queries = unit(200, 64, 14)
    scan, turned = ann._scan, queries if ann._rotation is None else queries @ ann._rotation.T
    found = scan.search(queries, 10, 120, 300)[0]
    known = ann._index.search(turned, 130, params=faiss.SearchParametersIVF(nprobe=300))[1]
    known = rerank(vectors, queries, known, 10)[0]
    missed = [len({*b} - {*a}) / 10 for a, b in zip(found.tolist(), known.tolist(), strict=True)]
    assert np.mean(missed) < 0.005
    # Fewer lists are gone through than are asked for, or there would be as many entries of the last as of the first.
    homes = {row: number for number in range(1030) for row in ids_of(ann._index, number)}
    ranks = np.argsort(np.argsort(-(turned @ faiss.downcast_index(ann._index.quantizer).reconstruct_n(0, 1030).T)))
    last = [
        np.mean([ranks[query, homes[row]] >= 150 for row in rows if row >= 0])
        for query, rows in enumerate(scan.candidates(queries, 1, 900, 300).tolist())
    ]
    assert np.mean(last) < 0.1


def ids_of(lists, number):
    size = lists.invlists.list_size(number)
    return faiss.rev_swig_ptr(lists.invlists.get_ids(number), size).tolist() if size else []


@needs_scan
def test_all_lists_of_many_find_what_comparing_all_finds(finely):
    ann, vectors = finely
    ids, scores = ann._scan.search(unit(5, 64, 4), 10, ROWS + ann.plan.spilled, 1030)
    assert np.array_equal(ids, exact_search(vectors, unit(5, 64, 4), 10)[0])
    assert np.array_equal(scores, exact_search(vectors, unit(5, 64, 4), 10)[1])


@needs_scan
def test_arrays_that_do_not_fit_are_refused(index):
    ann, vectors = index
    scan, raw = ann._scan._scan, compiled.list_scan
    query, ids, scores = unit(1, vectors.dim, 8), np.empty((1, 5), np.int64), np.empty((1, 5), np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        raw.search(scan, query[:, :-1].copy(), 1, 4, 20, 5, None, True, ids, scores)
    with pytest.raises(ValueError, match="do not fit"):
        raw.search(scan, query, 1, 4, 20, 6, None, True, ids, scores)
    with pytest.raises(ValueError, match="do not fit"):
        raw.search(scan, query, 1, 4, 20, 5, np.zeros(3, np.uint8), True, ids, scores)
    with pytest.raises(ValueError, match="do not fit"):
        raw.search(scan, query, 1, 0, 20, 5, None, True, ids, scores)
    with pytest.raises(ValueError, match="Capsule"):
        raw.search(object(), query, 1, 4, 20, 5, None, True, ids, scores)


@needs_scan
def test_an_unrotated_index_is_scanned_too(tmp_path):
    ann, vectors = opened(tmp_path, 64, spilling=False)
    scan, queries = ListScan(ann._index, None, vectors, LANES[-1]), unit(20, 64, 9)
    found = scan.candidates(queries, 30, 30, 4)
    known = ann._index.search(queries, 30, params=faiss.SearchParametersIVF(nprobe=4))[1]
    assert np.mean([len({*a} & {*b}) / 30 for a, b in zip(found.tolist(), known.tolist(), strict=True)]) > 0.95


def test_a_module_of_other_sources_is_not_called_and_that_is_said(monkeypatch):
    monkeypatch.setattr(compiled, "import_module", lambda *_: SimpleNamespace(__file__="_list_scan.so", INTERFACE=1))
    with pytest.warns(RuntimeWarning, match="_list_scan.so was compiled from other sources than these"):
        assert compiled._found() is None


def test_searches_go_through_faiss_where_it_is_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv(compiled.SWITCH, "off")
    ann, vectors = opened(tmp_path, 64)
    assert ann._scan is None
    queries = unit(20, 64, 10)
    ids, scores = ann.search(queries, 10, nprobe=32, oversample=64)
    assert np.array_equal(scores, exact_search(vectors, queries, 10)[1])
    assert np.array_equal(ids, exact_search(vectors, queries, 10)[0])


@needs_scan
def test_codes_that_it_does_not_know_are_left_to_faiss(tmp_path):
    with VectorWriter(tmp_path / "vectors.arrow", 30) as writer:  # 15 codes, no multiple of 4
        writer.append([str(row) for row in range(ROWS)], unit(ROWS, 30, 0))
    vectors = VectorTable.open(tmp_path / "vectors.arrow")
    plan = build_ann(vectors, plan_ann("ivf-pq4", ROWS, 30, nlist=8), tmp_path / "ann.faiss")
    ann = AnnIndex.open(tmp_path / "ann.faiss", plan, vectors)
    assert ann._scan is None
    assert (ann.search(unit(3, 30, 1), 10, nprobe=4, oversample=4)[0] >= 0).all()


@needs_scan
@pytest.mark.parametrize("spread", [0.0, 1e-4, 0.02, 0.05])
def test_rows_close_together_are_scanned_too(tmp_path, spread):
    rows = unit(ROWS, 64, 0)
    rows[:2500] = rows[0] + spread * unit(2500, 64, 1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with VectorWriter(tmp_path / "vectors.arrow", 64) as writer:
        writer.append([str(row) for row in range(ROWS)], rows)
    vectors = VectorTable.open(tmp_path / "vectors.arrow")
    plan = build_ann(vectors, plan_ann("ivf-pq4", ROWS, 64, nlist=8), tmp_path / "ann.faiss")
    ann = AnnIndex.open(tmp_path / "ann.faiss", plan, vectors)
    assert ann._scan is not None
    queries = unit(5, 64, 2)
    expected = exact_search(vectors, queries, 10)[1]
    assert np.array_equal(ann.search(queries, 10, nprobe=8, oversample=ROWS // 10)[1], expected)


@needs_scan
@pytest.mark.parametrize("part", ["_codebook", "_centroids"])
@pytest.mark.parametrize("dim", [64, 264])
def test_another_layout_than_expected_is_left_to_faiss_and_said(tmp_path, monkeypatch, dim, part):
    opened(tmp_path, dim)
    known = getattr(list_scan, part)
    monkeypatch.setattr(list_scan, part, lambda given: known(given)[::-1].copy())
    monkeypatch.setattr(list_scan, "_reads", list_scan._reads.__wrapped__)
    with pytest.warns(RuntimeWarning, match="in another way than the compiled scan reads them"):
        ann, vectors = opened(tmp_path, dim)
    assert ann._scan is None
    queries = unit(5, dim, 2)
    found = ann.search(queries, 10, nprobe=32, oversample=64)[1]
    assert np.array_equal(found, exact_search(vectors, queries, 10)[1])


class Uncompiled:
    """A table whose rows NumPy compares."""

    def __init__(self, table: VectorTable) -> None:
        self.rows, self.dim = table.rows, table.dim
        self.gather, self.gather_float32 = table.gather, table.gather_float32
        self.chunks = table.chunks


@needs_scan
@pytest.mark.parametrize("lanes", [str(lanes) for lanes in LANES])
@pytest.mark.parametrize("dim", [1, 20, 64, 130])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_comparing_all_rows_is_to_the_last_bit_what_numpy_gives(tmp_path, monkeypatch, dtype, dim, lanes):
    monkeypatch.setenv(compiled.SWITCH, lanes)
    random, vectors = np.random.default_rng(dim), unit(500, dim, dim)
    vectors[100:140] = vectors[7]  # equal scores come by row id
    with VectorWriter(tmp_path / "vectors.arrow", dim, batch_rows=64, dtype=dtype) as writer:
        writer.append([str(row) for row in range(500)], vectors)
    table = VectorTable.open(tmp_path / "vectors.arrow")
    some = np.sort(random.choice(500, 60, replace=False))
    for rows in (None, some, some[:3], some[:0]):
        for count in (0, 1, 5, 16):
            queries = np.concatenate([vectors[7:8], unit(15, dim, 3)])[:count]
            for exclude in (None, np.arange(count) * 7):
                found = exact_search(table, queries, 10, rows, exclude)
                known = exact_search(Uncompiled(table), queries, 10, rows, exclude)
                assert np.array_equal(found[0], known[0])
                assert np.array_equal(found[1], known[1])
    assert np.array_equal(exact_search(table, queries, 600)[0], exact_search(Uncompiled(table), queries, 600)[0])


@needs_scan
@pytest.mark.parametrize("lanes", [str(lanes) for lanes in LANES])
def test_every_level_and_scale_of_one_byte_is_read_as_numpy_reads_it(tmp_path, monkeypatch, lanes):
    monkeypatch.setenv(compiled.SWITCH, lanes)
    magnitudes = np.concatenate([np.arange(64), np.arange(64, 128, 2), np.arange(128, 253, 4)])  # 0 to 252
    row = np.concatenate([-magnitudes[:0:-1], magnitudes]).astype(np.float32)
    lengths = np.array([1, 3, 17, 31]) * 2.0 ** np.arange(-24, 4)[:, None]  # scales of float16's whole range
    rows = (row * lengths.reshape(-1, 1)).astype(np.float16)
    assert np.isfinite(rows).all()
    with VectorWriter(tmp_path / "vectors.arrow", len(row), dtype="int8") as writer:
        writer.append([str(number) for number in range(len(rows))], rows)
    table = VectorTable.open(tmp_path / "vectors.arrow")
    assert np.array_equal(table.gather(np.arange(len(rows))), rows)
    queries = np.eye(len(row), dtype=np.float32)
    for query in queries:
        found, known = (exact_search(each, query[None], len(rows)) for each in (table, Uncompiled(table)))
        assert np.array_equal(found[1], known[1])
        assert np.array_equal(found[1][0], np.sort(rows.astype(np.float32) @ query)[::-1])


@needs_scan
def test_rows_that_are_not_there_and_closed_tables_are_not_read(index):
    table = index[1]
    query = unit(1, table.dim, 1)
    with pytest.raises(SearchParameterError, match="row id 3000"):
        exact_search(table, query, 5, np.array([0, 3000]))
    ids, scores = np.empty((1, 5), np.int64), np.empty((1, 5), np.float32)
    for rows, message in ((np.array([0, 3000]), "none of these"), (np.array([-1, 3]), "none of these")):
        with pytest.raises(ValueError, match=message):
            compiled.list_scan.compare(table._compiled, query, 1, 5, rows, None, ids, scores)
    with pytest.raises(ValueError, match="do not fit"):
        compiled.list_scan.compare(table._compiled, query, 2, 5, None, None, ids, scores)
    again = VectorTable.open(table.path)
    again.close()
    assert exact_search(again, query, 5)[0].tolist() == [[-1] * 5]
