"""Corpora behind a protocol of fsspec: here its memory, zip archives and a local server, which need no network."""

from __future__ import annotations

import json
import threading
import unicodedata
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint

from indexer import build_index
from indexer.corpus import SourceOptions
from indexer.corpus.remote.mirror import local_copy
from indexer.corpus.remote.url import is_remote
from indexer.errors import SourceError
from storage import IndexStore
from storage.errors import IndexLockedError
from storage.files.lock import IndexLock
from twinlens.commands.build import build as command

COLOURS = ("red", "green", "blue")


class Told:
    """Keeps what a build says."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[tuple[str, int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, name: str, total: int) -> None:
        self.stages.append((name, total))

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        pass


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def bucket(memory: Any, tmp_path: Path) -> Any:
    for colour in COLOURS:
        memory.pipe(f"/shop/photos/{colour}.png", paint(tmp_path / "one.png", colour).read_bytes())
    memory.pipe("/shop/photos/red.txt", b"a red square\n")
    lines = [json.dumps({"image": f"photos/{colour}.png", "text": f"a {colour} square"}) for colour in COLOURS]
    memory.pipe("/shop/products.jsonl", "\n".join(lines).encode())
    return memory


def fetched(told: Told) -> list[int]:
    return [total for name, total in told.stages if name == "fetching"]


@pytest.mark.parametrize("corpus", ["s3://bucket/photos", "memory://shop", "zip://a.csv::x.zip", "HF://datasets/a/b"])
def test_addresses_are_told_from_paths(corpus: str) -> None:
    assert is_remote(corpus)


@pytest.mark.parametrize("corpus", ["photos", "./a:b/c", "C:/photos", "/photos", "a{0..9}.tar", Path("s3://b"), None])
def test_paths_stay_paths(corpus: object) -> None:
    assert not is_remote(corpus)


def test_a_remote_folder_is_indexed_like_a_local_one(bucket: Any, tmp_path: Path) -> None:
    report = build_index("memory://shop/photos", tmp_path / "out", encoder=ColourEncoder())
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.pairs, counts.rejected) == (3, 1, 1, 0)
    build_index(tmp_path / "out.corpus" / "files", tmp_path / "local", encoder=ColourEncoder())
    names = ("images/vectors.arrow", "texts/vectors.arrow")
    versions = [IndexStore.open(tmp_path / out).path / "versions" for out in ("out", "local")]
    for name in names:
        one, other = (next(path.glob(f"*/{name}")).read_bytes() for path in versions)
        assert one == other


def test_an_update_fetches_only_what_changed_and_drops_what_is_gone(bucket: Any, tmp_path: Path) -> None:
    build_index("memory://shop/photos", tmp_path / "out", encoder=ColourEncoder())
    told = Told()
    same = build_index("memory://shop/photos", tmp_path / "out", encoder=ColourEncoder(), update=True, progress=told)
    assert not same.published
    assert fetched(told) == []
    bucket.pipe("/shop/photos/green.png", paint(tmp_path / "one.png", "yellow").read_bytes())
    bucket.rm("/shop/photos/blue.png")
    changed = build_index("memory://shop/photos", tmp_path / "out", encoder=ColourEncoder(), update=True, progress=told)
    assert fetched(told) == [1]
    assert changed.manifest.counts.images == 2
    assert not (tmp_path / "out.corpus" / "files" / "blue.png").exists()


def test_of_a_table_its_pictures_come_too(bucket: Any, tmp_path: Path) -> None:
    report = build_index("memory://shop/products.jsonl", tmp_path / "out", encoder=ColourEncoder())
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.pairs, counts.rejected) == (3, 3, 3, 0)
    assert not (tmp_path / "out.corpus" / "files" / "photos" / "red.txt").exists()


def test_a_picture_of_a_table_is_found_under_the_spelling_that_it_has_there(bucket: Any, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Gen\u00e8ve.png") for form in ("NFC", "NFD"))
    for name, colour in ((composed, "red"), (decomposed, "blue")):
        bucket.pipe(f"/shop/{colour}/{name}", paint(tmp_path / "one.png", colour).read_bytes())
    names = ["photos\\green.png", "./photos//green.png", f"red/{decomposed}", f"blue\\{composed}", f"blue/{composed}"]
    lines = [json.dumps({"image": name, "text": f"text {number}"}) for number, name in enumerate(names)]
    bucket.pipe("/shop/spelt.jsonl", "\n".join(lines).encode())
    report = build_index("memory://shop/spelt.jsonl", tmp_path / "out", encoder=ColourEncoder())
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.pairs, counts.rejected) == (3, 5, 5, 0)


def test_a_name_with_the_sign_that_parts_names_is_one_image(bucket: Any, tmp_path: Path) -> None:
    for name in ("two; one.png", "a;b;c.png", "d.png"):
        bucket.pipe(f"/shop/photos/{name}", paint(tmp_path / "one.png", "red").read_bytes())
    cells = ["photos/two; one.png", "photos/d.png;photos/a;b;c.png;photos/red.png"]
    lines = [json.dumps({"image": cell, "text": f"text {number}"}) for number, cell in enumerate(cells)]
    bucket.pipe("/shop/named.jsonl", "\n".join(lines).encode())
    report = build_index("memory://shop/named.jsonl", tmp_path / "out", encoder=ColourEncoder())
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.rejected) == (4, 2, 0)


def test_a_picture_that_is_not_there_is_rejected_and_counted(bucket: Any, tmp_path: Path) -> None:
    bucket.rm("/shop/photos/blue.png")
    report = build_index("memory://shop/products.jsonl", tmp_path / "out", encoder=ColourEncoder())
    assert report.manifest.counts.images == 2
    assert report.rejected == {"missing": 1}


def test_a_table_cannot_name_files_outside_its_folder(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe("/secret.png", paint(tmp_path / "one.png", "red").read_bytes())
    bucket.pipe("/shop/bad.jsonl", b'{"image": "../secret.png"}\n{"image": "photos/red.png"}\n')
    report = build_index("memory://shop/bad.jsonl", tmp_path / "out", encoder=ColourEncoder())
    assert report.manifest.counts.images == 1
    assert not (tmp_path / "out.corpus" / "secret.png").exists()


def test_tar_shards_by_a_pattern(memory: Any, tmp_path: Path) -> None:
    import tarfile

    for number, colour in enumerate(COLOURS):
        with tarfile.open(tmp_path / "one.tar", "w") as tar:
            tar.add(paint(tmp_path / "one.png", colour), f"{colour}.png")
        memory.pipe(f"/web/{number:03d}.tar", (tmp_path / "one.tar").read_bytes())
    memory.pipe("/web/readme.md", b"no shard")
    report = build_index("memory://web/*.tar", tmp_path / "out", encoder=ColourEncoder())
    assert report.manifest.counts.images == 3
    assert not (tmp_path / "out.corpus" / "files" / "readme.md").exists()


def test_an_archive_within_a_path(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for colour in COLOURS:
            archive.write(paint(tmp_path / "one.png", colour), f"in/{colour}.png")
        archive.write(tmp_path / "one.png", "../../escaped.png")
    told = Told()
    url = f"zip://::{tmp_path / 'photos.zip'}"
    report = build_index(url, tmp_path / "out", encoder=ColourEncoder(), progress=told)
    assert report.manifest.counts.images == 3
    assert any("1 files with unsafe names are left out" in note for note in told.notes)
    assert not list(tmp_path.parent.rglob("escaped.png"))


def test_a_copy_that_was_cut_short_is_gone_on_with(bucket: Any, tmp_path: Path, monkeypatch: Any) -> None:
    whole, calls = type(bucket).get_file, []

    def breaks(self: Any, path: str, to: str, **more: Any) -> None:
        calls.append(path)
        if path.endswith("green.png"):
            Path(to).write_bytes(b"half")
            raise TimeoutError("the line went dead")
        whole(self, path, to, **more)

    monkeypatch.setattr("indexer.corpus.remote.mirror.AT_A_TIME", 1)
    monkeypatch.setattr(type(bucket), "get_file", breaks)
    with pytest.raises(SourceError, match=r"cannot be fetched \(green.png\): the line went dead"):
        local_copy("memory://shop/photos", tmp_path / "copy", SourceOptions(), Told())
    monkeypatch.setattr(type(bucket), "get_file", whole)
    with (tmp_path / "copy" / "fetched.jsonl").open("a") as have:
        have.write('{"path": "/shop/pho')  # as a kill leaves it
    told = Told()
    local_copy("memory://shop/photos", tmp_path / "copy", SourceOptions(), told)
    assert (tmp_path / "copy" / "files" / "green.png").read_bytes() == bucket.cat("/shop/photos/green.png")
    assert fetched(told) in ([2], [3])  # blue.png was fetched before green.png broke, or not


def test_a_damaged_copy_is_fetched_again(bucket: Any, tmp_path: Path) -> None:
    local_copy("memory://shop/photos", tmp_path / "copy", SourceOptions(), Told())
    (tmp_path / "copy" / "files" / "red.png").write_bytes(b"")
    (tmp_path / "copy" / "files" / "blue.png").unlink()
    told = Told()
    local_copy("memory://shop/photos", tmp_path / "copy", SourceOptions(), told)
    assert fetched(told) == [2]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://shop/nothing", "nothing is there; check the address"),
        ("memory://shop/photos/*.png", "a pattern names .tar shards"),
        ("memory://shop/{0..9}.tar", "braces are not filled in"),
        ("memory://shop/*.tar", "holds no files"),
        ("nonsense://shop", "cannot be reached: Protocol not known: nonsense"),
        ("zip://::missing.zip", "nothing is there"),
    ],
)
def test_what_cannot_be_had_is_one_clear_line(bucket: Any, tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        build_index(url, tmp_path / "out", encoder=ColourEncoder())
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("out*")) == []


def test_no_message_tells_a_password(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        build_index("ftp://me:hunter2@127.0.0.1:1/photos", tmp_path / "out", encoder=ColourEncoder())
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_copy_of_something_else_is_refused(bucket: Any, tmp_path: Path) -> None:
    local_copy("memory://shop/photos", tmp_path / "copy", SourceOptions(), Told())
    with pytest.raises(SourceError, match="holds a copy of 'memory://shop/photos', not of 'memory://shop'"):
        local_copy("memory://shop", tmp_path / "copy", SourceOptions(), Told())


def test_a_disk_that_is_too_small_is_told_before(bucket: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(SourceError, match="give --cache on a larger disk"):
        local_copy("memory://shop/photos", tmp_path / "copy", SourceOptions(), Told())


def test_two_builds_do_not_copy_into_one_folder(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with IndexLock(tmp_path / "copy" / "LOCK"):
        caught: list[BaseException] = []

        def other() -> None:
            try:
                local_copy("memory://shop/photos", tmp_path / "copy", SourceOptions(), Told())
            except IndexLockedError as error:
                caught.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(caught) == 1


def test_the_command_takes_an_address(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(paint(tmp_path / "one.png", "red"), "red.png")
    out, cache = tmp_path / "out", tmp_path / "copy"
    arguments = [f"zip://::{tmp_path / 'photos.zip'}", "--out", str(out), "--encoder", "lite", "--cache", str(cache)]
    done = CliRunner().invoke(command, [*arguments, "--output", "json", "--quiet"])
    assert done.exit_code == 0, done.output
    assert (cache / "files" / "red.png").is_file()
    refused = CliRunner().invoke(command, [str(tmp_path), "--out", str(out), "--cache", str(cache)])
    assert refused.exit_code == 2
    assert "keeps the copy of a remote corpus" in refused.output


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_a_table_on_a_web_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "web").mkdir()
    paint(tmp_path / "web" / "red.png", "red")
    (tmp_path / "web" / "table.csv").write_text("image,text\nred.png,a red square\n", encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/table.csv"
        report = build_index(url, tmp_path / "out", encoder=ColourEncoder())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.rejected) == (1, 1, 0)
