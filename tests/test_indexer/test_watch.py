"""An index follows a folder that changes: a version for each settled burst, nothing lost, errors survived."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint_folder

from indexer import BuildError, build_index
from indexer.progress import SilentProgress
from indexer.report import BuildReport
from indexer.watch import watch
from storage import IndexStore
from storage.catalog import Catalog
from storage.errors import StorageError
from twinlens.commands.build import build

pytest.importorskip("watchfiles", reason="the extra watch is not installed")

WAIT = 60.0


class Notes(SilentProgress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: queue.Queue[str] = queue.Queue()

    def note(self, text: str) -> None:
        self.said.put(text)

    def until(self, words: str) -> str:
        while words not in (text := self.said.get(timeout=WAIT)):
            pass
        return text


class Watched:
    """A watcher in a thread, what it published, and what it said."""

    def __init__(self, corpus: Path, out: Path, update: Callable[[], BuildReport]) -> None:
        self.reports: queue.Queue[BuildReport] = queue.Queue()
        self.notes = Notes()
        self.stop = threading.Event()
        self.encoder = ColourEncoder()
        self._thread = threading.Thread(target=self._run, args=(corpus, out, update))
        self._thread.start()

    def _run(self, corpus: Path, out: Path, update: Callable[[], BuildReport]) -> None:
        for report in watch(corpus, out, update, self.notes, settled=0.5, stop=self.stop):
            self.reports.put(report)

    def end(self) -> None:
        self.stop.set()
        self._thread.join(WAIT)
        assert not self._thread.is_alive()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    paint_folder(tmp_path / "photos", 6, captions=False)
    build_index(tmp_path / "photos", tmp_path / "photos" / "it.index", encoder=ColourEncoder())
    return tmp_path / "photos"


@pytest.fixture
def watched(corpus: Path, tmp_path: Path) -> Iterator[Watched]:
    encoder = ColourEncoder()
    out = corpus / "it.index"  # in the corpus, where its own files are no changes
    one = Watched(corpus, out, partial(build_index, corpus, out, encoder=encoder, update=True))
    one.encoder = encoder
    yield one
    one.end()


def ids(index: Path) -> list[str]:
    with Catalog.open(index / "versions" / f"{IndexStore.open(index).current():08}" / "catalog.duckdb") as catalog:
        found: list[str] = catalog.table("images", ["item_id"]).column("item_id").to_pylist()
    return found


def test_bursts_become_versions_and_renames_are_not_encoded(watched: Watched, corpus: Path) -> None:
    watched.notes.until("watching")
    assert watched.reports.empty()  # nothing had changed since the build
    paint_folder(corpus / "new", 5, captions=False)
    report = watched.reports.get(timeout=WAIT)
    assert (report.version, report.manifest.counts.images) == (2, 11)
    encoded = watched.encoder.images_encoded
    (corpus / "new").rename(corpus / "old")
    report = watched.reports.get(timeout=WAIT)
    assert (report.version, report.manifest.counts.images) == (3, 11)
    assert watched.encoder.images_encoded == encoded
    (corpus / ".hidden.png").write_bytes(b"")
    shutil.rmtree(corpus / "old")
    report = watched.reports.get(timeout=WAIT)
    assert (report.version, report.manifest.counts.images) == (4, 6)
    watched.end()
    assert watched.reports.empty()
    assert len(ids(corpus / "it.index")) == 6


def test_what_fails_is_said_and_the_next_change_is_tried(corpus: Path) -> None:
    encoder = ColourEncoder()
    out = corpus / "it.index"
    failing = iter([BuildError("the drive is away"), None])

    def update() -> BuildReport:
        if (error := next(failing, None)) is not None:
            raise error
        return build_index(corpus, out, encoder=encoder, update=True)

    watched = Watched(corpus, out, update)
    try:
        assert watched.notes.until("nothing was published").endswith("the drive is away")
        paint_folder(corpus / "more", 2, captions=False)
        assert watched.reports.get(timeout=WAIT).manifest.counts.images == 8
    finally:
        watched.end()


def test_an_index_that_another_builder_holds_is_tried_again(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.watch.RETRY_SECONDS", 0.3)
    tried: list[Any] = []

    def update() -> BuildReport:
        tried.append(None)
        if len(tried) < 3:
            raise StorageError("another builder holds it")
        return build_index(corpus, corpus / "it.index", encoder=ColourEncoder(), update=True)

    watched = Watched(corpus, corpus / "it.index", update)
    try:
        watched.notes.until("watching")
    finally:
        watched.end()
    assert len(tried) == 3


def test_a_corpus_that_is_not_there_is_not_watched(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no corpus"):
        list(watch(tmp_path / "none", tmp_path / "x", lambda: pytest.fail("no update"), SilentProgress()))


@pytest.mark.parametrize(
    "line", [["photos", "--out", "x", "--watch"], ["s3://b/p", "--out", "x", "--update", "--watch"]]
)
def test_watching_goes_with_an_update_of_a_corpus_here(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    answer = CliRunner().invoke(build, line)
    assert answer.exit_code == 2
    assert "--watch goes with --update" in answer.output
