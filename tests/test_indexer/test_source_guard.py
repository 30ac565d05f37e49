"""Text files of a corpus that would hang a build or fill its memory: pipes, devices, endless lines."""

from __future__ import annotations

import gzip
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, SourceError, SourceOptions, open_source
from indexer.corpus.item import MAX_TEXT_BYTES, Item, Rejection, Source
from indexer.corpus.layouts.lines import open_bytes, read_whole

HANGING = 20


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """Let a hanging test fail: whoever waits for a writer of a pipe gets one."""
    done = threading.Event()

    def watch() -> None:
        if not done.wait(HANGING):
            os._exit(70)

    threading.Thread(target=watch, daemon=True).start()
    yield
    done.set()


def told(source: Source) -> tuple[list[str], list[tuple[str, str]]]:
    """The ids of the items, and id and reason of every rejection."""
    entries = list(source.items())
    rejected = [(entry.item_id, entry.reason) for entry in entries if isinstance(entry, Rejection)]
    return [entry.item_id for entry in entries if isinstance(entry, Item)], rejected


def test_a_sidecar_that_is_no_regular_file_is_one_rejection(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "b.txt").symlink_to("/dev/zero")
    source = open_source(tmp_path)
    assert told(source)[1] == [("a.jpg", "unreadable"), ("b.jpg", "outside_corpus")]
    (pipe, _) = (entry for entry in source.items() if isinstance(entry, Rejection))
    assert "it is a pipe, not a regular file" in pipe.detail


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.tsv", "x.jsonl", "x.json", "x.parquet", "x.tar", "x.csv.gz"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_corpus_that_is_no_regular_file_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(SourceError, match=f"it is a {kind}, not a regular file"):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["captions.txt", "results.csv", "dataset_x.json", "captions_val2014.json", "train.csv", "test_caps.txt"]
)
def test_a_data_set_file_that_is_a_pipe_hangs_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / name)
    try:
        told(open_source(tmp_path))
    except SourceError as error:
        assert "not a regular file" in str(error)  # noqa: PT017 - either way it ends


@pytest.mark.parametrize("role", ["vectors", "table", "ids", "pairs"])
def test_ready_made_vectors_and_what_stands_beside_them_are_regular_files(tmp_path: Path, role: str) -> None:
    import numpy as np

    np.save(tmp_path / "good.npy", np.eye(4, dtype=np.float32))
    os.mkfifo(tmp_path / "pipe.npy")
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "pipe.csv")
    vectors = tmp_path / ("pipe.npy" if role == "vectors" else "good.npy")
    table = tmp_path / "pipe.csv" if role == "table" else None
    ids = tmp_path / "pipe.txt" if role == "ids" else None
    pairs = tmp_path / "pipe.csv" if role == "pairs" else None
    images = EmbeddingFiles(vectors=vectors, ids=ids, table=table)
    texts = EmbeddingFiles(vectors=tmp_path / "good.npy")
    with pytest.raises(SourceError, match="it is a pipe, not a regular file"):
        EmbeddingSource(EmbeddingOptions(images=images, texts=texts, pairs=pairs))


def test_a_caption_above_the_limit_is_one_rejection_and_the_next_line_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    at_limit = "x" * MAX_TEXT_BYTES
    (tmp_path / "a.txt").write_text(f"{at_limit}\n{at_limit}y\nshort\n", encoding="utf-8-sig")
    assert told(open_source(tmp_path)) == (["a.jpg", "a.jpg#0", "a.jpg#2"], [("a.jpg#1", "too_large")])


def test_a_first_line_above_the_limit_is_rejected_behind_a_byte_order_mark_too(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x" * (MAX_TEXT_BYTES + 1) + "\nshort\n", encoding="utf-8-sig")
    assert told(open_source(tmp_path)) == (["notes.txt#1"], [("notes.txt#0", "too_large")])


def test_a_cell_above_the_limit_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"image,caption\na.jpg,{'x' * (MAX_TEXT_BYTES + 1)}\nb.jpg,short\n")
    assert told(open_source(tmp_path / "t.csv")) == (["a.jpg", "b.jpg", "b.jpg#0"], [("a.jpg#0", "too_large")])


def test_a_sparse_sidecar_of_a_terabyte_is_one_rejection_and_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(2**40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert told(open_source(tmp_path)) == (["a.jpg"], [("a.jpg", "unreadable")])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.jsonl", "x.json", "captions_val2014.json"])
def test_a_sparse_corpus_file_is_refused(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.write(b'{"a": "' if "val2014" in name else b"[" if name == "x.json" else b"image,")
        file.truncate(2**40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError):
        told(open_source(tmp_path / name))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB


def test_a_packed_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(b" " * 20_000_000))
    with pytest.raises(OSError, match="more than 1000000 bytes"):
        read_whole(tmp_path / "bomb.json.gz", 1_000_000)
    assert read_whole(tmp_path / "bomb.json.gz") == b" " * 20_000_000


def test_a_closed_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\n"))
    os.mkfifo(tmp_path / "pipe.txt")
    before = len([*Path("/proc/self/fd").iterdir()])
    with open_bytes(tmp_path / "a.txt.gz") as file:
        assert file.read() == b"one\n"
    with pytest.raises(OSError, match="pipe"):
        open_bytes(tmp_path / "pipe.txt")
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_spaces_before_a_line_of_captions_cost_no_quadratic_time(tmp_path: Path) -> None:
    (tmp_path / "x.token").write_bytes(b"a.jpg#0\tone\n" + b" " * 1_000_000 + b"x\n   b.jpg#0\ttwo\n")
    kept, rejected = told(open_source(tmp_path / "x.token", SourceOptions(layout="flickr")))
    assert kept == ["a.jpg", "a.jpg#0", "b.jpg", "b.jpg#0"]
    assert rejected == [("x.token#line-2", "not_a_caption_line")]
