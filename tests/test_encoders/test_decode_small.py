"""Photographs decoded small: as far as allowed, upright, with the size of their file, and with the same errors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoders import DecodeLimits, ImageError, decode_image


def smooth(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


PHOTO = file_of(smooth(640, 480))


@pytest.mark.parametrize(
    ("most", "size"), [(1, (640, 480)), (1.9, (640, 480)), (2, (320, 240)), (7.9, (160, 120)), (99, (80, 60))]
)
def test_a_photograph_is_decoded_as_small_as_allowed_and_no_smaller(most: float, size: tuple[int, int]) -> None:
    decoded = decode_image(PHOTO, shrink=lambda width, height: most)
    assert decoded.pixels.size == size
    assert (decoded.info.width, decoded.info.height) == (640, 480)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), most=st.floats(1, 10))
def test_no_side_shrinks_by_more_than_was_allowed(width: int, height: int, most: float) -> None:
    decoded = decode_image(file_of(smooth(width, height)), shrink=lambda *_: most)
    assert (decoded.info.width, decoded.info.height) == (width, height)
    assert decoded.pixels.width >= width / most - 1e-9
    assert decoded.pixels.height >= height / most - 1e-9


def test_the_rule_is_asked_about_the_size_of_the_file() -> None:
    asked = []
    decode_image(PHOTO, shrink=lambda *size: asked.append(size) or 1)
    assert asked == [(640, 480)]


def test_it_looks_like_the_whole_picture_made_small() -> None:
    small = decode_image(PHOTO, shrink=lambda *_: 4).pixels
    whole = decode_image(PHOTO).pixels.resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_upright_and_has_the_size_that_is_shown(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(smooth(640, 480), exif=exif)
    small, whole = decode_image(data, shrink=lambda *_: 4), decode_image(data)
    assert (small.info.width, small.info.height) == (whole.info.width, whole.info.height) == whole.pixels.size
    assert small.pixels.size == (whole.info.width // 4, whole.info.height // 4)
    near = np.asarray(whole.pixels.resize(small.pixels.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(small.pixels) - near).mean() < 2


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_kind_of_jpeg_comes_out_as_rgb(mode: str) -> None:
    decoded = decode_image(file_of(smooth(640, 480).convert(mode)), shrink=lambda *_: 4)
    assert (decoded.pixels.mode, decoded.pixels.size) == ("RGB", (160, 120))


def test_pictures_of_telephones_with_further_ones_behind_are_decoded_small_too() -> None:
    data = file_of(smooth(640, 480), "MPO", save_all=True, append_images=[smooth(64, 48)])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert decode_image(data, shrink=lambda *_: 4).pixels.size == (160, 120)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_formats_stay_whole(format: str) -> None:
    decoded = decode_image(file_of(smooth(64, 48), format), shrink=lambda *_: 4)
    assert decoded.pixels.size == (64, 48) == (decoded.info.width, decoded.info.height)


def test_limits_are_those_of_the_file_and_not_of_what_is_decoded() -> None:
    with pytest.raises(ImageError, match="too_many_pixels: 640 x 480 is more than the limit of 307199 pixels"):
        decode_image(PHOTO, DecodeLimits(max_pixels=640 * 480 - 1), shrink=lambda *_: 8)


def outcome(data: bytes, **options: object) -> str:
    try:
        decode_image(data, **options)
    except ImageError as error:
        return error.reason
    return "a picture"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_told_exactly_as_of_a_whole_decode(data: st.DataObject) -> None:
    damaged = bytearray(PHOTO[: data.draw(st.integers(1, len(PHOTO)))])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(damaged), shrink=lambda *_: 8) == outcome(bytes(damaged))


def test_a_photograph_from_a_path_has_the_digest_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    small, whole = decode_image(tmp_path / "a.jpg", shrink=lambda *_: 8), decode_image(PHOTO)
    assert (small.info.sha256, small.info.file_bytes) == (whole.info.sha256, whole.info.file_bytes)
