"""What phones and cameras write: HEIC, JPEG XL, RAW by its preview, JPEG with a film behind it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from phone_files import HAS_PHOTOS, dng, exif_of, heic, jpeg_xl, jpeg_xl_of_jpeg
from PIL import Image, ImageOps

from encoders import DecodeLimits, ImageError, decode_image
from encoders.formats.process import decode_elsewhere
from searcher.render.thumbnails import thumbnail
from searcher.server.image_cache import Thumbnails

needs_photos = pytest.mark.skipif(not HAS_PHOTOS, reason="needs the extra photos")


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """Red above on the left, blue elsewhere, a green corner at the lower right: no turn leaves it as it is."""
    image = Image.new("RGB", (width, height), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, width // 2, height // 2))
    image.paste((0, 255, 0), (width - 16, height - 16, width, height))
    return image


def turned(turn: int) -> Image.Image:
    image = picture()
    image.getexif()[0x0112] = turn
    return ImageOps.exif_transpose(image)


def assert_same(image: Image.Image, expected: Image.Image) -> None:
    assert (image.mode, image.size) == ("RGB", expected.size)
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(expected)).mean() < 4


def outcome(data: bytes, **limits: float) -> str:
    try:
        return decode_image(data, DecodeLimits(**limits)).pixels.mode  # type: ignore[arg-type]
    except ImageError as error:
        return error.reason


@needs_photos
@pytest.mark.parametrize("turn", range(1, 9))
def test_each_turn_is_undone_once_wherever_an_image_is_shown(turn: int, tmp_path: Path) -> None:
    for data in (heic(picture(), turn), jpeg_xl_of_jpeg(picture(), turn, tmp_path), dng(picture(), turn)):
        once = decode_image(data)
        assert_same(once.pixels, turned(turn))
        assert (once.info.width, once.info.height) == turned(turn).size
        assert dict(once.pixels.getexif()) == {} == once.pixels.info
        small = thumbnail(data, turned(turn).size).image
        assert small is not None
        assert_same(small, turned(turn))
        assert_same(Image.open(io.BytesIO(Thumbnails(DecodeLimits()).of_query(data).data)), turned(turn))


@needs_photos
def test_a_turn_in_exif_alone_does_not_count_where_the_format_says_it_elsewhere() -> None:
    assert_same(decode_image(jpeg_xl(picture(), exif=exif_of(6).tobytes())).pixels, picture())
    data = heic(picture(), 6)
    # The box that turns becomes one that nobody knows.
    assert_same(decode_image(data.replace(b"irot", b"free")).pixels, picture())


@needs_photos
def test_depth_opacity_grids_and_sequences() -> None:
    assert_same(decode_image(heic(picture(200, 150), tile_size=64)).pixels, picture(200, 150))
    for write in (heic, jpeg_xl):
        assert_same(decode_image(write(picture().convert("L"))).pixels, picture().convert("L").convert("RGB"))
        clear = picture().convert("RGBA")
        clear.putalpha(128)
        white = Image.new("RGB", clear.size, "white")
        assert_same(decode_image(write(clear)).pixels, Image.blend(white, picture(), 128 / 255))
        grey = Image.fromarray(np.full((64, 64), 32768, np.uint16))
        assert abs(int(np.asarray(decode_image(write(grey)).pixels)[5, 5, 0]) - 128) < 3
    others = [picture().rotate(90), picture().rotate(180)]
    assert_same(decode_image(heic(picture(), save_all=True, append_images=others)).pixels, picture())


@needs_photos
def test_ten_bits_a_colour_become_eight() -> None:
    import pillow_heif

    samples = np.asarray(picture()).astype(np.uint16) * 257
    file = io.BytesIO()
    pillow_heif.from_bytes(mode="RGB;16", size=(96, 64), data=samples.tobytes()).save(file, quality=95)
    assert_same(decode_image(file.getvalue()).pixels, picture())


@needs_photos
@pytest.mark.parametrize("write", [heic, jpeg_xl])
def test_the_limits_hold_as_for_every_format(write: Callable[[Image.Image], bytes]) -> None:
    data = write(picture())
    assert outcome(data) == "RGB"
    assert outcome(data, max_bytes=len(data) - 1) == "too_large"
    assert outcome(data, max_pixels=96 * 64 - 1) == "too_many_pixels"
    assert outcome(data, max_pixels=96 * 64) == "RGB"
    assert outcome(data[: len(data) // 2]) == "corrupt"
    noise = write(Image.effect_noise((900, 700), 90).convert("RGB"))
    assert outcome(noise, max_seconds=0.001) == "too_slow"
    # The process that was ended is replaced.
    assert outcome(noise) == "RGB"


@needs_photos
def test_a_heic_that_claims_fewer_pixels_than_it_codes_gives_no_more() -> None:
    data = heic(picture(640, 640))
    claimed = data.replace((640).to_bytes(4, "big") * 2, (16).to_bytes(4, "big") * 2)
    assert claimed != data
    assert outcome(claimed, max_pixels=10_000) in ("too_many_pixels", "corrupt")


@pytest.mark.parametrize(("start", "name"), [(b"\0\0\0\x18ftypheic", "HEIF"), (b"\xff\x0a\0\0", "JXL")])
def test_without_the_package_the_message_names_the_extra(
    start: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageError, match=rf"unsupported_format: {name} needs the extra photos; run pip .*,photos\]"):
        decode_image(start + bytes(40))
    with pytest.raises(ImageError, match="needs the extra photos"):
        decode_elsewhere(name, start, 100, 1.0)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def test_a_raw_file_is_its_largest_preview() -> None:
    small, large = jpeg(picture(48, 32)), jpeg(picture())
    plain = b"FUJIFILMCCD-RAW" + bytes(100) + small + bytes(50) + large
    assert_same(decode_image(plain).pixels, picture())
    # The preview's own turn comes before that of the file around it.
    assert_same(decode_image(dng(picture(), 6, exif=exif_of(3))).pixels, turned(3))
    olympus = b"IIRO" + dng(picture(), 8)[4:]
    assert_same(decode_image(olympus).pixels, turned(8))
    assert outcome(b"FUJIFILMCCD-RAW" + bytes(300)) == "unsupported_format"
    assert outcome(plain[:-20]) == "corrupt"
    assert outcome(plain, max_pixels=2000) == "too_many_pixels"
    assert outcome(plain, formats=("JPEG", "PNG")) == "unsupported_format"  # type: ignore[arg-type]


def test_a_canon_raw_file_is_turned_by_its_own_tags() -> None:
    def box(kind: bytes, body: bytes) -> bytes:
        return (len(body) + 8).to_bytes(4, "big") + kind + body

    turn = Image.Exif()
    turn[0x0112] = 6
    tags = turn.tobytes().removeprefix(b"Exif\0\0")
    taken = Image.Exif()
    taken[0x9003] = "2023:05:06 07:08:09"
    place = Image.Exif()
    place.update({1: "N", 2: (48.0, 12.0, 0.0), 3: "E", 4: (16.0, 22.0, 0.0)})
    directories = {b"CMT1": tags, b"CMT2": taken.tobytes()[6:], b"CMT4": place.tobytes()[6:]}
    maker = b"".join(box(kind, body) for kind, body in directories.items())
    movie = box(b"moov", box(b"uuid", bytes(16) + box(b"CNCV", b"x" * 8) + maker))
    decoded = decode_image(box(b"ftyp", b"crx \0\0\0\1crx isom") + movie + box(b"mdat", jpeg(picture())))
    assert_same(decoded.pixels, turned(6))
    assert (decoded.info.taken_at, decoded.info.latitude) == (datetime(2023, 5, 6, 7, 8, 9), 48.2)


def test_the_film_behind_a_photograph_does_not_count() -> None:
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08" * 2000
    assert_same(decode_image(jpeg(picture(), exif=exif_of(3), progressive=True) + film).pixels, turned(3))
