"""The recall of a server's own searches: measured while it has nothing else to do, shown, and acted on."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paired_index import build_paired, captioned, unit
from served_index import Served, serving

from searcher import Searcher
from searcher.server import ServerSettings
from searcher.server.errors import ServerError
from searcher.server.watching import recall_monitor
from searcher.server.watching.recall_windows import Cell, RecallWindow, cell_of
from storage.manifest import Manifest
from storage.schema import OperatingPoint

ROWS, DIM = 600, 16
EACH = ServerSettings(measure_every=1, watch_seconds=0.02)
LABELS = '{ann_recall="0.95",direction="image_to_image",k="10"}'


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images in 16 inverted lists, with operating points that hold."""
    images, _, _ = captioned(ROWS, 1, dim=DIM)
    index = build_paired(tmp_path_factory.mktemp("lists"), images, None, ann="ivf-flat")
    say(index, {4: 0.7, 6: 0.85, 12: 0.98, 16: 0.999})
    return index


@pytest.fixture
def overstated(lists: Path, tmp_path: Path) -> Path:
    """A copy whose manifest says that few lists are enough, as if other queries came than it was tuned with."""
    shutil.copytree(lists, tmp_path / "it.index")
    say(tmp_path / "it.index", {4: 0.96, 6: 0.985, 12: 0.993, 16: 0.999})
    return tmp_path / "it.index"


def say(index: Path, recalls: dict[int, float]) -> None:
    """Let the manifest of an index say what each number of lists finds."""
    file = index / "versions" / "00000001" / "manifest.json"
    manifest = Manifest.from_json(file.read_bytes(), str(file))
    points = tuple(
        OperatingPoint(k=10, nprobe=nprobe, oversample=1, ann_recall=recall, ms_per_query=nprobe / 100)
        for nprobe, recall in recalls.items()
    )
    images = manifest.collections["images"]
    assert images.ann.nlist == 16
    tuning = {"image_to_image": replace(images.tuning["image_to_image"], points=points)}
    data = replace(manifest, collections={"images": replace(images, tuning=tuning)}).to_json()
    file.write_bytes(data)
    (index / "CURRENT").write_text(f"00000001 {sha256(data).hexdigest()}\n", "ascii")


@pytest.fixture
def server(lists: Path) -> Iterator[Served]:
    with serving(lists, EACH) as server:
        yield server


def queries(count: int, seed: int = 7) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, DIM)))


def ask(server: Served, vector: np.ndarray, **options: Any) -> dict[str, Any]:
    body = {"vector": vector.tolist(), "direction": "image_to_image", **options}
    answer = server.post("/search", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def figure(server: Served, name: str) -> float | None:
    """Return a figure of the metrics by its name and labels; None where there is none."""
    lines = server.get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), None)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def compared(server: Served) -> float:
    names = [f'twinlens_compared_searches_total{{outcome="{one}"}}' for one in ("measured", "dropped")]
    return sum(figure(server, name) or 0 for name in names)


def test_what_is_shown_is_what_searches_found(server: Served, lists: Path) -> None:
    vectors, labels = queries(40), LABELS.replace("0.95", "0.8")
    for vector in vectors:
        ask(server, vector, ann_recall=0.85)
    until(lambda: figure(server, f"twinlens_measured_ann_recall_queries{labels}") == 40)
    with Searcher.open(lists) as searcher:
        found, _ = searcher.search_vectors("images", vectors, 10, direction="image_to_image", ann_recall=0.85)
        exact, _ = searcher.search_vectors("images", vectors, 10, exact=True)
    truth = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, exact, strict=True)])
    assert truth < 1
    assert figure(server, f"twinlens_measured_ann_recall{labels}") == pytest.approx(truth)
    low, high = (figure(server, f"twinlens_measured_ann_recall_{end}{labels}") for end in ("low", "high"))
    assert low is not None
    assert high is not None
    assert 0.7 < low < truth < high < 1
    assert figure(server, 'twinlens_operating_point_fallback{direction="image_to_image"}') == 0
    assert 0 < (figure(server, "twinlens_comparing_seconds_total") or 0) < 5


def test_an_item_is_no_hit_of_its_own_and_counts_in_the_depth_that_it_was_searched_with(server: Served) -> None:
    assert len(server.ask(item="images-3", k=10)["hits"]) == 10
    until(lambda: figure(server, f"twinlens_measured_ann_recall{LABELS.replace('10', '100')}") is not None)
    assert figure(server, f"twinlens_measured_ann_recall{LABELS.replace('10', '100')}") == 1


def test_where_less_is_found_than_asked_for_the_search_is_widened_until_another_version(
    overstated: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="searcher.server")
    fallback = 'twinlens_operating_point_fallback{direction="image_to_image"}'
    with serving(overstated, EACH) as server:
        vectors = iter(queries(1_000, seed=8))
        first = ask(server, next(vectors))["ann"]
        assert (first["nprobe"], first["ann_recall"]) == (4, 0.96)
        asked = 1
        while figure(server, fallback) == 0:
            ask(server, next(vectors))
            asked += 1
        assert asked < 200
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert line.startswith("image_to_image: searches for up to 10 hits that ask for ann_recall 0.95 found 0.")
        assert line.endswith("they take the next wider operating point from now on, until another version is published")
        second = ask(server, next(vectors))["ann"]
        assert second["nprobe"] > 4
        assert second["reason"].endswith("reaches ann_recall 0.95, 1 wider, since searches found less")
        # What was found before says nothing of the wider setting.
        assert (figure(server, f"twinlens_measured_ann_recall_queries{LABELS}") or 0) <= 2
        say(overstated, {16: 0.999})
        until(lambda: figure(server, "twinlens_index_swaps_total") == 2)
        assert figure(server, fallback) == 0
        assert "wider" not in ask(server, next(vectors))["ann"]["reason"]


def test_nothing_is_compared_while_a_request_is_worked_on_and_what_waits_is_bounded(
    lists: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall_monitor, "_MOST_WAITING", 3)
    dropped = 'twinlens_compared_searches_total{outcome="dropped"}'
    with serving(lists, EACH) as server:
        metrics = server_metrics(server)
        metrics.at_work += 1
        for vector in queries(12):
            ask(server, vector)
        time.sleep(0.05)
        assert figure(server, f"twinlens_measured_ann_recall_queries{LABELS}") is None
        # One batch was taken and waits for its turn, three wait behind it.
        assert 12 - 3 - recall_monitor._BATCH <= (figure(server, dropped) or 0) <= 12 - 3
        assert (figure(server, dropped) or 0) > 0
        metrics.at_work -= 1
        until(lambda: compared(server) == 12)
        assert figure(server, f"twinlens_measured_ann_recall_queries{LABELS}") is not None


def server_metrics(server: Served) -> Any:
    """The counters of a running server, by the listener that it put on its index."""
    return next(one for one in server.live._listeners if hasattr(one, "at_work"))


def test_searches_that_no_operating_point_answers_for_are_left_out(server: Served) -> None:
    for options in (
        {"exact": True},
        {"where": "row_id >= 0"},
        {"nprobe": 3},
        {"offset": 5},
        {"diversity": 0.5},
        {"collapse": True},
        {"min_score": 0.2},
        {"ann_recall": 0.3},
        {"direction": None},
    ):
        ask(server, queries(1)[0], **options)
    assert compared(server) == 0
    ask(server, queries(1)[0])
    until(lambda: compared(server) == 1)


def test_nothing_is_compared_where_it_is_turned_off(lists: Path) -> None:
    with serving(lists, ServerSettings(measure_every=0)) as server:
        for vector in queries(5):
            ask(server, vector)
        assert compared(server) == 0


def test_what_cannot_be_measured_is_refused() -> None:
    for every in (-1, 10**7, float("nan")):
        with pytest.raises(ServerError, match=r"measure_every=.* must be from 0 to 1,000,000"):
            ServerSettings(measure_every=every)


def test_callers_cannot_make_up_labels() -> None:
    assert cell_of("text_to_image", 0.95, 10) == Cell("text_to_image", 0.95, 10)
    assert cell_of("text_to_image", 0.9712, 11) == Cell("text_to_image", 0.95, 100)
    assert cell_of("text_to_image", 1.0, 10_000) == Cell("text_to_image", 0.999, 10_000)
    assert cell_of("text_to_image", 0.4, 10) is None


def test_a_setting_that_finds_just_enough_is_rarely_taken_for_one_that_does_not() -> None:
    random = np.random.default_rng(0)
    wrong, soon = 0, 0
    for _ in range(200):
        good, poor = RecallWindow(), RecallWindow()
        flags = [], []
        for _ in range(400):
            share = random.beta(9.5, 0.5)
            good.add(random.binomial(10, share) / 10, 10)
            poor.add(random.binomial(10, 0.85 * share) / 10, 10)
            flags[0].append(good.is_under(0.95))
            flags[1].append(poor.is_under(0.95))
        wrong += any(flags[0])
        soon += any(flags[1][:50])
    assert wrong <= 10
    assert soon >= 195


def test_equal_rows_are_any_of_them() -> None:
    class Three:
        rows, dim = 3, 2
        gather = None

        def chunks(self, size: int = 4096) -> Iterator[tuple[int, np.ndarray]]:
            del size
            yield 0, np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)

    one = recall_monitor.Sample(
        snapshot=None,
        cell=Cell("image_to_image", 0.95, 10),
        widened=0,
        vector=np.array([1, 0], dtype=np.float32),
        scores=np.array([1], dtype=np.float32),
        k=1,
        own_row=-1,
    )
    less = one._replace(scores=np.array([0], dtype=np.float32))
    none_left = one._replace(k=3, own_row=0, scores=np.array([1], dtype=np.float32))
    assert recall_monitor.found_shares(Three(), [one, less, none_left]) == [(1.0, 1), (0.0, 1), (0.5, 2)]
