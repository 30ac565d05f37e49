"""The perceptual hash: nearly the same for copies of an image, and far apart for different ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from encoders import decode_image
from encoders.perceptual_hash import perceptual_hash


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Smooth random colours, as a photograph has them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def unsigned(*images: Image.Image) -> np.ndarray:
    hashes = [perceptual_hash(image) for image in images]
    assert None not in hashes
    return np.array(hashes, dtype=np.int64).view(np.uint64)


def bits_apart(left: Image.Image, right: Image.Image) -> int:
    first, second = unsigned(left, right)
    return int(np.bitwise_count(first ^ second))


def saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def test_copies_differ_in_few_bits_and_others_in_many() -> None:
    for seed in range(5):
        image = scene(seed)
        for copy in (saved(image, 50), image.resize((96, 72)), saved(image.resize((640, 480)), 80)):
            assert bits_apart(image, copy) <= 4
        assert bits_apart(image, scene(seed + 100)) > 16


def test_a_mirrored_image_has_the_odd_horizontal_frequencies_turned() -> None:
    image = scene(3)
    left, right = unsigned(image, ImageOps.mirror(image))
    assert np.bitwise_count(left ^ right ^ np.uint64(0x5555_5555_5555_5555)) <= 8


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_image_without_contrast_has_none(level: int) -> None:
    flat = np.full((60, 80, 3), level, dtype=np.uint8)
    flat[::7, ::5] ^= 1
    assert perceptual_hash(Image.fromarray(flat)) is None


def test_the_smallest_images_and_strips_have_one_or_none() -> None:
    assert perceptual_hash(Image.new("RGB", (1, 1))) is None
    strip = np.random.default_rng(0).integers(0, 256, (3, 2000, 3), dtype=np.uint8)
    assert isinstance(perceptual_hash(Image.fromarray(strip)), int)


def test_a_gradient_has_none_as_half_of_its_bits_would_be_noise() -> None:
    ramp = np.linspace(0, 255, 200)[:, None, None] * np.ones((1, 300, 3))
    for colour in ((1, 0, 0), (0, 0, 1), (1, 1, 1)):
        assert perceptual_hash(Image.fromarray((ramp * colour).astype(np.uint8))) is None


@pytest.mark.parametrize("side", [16, 30, 60])
def test_thumbnails_and_images_in_black_and_white_keep_the_hash(side: int) -> None:
    for seed in range(5):
        image = scene(seed)
        small = image.resize((side, side * 3 // 4))
        assert bits_apart(image, small) <= 4
        assert bits_apart(image, image.convert("1").convert("RGB")) <= 4
        assert bits_apart(small, scene(seed + 1).resize(small.size)) > 16


def test_a_decoded_image_comes_with_it_turned_upright() -> None:
    image, file = scene(1), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    decoded = [decode_image(source).info.perceptual_hash for source in (file.getvalue(), image)]
    assert decoded == [perceptual_hash(image)] * 2
