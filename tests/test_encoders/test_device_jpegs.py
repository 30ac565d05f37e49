"""JPEG files decoded by torchvision, on torch's CPU device in place of a GPU, and every other file left to Pillow."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from encoders import DecodeLimits, decode_image, device_jpegs, load_encoder
from encoders.cpu_backends import GATE, golden_files
from encoders.device_jpegs import DeviceJpegs, fitted, lowest_cosine, torchvision_decoder
from encoders.preprocess import Preprocess, PreprocessConfig
from indexer import BuildError, build_index
from indexer.config import BuildConfig
from indexer.encode import pipeline
from indexer.progress import SilentProgress
from storage import IndexStore

CONFIG = PreprocessConfig(size=(32, 32))
LIMITS = DecodeLimits()


@pytest.fixture
def jpegs() -> Iterator[DeviceJpegs]:
    with DeviceJpegs(CONFIG, "cpu") as started:
        yield started


def jpeg(image: Image.Image, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **how})
    return file.getvalue()


def test_bytes_and_facts_are_those_of_the_usual_decoder(jpegs: DeviceJpegs, tmp_path: Path) -> None:
    exif, bits = Image.Exif(), list[int]()
    exif[0x0112], exif[0x0132], exif[0x010F] = 1, "2021:03:04 05:06:07", "Maker"
    for number, data in enumerate(golden_files()):
        image = decode_image(data).pixels
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(jpeg(image, exif=exif))
        found, expected = jpegs.read(path, LIMITS), decode_image(path)
        assert found is not None
        assert replace(found.info, perceptual_hash=None) == replace(expected.info, perceptual_hash=None)
        hashes = [one.info.perceptual_hash or 0 for one in (found, expected)]
        bits.append(((hashes[0] ^ hashes[1]) & (2**64 - 1)).bit_count())
        pixels = Preprocess(CONFIG).byte_pixels(expected.pixels)
        assert (found.pixels.shape, found.pixels.dtype) == (pixels.shape, np.uint8)
        assert np.abs(found.pixels.astype(int) - pixels).max() <= 2
    assert found.info.camera == "Maker"
    assert max(bits) <= 2


@pytest.mark.parametrize(
    "config",
    [
        PreprocessConfig(size=(32, 32)),
        PreprocessConfig(size=(20, 32), resize_mode="longest", fill_color=255),
        PreprocessConfig(size=(32, 20), resize_mode="longest", interpolation="bilinear"),
        PreprocessConfig(size=(24, 36), resize_mode="shortest"),
        PreprocessConfig(size=(33, 21), resize_mode="squash"),
    ],
)
@pytest.mark.parametrize("size", [(90, 61), (40, 200), (32, 32), (9, 7)])
def test_each_transform_is_that_of_pillow(
    config: PreprocessConfig, size: tuple[int, int], make_picture: Callable[..., Image.Image]
) -> None:
    image = make_picture(*size)
    made = fitted(torch.from_numpy(np.array(image)).permute(2, 0, 1), Preprocess(config)).numpy()
    expected = Preprocess(config).byte_pixels(image)
    assert made.shape == expected.shape
    assert np.abs(made.astype(int) - expected).max() <= 2


def others(picture: Image.Image) -> dict[str, bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    png = io.BytesIO()
    picture.save(png, "PNG")
    plain = jpeg(picture)
    return {
        "progressive": jpeg(picture, progressive=True),
        "turned": jpeg(picture, exif=turned),
        "grey": jpeg(picture.convert("L")),
        "CMYK": jpeg(picture.convert("CMYK")),
        "RGB": jpeg(picture, keep_rgb=True),
        "PNG": png.getvalue(),
        "cut": plain[: len(plain) // 2],
        "more behind it": plain + b"more",
        "no image": b"\xff\xd8\xff no image\xff\xd9",
        "empty": b"",
        "a strip": jpeg(picture.resize((2000, 20))),
    }


@pytest.mark.parametrize("kind", list(others(Image.new("RGB", (8, 8)))))
def test_other_files_are_left_to_the_usual_decoder(kind: str, make_picture: Callable[..., Image.Image]) -> None:
    def decode(files: list[torch.Tensor]) -> list[torch.Tensor]:
        raise AssertionError(kind)

    with DeviceJpegs(CONFIG, "cpu", decode) as none:
        assert none.read(others(make_picture())[kind], LIMITS) is None
        assert none.read(Path("nowhere.jpg"), LIMITS) is None
        assert none.read(jpeg(make_picture()), replace(LIMITS, max_pixels=100)) is None


def test_threads_that_ask_at_once_share_a_call_and_one_bad_file_is_left_out_alone(
    make_picture: Callable[..., Image.Image],
) -> None:
    calls, begun, go = list[int](), threading.Event(), threading.Event()
    bad, decoded = jpeg(make_picture(seed=3)), torchvision_decoder("cpu")

    def decode(files: list[torch.Tensor]) -> list[torch.Tensor]:
        calls.append(len(files))
        begun.set()
        assert go.wait(60)
        if any(bytes(file.numpy()) == bad for file in files):
            raise RuntimeError("nvjpegDecode failed: 4")
        return [*decoded(files)]

    files = [bad if number == 3 else jpeg(make_picture(seed=number)) for number in range(6)]
    with DeviceJpegs(CONFIG, "cpu", decode) as shared, ThreadPoolExecutor(6) as pool:
        first = pool.submit(shared.read, files[0], LIMITS)
        assert begun.wait(60)
        rest = [pool.submit(shared.read, data, LIMITS) for data in files[1:]]
        while shared._asked.qsize() < 5:
            threading.Event().wait(0.01)
        go.set()
        found = [first.result(), *(one.result() for one in rest)]
    assert calls == [1, 5, 1, 1, 1, 1, 1]
    assert [one is None for one in found] == [number == 3 for number in range(6)]
    for one, data in zip(found, files, strict=True):
        if one is not None:
            expected = Preprocess(CONFIG).byte_pixels(decode_image(data).pixels)
            assert np.abs(one.pixels.astype(int) - expected).max() <= 2


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def on_gpu(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An encoder that a build takes for one on a GPU where it looks for a decoder, which is that of the CPU device."""
    encoder: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    found = pipeline.device_jpegs

    def asked(encoder: Any, *given: Any) -> Any:
        encoder.device = "cuda"
        try:
            return found(encoder, *given)
        finally:
            encoder.device = "cpu"

    monkeypatch.setattr(pipeline, "device_jpegs", asked)
    monkeypatch.setattr(device_jpegs, "DeviceJpegs", lambda config, device: DeviceJpegs(config, "cpu"))
    return encoder


@pytest.fixture
def corpus(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, data in enumerate(golden_files()):
        (folder / f"golden{number:02}.jpg").write_bytes(data)
    for kind, data in others(make_picture()).items():
        (folder / f"{kind}.jpg").write_bytes(data)
    return folder


def built(corpus: Path, index: Path, encoder: Any, **settings: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
    build_index(corpus, index, encoder=encoder, decode_workers=2, batch_size=4, **settings)
    with IndexStore.open(index).open_version() as version:
        table = version.vectors("images")
        return table.gather(np.arange(table.rows)), version.catalog.rows("images", np.arange(table.rows))


def test_a_build_has_the_same_images_facts_and_rejections(corpus: Path, tmp_path: Path, on_gpu: Any) -> None:
    assert lowest_cosine(device_jpegs.DeviceJpegs(CONFIG, "cuda"), on_gpu) >= GATE
    opened, open_image = list[Any](), on_gpu.open_image
    on_gpu.open_image = lambda source, limits=LIMITS: opened.append(source) or open_image(source, limits)
    vectors, rows = built(corpus, tmp_path / "there", on_gpu, decode_in="gpu")
    here = [Path(source).name for source in opened if isinstance(source, Path)]
    assert len(here) == 11
    assert not any(name.startswith("golden") for name in here)
    expected, known = built(corpus, tmp_path / "here", on_gpu, decode_in="threads")
    assert len(rows) == len(known) == 11 + 8
    assert [{**row, "perceptual_hash": 0} for row in rows] == [{**row, "perceptual_hash": 0} for row in known]
    assert np.einsum("nd,nd->n", vectors.astype(np.float32), expected.astype(np.float32)).min() >= GATE


def test_where_the_vectors_would_be_others_threads_decode_and_the_build_says_so(
    corpus: Path, tmp_path: Path, on_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = torchvision_decoder("cpu")

    def inverted(files: list[torch.Tensor]) -> list[torch.Tensor]:
        return [255 - image for image in decoded(files)]

    progress = Notes()
    monkeypatch.setattr(device_jpegs, "DeviceJpegs", lambda config, device: DeviceJpegs(config, "cpu", inverted))
    vectors, _ = built(corpus, tmp_path / "there", on_gpu, decode_in="gpu", progress=progress)
    told = [line for line in progress.notes if "images are decoded in threads, not on cuda: cosine" in line]
    assert len(told) == 1
    np.testing.assert_array_equal(vectors, built(corpus, tmp_path / "here", on_gpu, decode_in="threads")[0])


def test_what_has_no_gpu_is_refused(corpus: Path, tmp_path: Path, tiny_folder: Path) -> None:
    encoder = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    with pytest.raises(BuildError, match=r"--decode-in gpu: encoder .* is on the CPU; leave --decode-in out"):
        build_index(corpus, tmp_path / "index", encoder=encoder, decode_in="gpu")
    for settings, message in (({"device": "cpu"}, "not with --device cpu"), ({"executor": "ray"}, "one machine")):
        with pytest.raises(BuildError, match=f"--decode-in gpu .*{message}"):
            BuildConfig(decode_in="gpu", **settings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_passes_the_gate(tiny_folder: Path) -> None:
    encoder: Any = load_encoder(f"local-dir:{tiny_folder}", device="cuda", precision="fp32")
    with DeviceJpegs(encoder.preprocess_config, "cuda") as jpegs:
        assert lowest_cosine(jpegs, encoder) >= GATE
