"""Many threads share a searcher; a searcher keeps its version."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searcher import Searcher
from searcher.errors import SearcherClosedError
from searcher.in_flight import InFlight
from storage.store import IndexStore

SETTINGS: list[dict[str, Any]] = [
    {"k": 5},
    {"k": 10, "nprobe": 1},
    {"k": 3, "nprobe": 32, "oversample": 8},
    {"k": 20, "exact": True},
    {"k": 10, "where": "part = 3"},
    {"k": 10, "where": "part < 8"},
    {"k": 2, "ann_recall": 0.99},
]


def test_threads_find_what_one_thread_finds(wide: Searcher, wide_vectors: np.ndarray) -> None:
    def search(number: int) -> list[int]:
        found = wide.text_to_image(wide_vectors[number % 50], **SETTINGS[number % len(SETTINGS)])
        return found.row_ids.tolist()  # type: ignore[no-any-return]

    alone = [search(number) for number in range(350)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(search, [*range(350), *range(350)]))
    assert together == alone + alone


def test_threads_share_an_encoder(searcher: Searcher) -> None:
    texts = [f"{colour} number {number}" for number in range(30) for colour in ("red", "blue")]
    alone = [searcher.text_to_image(text, 4).row_ids.tolist() for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: searcher.text_to_image(text, 4).row_ids.tolist(), texts))
    assert together == alone


def test_closing_waits_for_who_is_inside() -> None:
    gate, order = InFlight("x"), []
    entered = threading.Event()

    def search() -> None:
        with gate:
            entered.set()
            time.sleep(0.1)
            order.append("searched")

    thread = threading.Thread(target=search)
    thread.start()
    entered.wait()
    assert gate.close()
    order.append("closed")
    thread.join()
    assert order == ["searched", "closed"]
    assert not gate.close()


def test_closing_under_load_ends_every_search_well(wide_index: Path, wide_vectors: np.ndarray) -> None:
    searcher = Searcher.open(wide_index)

    def search(number: int) -> int:
        try:
            return len(searcher.text_to_image(wide_vectors[number], 5))
        except SearcherClosedError:
            return 0

    with ThreadPoolExecutor(4) as pool:
        found = pool.map(search, range(200))
        time.sleep(0.05)
        searcher.close()
        assert set(found) <= {0, 5}


def test_a_searcher_keeps_its_version(corpus: Any, encoder: Any, tmp_path: Path) -> None:
    other = type(corpus)(tmp_path, count=24)
    with Searcher.open(other.index, encoder=encoder) as old:
        before = old.text_to_image("a red door", 24).item_ids.tolist()
        other.publish_again(count=8)
        IndexStore.open(other.index).vacuum(keep=1)
        assert old.text_to_image("a red door", 24).item_ids.tolist() == before
        with Searcher.open(other.index, encoder=encoder) as new:
            assert len(new.text_to_image("a red door", 24)) == 8


def test_an_older_version_can_be_opened(encoder: Any, corpus: Any, tmp_path: Path) -> None:
    other = type(corpus)(tmp_path, count=16)
    other.publish_again(count=8)
    with Searcher.open(other.index, version=1, encoder=encoder, verify="size") as searcher:
        assert len(searcher.text_to_image("red", 50)) == 16
        assert searcher.manifest.version == 1
    with pytest.raises(Exception, match="has no version 9"):
        Searcher.open(other.index, version=9)
