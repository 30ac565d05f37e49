from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_tables import brute_force, unit_rows, write_table

from storage import VectorTable
from storage.exact_search import exact_search, rerank, score_candidates


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    return write_table(tmp_path_factory.mktemp("table"), unit_rows(5000, 30))


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return unit_rows(40, 30, seed=1)


def test_an_exact_search_equals_brute_force(table: VectorTable, queries: np.ndarray) -> None:
    ids, scores = exact_search(table, queries, 50)
    assert np.array_equal(ids, brute_force(table, queries, 50))
    assert ids.dtype == np.int64
    assert scores.dtype == np.float32


def test_scores_are_cosines_with_the_stored_vectors(table: VectorTable, queries: np.ndarray) -> None:
    ids, scores = exact_search(table, queries, 5)
    stored = table.gather(ids).astype(np.float64)
    assert np.allclose(scores, np.einsum("qd,qkd->qk", queries, stored), atol=1e-6)


def test_a_row_has_one_score_whatever_the_path(table: VectorTable, queries: np.ndarray) -> None:
    ids, scores = exact_search(table, queries, 20)
    alone = [exact_search(table, query[None], 20) for query in queries]
    again = rerank(table, queries, ids[:, ::-1], 20)
    few = exact_search(table, queries, 20, rows=np.unique(ids))
    assert np.array_equal(scores, np.concatenate([one[1] for one in alone]))
    assert np.array_equal(scores, again[1])
    assert np.array_equal(ids, again[0])
    assert np.array_equal(scores, few[1])


def test_equal_scores_come_by_lower_row_id(tmp_path: Path) -> None:
    table = write_table(tmp_path, np.repeat(unit_rows(3, 64), 700, axis=0), batch_rows=100)
    query = table.gather(np.array([1000])).astype(np.float32)
    assert np.array_equal(exact_search(table, query, 900)[0][0, :700], np.arange(700, 1400))
    shuffled = np.random.default_rng(0).permutation(2100)[None]
    assert np.array_equal(rerank(table, query, shuffled, 700)[0][0], np.arange(700, 1400))


def test_the_best_may_come_last(tmp_path: Path) -> None:
    """Rows that get better and better make every block replace the best so far."""
    angles = np.linspace(1.5, 0, 40_000)
    table = write_table(tmp_path, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    queries = np.array([[1, 0], [0, 1]], dtype=np.float32)
    assert np.array_equal(exact_search(table, queries, 30)[0], brute_force(table, queries, 30))


def test_a_query_can_leave_itself_out(table: VectorTable) -> None:
    own = np.array([7, 4999, -1])
    queries = table.gather(np.array([7, 4999, 5])).astype(np.float32)
    ids = exact_search(table, queries, 3, exclude=own)[0]
    plain = exact_search(table, queries, 4)[0]
    assert np.array_equal(ids[:2], plain[:2, 1:])
    assert np.array_equal(ids[2], plain[2, :3])


def test_leaving_out_one_row_of_few_leaves_a_gap(table: VectorTable, queries: np.ndarray) -> None:
    ids, scores = exact_search(table, queries[:1], 3, rows=np.array([3, 9]), exclude=np.array([9]))
    assert ids.tolist() == [[3, -1, -1]]
    assert np.isneginf(scores[0, 1:]).all()


def test_more_hits_than_rows_are_padded(table: VectorTable, queries: np.ndarray) -> None:
    ids, scores = exact_search(table, queries, 5, rows=np.array([10, 20]))
    assert np.array_equal(np.sort(ids[:, :2], axis=1), np.tile([10, 20], (40, 1)))
    assert (ids[:, 2:] == -1).all()
    assert np.isneginf(scores[:, 2:]).all()


@pytest.mark.parametrize("rows", [None, np.array([], dtype=np.int64)])
def test_no_query_and_no_row_give_nothing(table: VectorTable, queries: np.ndarray, rows: np.ndarray | None) -> None:
    assert exact_search(table, queries[:0], 3, rows)[0].shape == (0, 3)
    assert (exact_search(table, queries, 3, np.array([], dtype=np.int64))[0] == -1).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), k=st.integers(1, 12), width=st.integers(0, 20))
def test_a_rerank_is_the_brute_force_over_its_candidates(
    table: VectorTable, queries: np.ndarray, data: st.DataObject, k: int, width: int
) -> None:
    line = st.lists(st.integers(-1, 40), min_size=width, max_size=width)
    candidates = np.array([data.draw(line), data.draw(line)], dtype=np.int64).reshape(2, width)
    ids, scores = rerank(table, queries[:2], candidates, k)
    for query, offered, found in zip(queries, candidates, ids, strict=False):
        rows = np.unique(offered[offered >= 0])
        assert np.array_equal(found, brute_force(table, query[None], k, rows)[0])
    assert np.array_equal(np.isneginf(scores), ids == -1)


def test_candidates_are_scored_in_the_order_given(table: VectorTable, queries: np.ndarray) -> None:
    candidates = np.array([[4, -1, 2, 4]])
    scores = score_candidates(table, queries[:1], candidates)
    assert np.isneginf(scores[0, 1])
    assert scores[0, 0] == scores[0, 3]
    assert scores[0, 2] == exact_search(table, queries[:1], 1, rows=np.array([2]))[1][0, 0]


def test_many_candidates_are_scored_block_by_block(table: VectorTable, queries: np.ndarray) -> None:
    everything = np.tile(np.arange(5000), (40, 10))
    assert np.array_equal(rerank(table, queries, everything, 8)[0], brute_force(table, queries, 8))
