"""Many searches: the same answers from many threads, no more memory and no more open files."""

from __future__ import annotations

from pathlib import Path

import pytest
from endurance import differing, growth
from make_golden import unpack


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endurance")
    unpack(folder)
    return folder


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-pq", "ivf-pq4", "ivf-rabitq"])
def test_sixteen_threads_with_mixed_settings_find_what_one_finds(golden: Path, kind: str) -> None:
    assert differing(golden / f"{kind}.index", 120, 16) == 0


def test_searching_takes_no_memory_and_opens_no_file(golden: Path) -> None:
    grown = growth(golden / "ivf-pq4.index", 400)
    assert grown.files_after == grown.files_before
    assert grown.share < 0.02
