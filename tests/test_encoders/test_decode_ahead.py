"""A call of many images decodes ahead, of very many in processes; rows and errors are those of one image at a time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoders import ImageError, load_encoder
from encoders.decoding import processes
from encoders.decoding.ahead import taken_ahead
from encoders.decoding.processes import DecodeProcesses, processes_pay


@pytest.fixture
def many(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An encoder that decodes as one on a GPU does, of three images and more in one process, which a call waits for."""
    encoder: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    encoder._decodes_ahead, encoder.batch_size = True, 3
    monkeypatch.setattr(processes, "_PROCESSES_FROM", 1)
    monkeypatch.setattr(processes, "_IMAGES_FROM", 3)
    monkeypatch.setattr(encoder._decoders, "count", 1)
    ready = DecodeProcesses.is_ready

    def is_ready(started: DecodeProcesses) -> bool:
        started.wait()
        return bool(ready.fget(started))  # type: ignore[attr-defined]

    monkeypatch.setattr(DecodeProcesses, "is_ready", property(is_ready))
    return encoder


@pytest.fixture
def files(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> list[Path]:
    paths = [tmp_path / f"{number}.{kind}" for number, kind in enumerate(["jpg", "png"] * 5)]
    for number, path in enumerate(paths):
        make_picture(seed=number).save(path)
    return paths


@pytest.fixture
def decoded_there(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every source that a process was asked to decode."""
    decode, asked = DecodeProcesses.decode, list[Any]()

    def told(self: DecodeProcesses, source: Path | bytes, slot: Any) -> Any:
        asked.append(source)
        return decode(self, source, slot)

    monkeypatch.setattr(DecodeProcesses, "decode", told)
    return asked


def test_rows_are_those_of_threads_to_the_last_bit_whatever_an_image_is(
    many: Any, files: list[Path], decoded_there: list[Any], make_picture: Callable[..., Image.Image]
) -> None:
    images = [files[0], str(files[1]), make_picture(seed=20), files[2].read_bytes(), *files[3:]]
    shared, encode = list[bool](), many.encode_pixels

    def encode_pixels(pixels: np.ndarray) -> np.ndarray:
        shared.append(pixels.base is not None)
        rows: np.ndarray = encode(pixels)
        return rows

    many.encode_pixels = encode_pixels
    rows = many.encode_images(images)
    many.encode_pixels = encode
    assert decoded_there == [files[0], files[1], images[3], *files[3:]]
    assert shared[:2] == [False, True]  # the first batch holds an image that was decoded already
    many._decodes_ahead = False
    np.testing.assert_array_equal(rows, many.encode_images(images))


@pytest.mark.parametrize("bad", [0, 4, 9])
def test_an_image_that_cannot_be_decoded_is_the_same_error_and_no_process_is_left(
    many: Any, files: list[Path], bad: int
) -> None:
    files[bad].write_bytes(b"\xff\xd8\xff no image")
    before = children()
    with pytest.raises(ImageError) as there:
        many.encode_images(files)
    assert children() == before
    many._decodes_ahead = False
    with pytest.raises(ImageError) as here:
        many.encode_images(files)
    assert (there.value.reason, there.value.detail) == (here.value.reason, here.value.detail)


def test_an_interrupt_ends_the_processes(many: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = children(), list[set[str]]()

    def interrupted(pixels: np.ndarray) -> np.ndarray:
        seen.append(children())
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "encode_pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        many.encode_images(files)
    assert len(seen[0]) > len(before)
    assert children() == before


def test_where_no_process_can_be_started_threads_decode(
    tiny_folder: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    expected = encoder.encode_images(files)
    encoder._decodes_ahead, encoder.batch_size = True, 3
    monkeypatch.setattr(processes, "_PROCESSES_FROM", 1)
    monkeypatch.setattr(processes, "_IMAGES_FROM", 3)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    np.testing.assert_allclose(encoder.encode_images(files), expected, atol=1e-6)


def test_processes_are_for_many_images_and_several_cores() -> None:
    assert [processes_pay(*given) for given in ((4, 10_000), (3, 10_000), (4, 9_999))] == [True, False, False]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_one_batch_is_worked_on_while_another_is_used_and_no_further_one(pool: ThreadPoolExecutor) -> None:
    begun, wanted = list[int](), threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            wanted.set()
        return -number

    results = list[list[int]]()
    for result in taken_ahead([[0, 1], [2, 3], [4]], lambda number: pool.submit(work, number)):
        assert wanted.wait(60)
        assert results or 4 not in begun
        results.append(result)
    assert results == [[0, -1], [-2, -3], [-4]]
    assert list(taken_ahead([], lambda number: pool.submit(work, number))) == []


def test_what_is_left_early_waits_for_what_has_begun_and_leaves_out_the_rest(pool: ThreadPoolExecutor) -> None:
    go, done = threading.Event(), list[int]()

    def work(number: int) -> int:
        if number == 2:
            assert go.wait(60)
        done.append(number)
        return number

    def submit(number: int) -> Future[int]:
        return pool.submit(work, number)

    with closing(taken_ahead([[0, 1], [2, 3, 4]], submit)) as ahead:
        assert next(ahead) == [0, 1]
        threading.Timer(0.2, go.set).start()
    assert done in ([0, 1, 2], [0, 1])


def children() -> set[str]:
    own = Path(f"/proc/{os.getpid()}/task")
    if not own.exists():
        pytest.skip("which processes a process has started is told by Linux alone")
    return {pid for task in own.iterdir() for pid in (task / "children").read_text().split()}
