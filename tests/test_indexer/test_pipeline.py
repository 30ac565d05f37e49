"""Decoding, encoding and collecting run at the same time, and every vector stays with its picture."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour import ColourEncoder, paint, paint_folder
from PIL import Image

from encoders import DecodedImage, DecodeLimits, EncoderError, decode_image
from indexer import build_index
from searcher import Searcher
from storage import IndexStore

PATIENCE = 20  # seconds, of which a working pipeline needs none


class Meeting(ColourEncoder):
    """Its first forward pass ends when a picture behind its batch has been prepared."""

    batch_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.prepared = 0
        self.further = threading.Event()
        self.overlapped: list[bool] = []
        self.threads: set[str] = set()

    def preprocess(self, image: Image.Image) -> np.ndarray:
        self.prepared += 1
        if self.overlapped == [] and self.threads:
            self.further.set()
        return super().preprocess(image)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        if not self.overlapped:
            self.overlapped.append(self.further.wait(PATIENCE))
        return super().encode_pixels(pixels)


class Pairwise(ColourEncoder):
    """Each of its calls ends once another one has begun, so that a pipeline that is drained between them gets stuck."""

    device = "cuda"  # where two threads feed it
    batch_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.together = threading.Barrier(2)
        self.met: set[str] = set()

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.meet("images")
        return super().encode_pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        if len(texts) == 8:  # of a shard, and no query
            self.meet("texts")
        return super().encode_texts(texts)

    def meet(self, what: str) -> None:
        self.together.wait(PATIENCE)
        self.met.add(what)


class Bytes(ColourEncoder):
    """Takes pictures as bytes, decoded small."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[int, int]] = set()
        self.kinds: set[str] = set()

    def open_image(self, source: Any, limits: DecodeLimits) -> DecodedImage[Image.Image]:
        return decode_image(source, limits, shrink=lambda width, height: 8)

    def byte_pixels(self, image: Image.Image) -> np.ndarray:
        self.sizes.add(image.size)
        return super().preprocess(image).astype(np.uint8)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.kinds.add(pixels.dtype.name)
        return super().encode_pixels(pixels.astype(np.float32))


class Failing(ColourEncoder):
    """Fails at its third batch."""

    batch_size = 4

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        if self.images_encoded >= 8:
            raise EncoderError("the device is gone; start again")
        return super().encode_pixels(pixels)


def test_pictures_are_decoded_while_the_encoder_works(photos: Path, tmp_path: Path) -> None:
    encoder = Meeting()
    build_index(photos, tmp_path / "index", encoder=encoder, decode_workers=2)
    assert encoder.overlapped == [True]
    assert encoder.prepared == encoder.images_encoded == 40


def test_the_encoder_is_fed_by_one_thread_that_does_nothing_else(photos: Path, tmp_path: Path) -> None:
    encoder = Meeting()
    build_index(photos, tmp_path / "index", encoder=encoder)
    assert len(encoder.threads) == 1
    assert threading.current_thread().name not in encoder.threads


@pytest.mark.parametrize(("captions", "cost", "met"), [(False, 4, {"images"}), (True, 5, {"images", "texts"})])
def test_the_encoder_gets_texts_beside_images_and_the_next_shard_before_the_last_is_done(
    captions: bool, cost: int, met: set[str], tmp_path: Path
) -> None:
    encoder = Pairwise()
    corpus = paint_folder(tmp_path / "photos", count=16, captions=captions)
    counts = build_index(corpus, tmp_path / "index", encoder=encoder, shard_cost=cost).manifest.counts
    assert (counts.images, counts.texts, encoder.met) == (16, 32 if captions else 0, met)


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 7, "shard_cost": 5}, {"decode_workers": 3}])
def test_every_vector_stays_with_its_picture(settings: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(40):
        blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((40, 40), Image.Resampling.NEAREST).save(tmp_path / f"photos/{number:02}.png")
    encoder = ColourEncoder()
    build_index(tmp_path / "photos", tmp_path / "index", encoder=encoder, **settings)
    with Searcher.open(tmp_path / "index", encoder=encoder) as searcher:
        for path in sorted((tmp_path / "photos").iterdir()):
            hit = searcher.image_to_image(path, k=1)[0]
            assert (hit.uri, hit.score > 0.999) == (path.name, True)


def test_bytes_reach_an_encoder_that_takes_them_and_the_catalog_keeps_the_size_of_the_file(tmp_path: Path) -> None:
    big = paint(tmp_path / "photos" / "big.png", "red", (640, 480))
    Image.open(big).save(tmp_path / "photos" / "photo.jpg")
    big.unlink()
    encoder = Bytes()
    build_index(tmp_path / "photos", tmp_path / "index", encoder=encoder)
    assert (encoder.sizes, encoder.kinds) == ({(80, 60)}, {"uint8"})
    with IndexStore.open(tmp_path / "index").open_version() as version:
        row = version.catalog.rows("images", np.array([0]), ["width", "height"])[0]
    assert (row["width"], row["height"]) == (640, 480)


def test_an_encoder_that_fails_ends_the_build_with_its_own_words(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="the device is gone"):
        build_index(photos, tmp_path / "index", encoder=Failing())
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_the_report_names_what_the_build_waited_for(photos: Path, tmp_path: Path) -> None:
    report = dict(build_index(photos, tmp_path / "index", encoder=ColourEncoder()).manifest.build)["encode"]
    assert report["bottleneck"] in report["stages"]
    assert report["stages"][report["bottleneck"]] == max(report["stages"].values())
