"""Versions that are published while the server runs: every request is answered, from one whole version."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from colour import ColourEncoder
from served_index import Served, SlowEncoder, colour_index, serving

from searcher.server import ServerSettings
from storage import IndexStore

QUICK = ServerSettings(watch_seconds=0.02)


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    colour_index(tmp_path, 16)
    return tmp_path


def until_version(server: Served, number: int) -> None:
    end = time.monotonic() + 20
    while server.get("/healthz").json()["version"] != number:
        assert time.monotonic() < end
        time.sleep(0.01)


def until_answered_from(seen: list[tuple[int, int]], number: int) -> None:
    """Wait for an answer from version ``number``: on a busy machine a caller may not have had its turn yet."""
    end = time.monotonic() + 20
    while number not in {version for version, _ in list(seen)}:
        assert time.monotonic() < end, f"No answer came from version {number}"
        time.sleep(0.01)


def test_no_request_is_lost_and_each_is_answered_from_one_version(own_folder: Path) -> None:
    pictures = {number: 16 + 8 * (number - 1) for number in range(1, 7)}
    stop = threading.Event()
    seen: list[tuple[int, int]] = []
    wrong: list[str] = []

    def ask(place: int) -> None:
        paths = [
            {"text": f"red {place}", "k": 500},
            {"item": "red/0000.png", "k": 500},
            {"text": "blue", "k": 500, "where": "width > 1"},
        ]
        turn = 0
        while not stop.is_set():
            turn += 1
            answer = server.get("/search", params=paths[turn % 3])
            if answer.status_code != 200:
                wrong.append(answer.text)
                continue
            found = answer.json()
            seen.append((found["version"], len(found["hits"]) + ("item" in found["query"])))

    with serving(own_folder / "photos.index", QUICK, ColourEncoder()) as server, ThreadPoolExecutor(4) as callers:
        asking = [callers.submit(ask, place) for place in range(4)]
        try:
            until_answered_from(seen, 1)
            for number in range(2, 7):
                colour_index(own_folder, pictures[number])
                until_version(server, number)
                IndexStore.open(own_folder / "photos.index").vacuum(keep=1)
            until_answered_from(seen, 6)
        finally:
            stop.set()
        for one in asking:
            one.result()
        assert server.live.open_versions == [6]
        assert "twinlens_index_swaps_total 6.0" in server.get("/metrics").text
    assert wrong == []
    assert [(version, count) for version, count in seen if count != pictures[version]] == []


def test_a_request_keeps_its_version_and_the_last_one_closes_it(own_folder: Path) -> None:
    slow = SlowEncoder()
    with serving(own_folder / "photos.index", QUICK, slow) as server, ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(server.get, "/search", params={"text": "red", "k": 500})
        assert slow.begun.wait(5)
        colour_index(own_folder, 24)
        until_version(server, 2)
        assert server.live.open_versions == [1, 2]
        IndexStore.open(own_folder / "photos.index").vacuum(keep=1)
        slow.may.set()
        answer = waiting.result()
        assert (answer.status_code, answer.json()["version"], len(answer.json()["hits"])) == (200, 1, 16)
        assert len(server.ask(text="red", k=500)["hits"]) == 24
        assert server.live.open_versions == [2]


def test_a_version_that_cannot_be_opened_leaves_the_old_one_in_front(own_folder: Path) -> None:
    index = own_folder / "photos.index"
    with serving(index, QUICK, ColourEncoder()) as server:
        good = (index / "CURRENT").read_bytes()
        for bad in (b"00000009 " + b"a" * 64 + b"\n", b"nonsense", good.replace(good[9:13], b"0000")):
            (index / "CURRENT").write_bytes(bad)
            time.sleep(0.2)
            assert len(server.ask(text="red", k=500)["hits"]) == 16
        assert server.get("/readyz").json()["reason"] == (
            "version 1 was published and cannot be opened, the log says why; 1 is served"
        )
        (index / "CURRENT").write_bytes(good)
        time.sleep(0.1)
        assert server.get("/readyz").json() == {"status": "ready", "version": 1, "encoder": "ready", "reason": None}
        failures = next(
            line
            for line in server.get("/metrics").text.splitlines()
            if line.startswith("twinlens_index_swap_failures_total")
        )
        assert float(failures.split()[1]) >= 2
        colour_index(own_folder, 24)
        until_version(server, 2)
        assert len(server.ask(text="red", k=500)["hits"]) == 24


def test_going_back_to_an_older_version_is_followed_too(own_folder: Path) -> None:
    colour_index(own_folder, 24)
    with serving(own_folder / "photos.index", QUICK, ColourEncoder()) as server:
        cursor = server.ask(text="red", k=10)["cursor"]
        IndexStore.open(own_folder / "photos.index").rollback()
        until_version(server, 1)
        assert len(server.ask(text="red", k=500)["hits"]) == 16
        # A page of the version before would not fit to one of this.
        gone = server.get("/search", params={"text": "red", "k": 10, "cursor": cursor})
        assert gone.status_code == 410
        assert "'photos.index' is at version 1; search again without it" in gone.json()["error"]


def test_thumbnails_are_those_of_the_version_in_front(own_folder: Path) -> None:
    from colour import paint

    def first() -> Any:
        return server.get("/thumbnails/red/0000.png").content

    with serving(own_folder / "photos.index", QUICK, ColourEncoder()) as server:
        before = first()
        paint(own_folder / "photos/red/0000.png", "green", size=(60, 20))
        colour_index_again(own_folder)
        until_version(server, 2)
        assert first() != before


def colour_index_again(folder: Path) -> None:
    from indexer import build_index

    build_index(folder / "photos", folder / "photos.index", encoder=ColourEncoder(), update=True)
