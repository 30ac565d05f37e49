"""Vectors that are more than memory has room for are found as others are, and the system is told how they are read."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.ann.plan import plan_ann
from indexer.ann.train import build_ann
from storage import VectorTable
from storage.ann import AnnIndex
from storage.exact_search import exact_search
from storage.files import mapped
from storage.files.mapped import MappedColumn, limits, memory_bytes
from storage.schema import VectorDType
from storage.vectors import VectorWriter

ROWS, DIM = 3000, 64


def vectors(rows: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(params=["float16", "int8"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    dtype: VectorDType = request.param
    with VectorWriter(tmp_path / "vectors.arrow", DIM, batch_rows=1000, dtype=dtype) as writer:
        writer.append([str(row) for row in range(ROWS)], vectors(ROWS, 0))
    return tmp_path / "vectors.arrow"


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(mapped, "memory_bytes", lambda: 2 * ROWS * DIM - 1)


def test_what_is_found_does_not_depend_on_memory(path: Path, small_memory: Callable[[], None]) -> None:
    table, queries = VectorTable.open(path), vectors(40, 1)
    plan = build_ann(table, plan_ann("ivf-pq4", ROWS, DIM, nlist=16), path.parent / "ann.faiss")
    small_memory()
    again = VectorTable.open(path)
    assert (table.mapped().is_large, again.mapped().is_large) == (False, True)
    one, other = (AnnIndex.open(path.parent / "ann.faiss", plan, each) for each in (table, again))
    some = np.arange(0, ROWS, 3)
    for count in (1, 40):
        for rows in (None, some, some[:40]):
            asked = queries[:count]
            found = [each.search(asked, 10, nprobe=4, oversample=8, rows=rows) for each in (one, other)]
            found += [exact_search(each, asked, 10, rows) for each in (table, again)]
            for ids, scores in found[1::2]:
                known = found[0] if ids is found[1][0] else found[2]
                assert np.array_equal(ids, known[0])
                assert np.array_equal(scores, known[1])
    assert np.array_equal(
        np.concatenate([part for _, part in again.chunks(700)]), table.gather_float32(np.arange(ROWS))
    )


def test_rows_read_in_order_are_asked_for_before_they_are_read(
    path: Path, small_memory: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory()
    monkeypatch.setattr(mapped, "_AHEAD_BYTES", 40_000)
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(MappedColumn, "_advise", lambda _, *advice: asked.append(advice))
    table = VectorTable.open(path)
    if table.dtype == "int8":
        assert [one for one in asked if one[0] == mmap.MADV_RANDOM and one[2] == 1000 * DIM]
    assert {advice for advice, *_ in asked} == {mmap.MADV_RANDOM}
    asked.clear()
    starts = table.mapped().starts
    assert starts is not None
    for first, part in table.chunks(100):
        wanted = [(start, start + count) for advice, start, count in asked if advice == mmap.MADV_WILLNEED]
        for row in (first, first + len(part) - 1):
            place = int(starts[row // 1000]) + row * DIM
            assert any(start <= place < stop for start, stop in wanted)
    assert len(wanted) < ROWS / 100  # not for each chunk anew


def test_rows_are_asked_for_together_before_they_are_read(
    path: Path, small_memory: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = VectorTable.open(path)
    small_memory()
    monkeypatch.setattr(mapped, "_AHEAD_BYTES", 40_000)
    table = VectorTable.open(path)
    starts = table.mapped().starts
    assert starts is not None
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(MappedColumn, "_advise", lambda _, __, first, count: asked.append((first, first + count)))
    some = np.random.default_rng(5).integers(0, ROWS, 700)
    for rows in (np.arange(500, 2500), some, some[:1], some[:6].reshape(2, 3), some[:0]):
        asked.clear()
        assert np.array_equal(table.gather(rows), known.gather(rows))
        for row in rows.ravel():
            place = int(starts[row // 1000]) + row * DIM
            assert any(start <= place and place + DIM <= stop for start, stop in asked)
        if len(rows) == 2000:
            assert len(asked) < 20


def test_advice_beyond_the_file_is_not_given(path: Path, small_memory: Callable[[], None]) -> None:
    small_memory()
    column = VectorTable.open(path)._vectors
    for first, count in ((0, 10**9), (10**9, 5), (5, 0)):
        column._advise(mmap.MADV_WILLNEED, first, count)
    column.close()
    column._advise(mmap.MADV_WILLNEED, 0, 10)


def test_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    for folder, name, text in (
        ("a/b", "memory.max", "max\n"),
        ("a", "memory.max", "300\n"),
        ("memory/c", "memory.limit_in_bytes", "200\n"),
        ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(text, encoding="ascii")
    assert sorted(limits(["0::/a/b"], tmp_path)) == [300]
    assert min(limits(["9:cpu,cpuacct:/c", "4:memory:/c"], tmp_path)) == 200
    assert list(limits(["4:memory:/not/seen/here"], tmp_path)) == [9223372036854771712]
    assert list(limits(["3:cpu:/c"], tmp_path)) == []
    assert 1 << 20 < memory_bytes() < 1 << 60
