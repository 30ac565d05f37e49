from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_tables import brute_force, unit_rows, write_table

from indexer.ann.tune import NOWHERE, Truth
from storage import VectorTable

NONE = np.full(1, -1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    return write_table(tmp_path_factory.mktemp("table"), unit_rows(300, 16))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), doubled=st.booleans())
def test_each_neighbour_has_its_first_place_among_the_candidates(table: VectorTable, seed: int, doubled: bool) -> None:
    generator = np.random.default_rng(seed)
    query = unit_rows(1, 16, seed=seed)
    candidates = generator.permutation(300)[:120]
    candidates = generator.permutation(np.concatenate([candidates, candidates[:40]])) if doubled else candidates
    best = brute_force(table, query, 10)[0]
    places = Truth.of(table, query, 10, NONE).positions(candidates[None])[0]
    for row, place in zip(best, places, strict=True):
        found = np.flatnonzero(candidates == row)
        assert place == (found[0] if found.size else NOWHERE)


def test_missing_candidates_take_no_place(table: VectorTable) -> None:
    query = unit_rows(1, 16, seed=1)
    best = brute_force(table, query, 3)[0]
    places = Truth.of(table, query, 3, NONE).positions(np.array([[best[1], -1, -1, best[0]]]))
    assert places.tolist() == [[3, 0, NOWHERE]]


def test_the_own_row_is_no_neighbour_and_takes_no_place(table: VectorTable) -> None:
    own = np.array([7])
    query = table.gather(own).astype(np.float32)
    first = brute_force(table, query, 2)[0, 1]
    assert Truth.of(table, query, 1, own).positions(np.array([[7, first, 7]])).tolist() == [[0]]


def test_equal_rows_stand_for_each_other(tmp_path: Path) -> None:
    vectors = np.concatenate([unit_rows(5, 16, seed=3), np.repeat(unit_rows(1, 16), 20, axis=0)])
    table = write_table(tmp_path, vectors)
    query = unit_rows(1, 16)
    truth = Truth.of(table, query, 4, NONE)
    assert truth.ids[0].tolist() == [5, 6, 7, 8, 9]
    # Any four of the twenty will do; one that comes twice counts once.
    assert truth.positions(np.array([[20, 20, 3, 19, 6, 24]])).tolist() == [[0, 3, 4, 5]]
    assert truth.positions(np.array([[3, 20, 20]])).tolist() == [[1, NOWHERE, NOWHERE, NOWHERE]]
