"""Images decoded in processes are those decoded here, with the same errors, whatever becomes of a process."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders import DecodeLimits, EncoderError, ImageError, decode_image
from encoders.decoding.processes import DecodeProcesses, info_as_json, info_from
from encoders.decoding.shared_pixels import SharedPixels, joined
from encoders.fast_preprocess import FastPreprocess
from encoders.preprocess import Preprocess, PreprocessConfig
from storage.child_process import ChildProcess
from storage.schema import ImageInfo

CONFIG = PreprocessConfig(size=(32, 32))
LIMITS = DecodeLimits(max_pixels=500_000)


@pytest.fixture(scope="module")
def processes() -> Iterator[DecodeProcesses]:
    with DecodeProcesses(CONFIG, LIMITS, processes=1, slots=8) as started:
        assert not started.is_ready
        started.wait()
        assert (started.is_ready, started.failure) == (True, None)
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    image = Image.fromarray(noise).resize((600, 400), Image.Resampling.BICUBIC)
    image.save(folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112], exif[0x0132], exif[0x010F] = 6, "2021:03:04 05:06:07", "Maker"
    image.convert("RGB").save(folder / "turned.jpg", exif=exif)
    image.convert("L").resize((30, 200)).save(folder / "strip.webp")
    (folder / "cut.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:2000])
    (folder / "empty.jpg").touch()
    Image.new("RGB", (1000, 600)).save(folder / "large.png")
    return folder


def decoded_here(source: Path | bytes) -> tuple[ImageInfo, np.ndarray]:
    preprocess = FastPreprocess(Preprocess(CONFIG))
    image = decode_image(source, LIMITS, shrink=preprocess.exact.shrink)
    return image.info, preprocess(image.pixels)


@pytest.mark.parametrize("name", ["alpha.png", "turned.jpg", "strip.webp"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_bytes_and_facts_are_those_of_this_process(
    processes: DecodeProcesses, folder: Path, name: str, as_bytes: bool
) -> None:
    source = (folder / name).read_bytes() if as_bytes else folder / name
    slot = processes.pixels.take()
    assert slot is not None
    info = processes.decode(source, slot)
    expected, pixels = decoded_here(source)
    assert (info == expected, info.camera is None) == (True, name != "turned.jpg")
    np.testing.assert_array_equal(slot.pixels, pixels)
    slot.release()


@pytest.mark.parametrize("name", ["cut.jpg", "empty.jpg", "large.png", "missing\udcff.jpg"])
def test_errors_are_those_of_this_process(processes: DecodeProcesses, folder: Path, name: str) -> None:
    with pytest.raises(ImageError) as here:
        decoded_here(folder / name)
    slot = processes.pixels.take()
    assert slot is not None
    with pytest.raises(ImageError) as there:
        processes.decode(folder / name, slot)
    assert (there.value.reason, there.value.detail) == (here.value.reason, here.value.detail)
    slot.release()


def test_a_process_that_is_killed_over_an_image_is_replaced_and_the_image_is_decoded(
    processes: DecodeProcesses, folder: Path
) -> None:
    slot = processes.pixels.take()
    assert slot is not None
    processes.decode(folder / "alpha.png", slot)  # so that there is a process
    killed = processes._pool.idle[0]._process
    os.kill(killed.pid, signal.SIGSTOP)  # it takes the request and does not answer
    threading.Timer(0.2, killed.kill).start()
    assert processes.decode(folder / "turned.jpg", slot).camera == "Maker"
    assert [one._process.pid != killed.pid for one in processes._pool.idle] == [True]
    slot.release()


def test_an_image_that_ends_two_processes_is_one_error_and_the_next_is_decoded(
    processes: DecodeProcesses, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = processes.pixels.take()
    assert slot is not None
    processes._pool.close()

    def starts_and_dies() -> ChildProcess:
        process = ChildProcess("encoders.formats.worker")  # which is sooner there
        process._process.kill()
        process._process.wait()
        return process

    with monkeypatch.context() as patched:
        patched.setattr(processes._pool, "_start", starts_and_dies)
        with pytest.raises(ImageError, match="corrupt: decoding it ended 2 processes, signal SIGKILL"):
            processes.decode(folder / "alpha.png", slot)
    assert processes.decode(folder / "alpha.png", slot).width == 600
    slot.release()


def test_a_process_that_cannot_be_started_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with DecodeProcesses(CONFIG, LIMITS, processes=1, slots=1) as none:
        with pytest.raises(EncoderError, match=r"cannot be started: .*No such file.*; decode in threads"):
            none.wait()
        assert (none.is_ready, type(none.failure)) == (False, EncoderError)


def test_facts_come_back_from_json_as_they_were() -> None:
    known = ImageInfo(
        width=1,
        height=1,
        sha256="",
        file_bytes=0,
        mtime_ns=None,
        taken_at=datetime(2021, 3, 4, 5, 6, 7, 890),
        latitude=0.1 + 0.2,
        keywords=("a", "b"),
    )
    for info in (known, replace(known, taken_at=None, keywords=None)):
        assert info_from(json.loads(json.dumps(info_as_json(info)))) == info


def test_images_in_neighbouring_slots_are_one_array_without_a_copy() -> None:
    shared = SharedPixels(4, (3, 2, 2))
    slots = [slot for slot in (shared.take() for _ in range(5)) if slot is not None]
    assert (len(slots), shared.free) == (4, 0)
    for slot in slots:
        slot.pixels[:] = slot.number
    whole = joined([slot.pixels for slot in slots[1:]], slots[1:])
    assert np.shares_memory(whole, slots[1].pixels)
    assert whole[:, 0, 0, 0].tolist() == [1, 2, 3]
    apart = joined([slot.pixels for slot in slots[::2]], slots[::2])
    assert (np.shares_memory(apart, slots[0].pixels), apart[:, 0, 0, 0].tolist()) == (False, [0, 2])
    mixed = joined([slots[3].pixels, np.full((3, 2, 2), 9, np.uint8)], [slots[3], None])
    assert mixed[:, 0, 0, 0].tolist() == [3, 9]
    shared.close()


def test_slots_are_taken_in_a_ring_and_used_again() -> None:
    shared = SharedPixels(3, (1,))
    first, second = shared.take(), shared.take()
    assert first is not None
    assert second is not None
    first.release()
    assert [slot.number if slot else None for slot in (shared.take(), shared.take(), shared.take())] == [2, 0, None]
    second.release()
    assert shared.free == 1
    shared.close()
