"""The exact search that a GPU does most of, on torch's CPU device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from indexer.ann import exact_on_device, tune
from indexer.ann.exact_on_device import exact_search_on
from indexer.ann.tune import Truth
from storage.exact_search import exact_search
from storage.vectors import VectorTable, VectorWriter

pytest.importorskip("torch")


def unit_rows(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, 24), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    path, rows = tmp_path_factory.mktemp("rows") / "vectors.arrow", unit_rows(700, 0)
    rows[100:200] = rows[3]  # a hundred rows of one score: more than are kept to spare
    with VectorWriter(path, 24) as writer:
        writer.append([str(row) for row in range(len(rows))], rows)
    return VectorTable.open(path)


@pytest.mark.parametrize("k", [1, 10, 690, 900])
def test_it_finds_what_comparing_on_the_cpu_finds(table: VectorTable, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_on_device, "_ROWS", 150)
    monkeypatch.setattr(exact_on_device, "_SCORES", 1500)  # ten queries at a time
    queries = np.concatenate([table.gather(np.array([3, 40])).astype(np.float32), unit_rows(30, 1)])
    exclude = np.full(len(queries), -1, dtype=np.int64)
    exclude[:3] = 3, 40, 8
    found = exact_search_on(table, queries, k, exclude, device="cpu")
    known = exact_search(table, queries, k, exclude=exclude)
    assert np.array_equal(found[0], known[0])
    assert np.array_equal(found[1], known[1])


def test_no_queries_find_nothing(table: VectorTable) -> None:
    ids, scores = exact_search_on(table, unit_rows(0, 1), 5, np.empty(0, dtype=np.int64), device="cpu")
    assert ids.shape == scores.shape == (0, 5)


def test_the_truth_of_a_tuning_comes_from_the_device_or_where_that_is_full_from_the_cpu(
    table: VectorTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, nowhere = unit_rows(20, 2), np.full(20, -1, dtype=np.int64)
    known, asked = Truth.of(table, queries, 10, nowhere), []

    def full(*_: Any, device: str) -> Any:
        asked.append(device)
        raise MemoryError

    assert np.array_equal(Truth.of(table, queries, 10, nowhere, "cpu").ids, known.ids)
    monkeypatch.setattr(tune, "exact_search_on", full)
    assert np.array_equal(Truth.of(table, queries, 10, nowhere, "cuda").ids, known.ids)
    assert asked == ["cuda"]
