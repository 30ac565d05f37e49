"""An orientation is applied once, wherever it is told and whoever reads the image next."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from image_writers import png, tiff
from PIL import Image, ImageOps

from encoders import DecodeLimits, Encoder, decode_image
from searcher.render.thumbnails import thumbnail
from searcher.server.image_cache import Thumbnails

TURN = 6  # stored lying on its left side
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {}/></x:xmpmeta>'
AS_ATTRIBUTE = XMP.format('tiff:Orientation="6"').encode()
AS_ELEMENT = b"<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"


def stored() -> Image.Image:
    """32 x 24, its left half red."""
    image = Image.new("RGB", (32, 24), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 16, 24))
    return image


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = TURN
    return tags


def saved(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    stored().save(file, format, **options)
    return file.getvalue()


def raw_profile() -> bytes:
    """A PNG with EXIF as ImageMagick writes it: in hexadecimal digits within a text."""
    body = exif().tobytes()
    digits = body.hex()
    text = b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(body):8}\n{digits}\n".encode())
    return png(np.asarray(stored()), 8, 2, chunks=[(b"zTXt", text)])


def xmp_png(packet: bytes) -> bytes:
    body = b"XML:com.adobe.xmp\0\0\0\0\0" + packet
    return png(np.asarray(stored()), 8, 2, chunks=[(b"iTXt", body)])


FILES = {
    "JPEG": saved("JPEG", exif=exif(), quality=95),
    "JPEG with XMP": saved("JPEG", xmp=AS_ATTRIBUTE, quality=95),
    "JPEG with both": saved("JPEG", exif=exif(), xmp=AS_ELEMENT, quality=95),
    "MPO": saved("MPO", exif=exif(), quality=95, save_all=True, append_images=[stored()]),
    "PNG": saved("PNG", exif=exif()),
    "PNG with a raw profile": raw_profile(),
    "PNG with XMP": xmp_png(AS_ELEMENT),
    "WebP": saved("WEBP", exif=exif(), lossless=True),
    "WebP with XMP": saved("WEBP", xmp=AS_ATTRIBUTE, lossless=True),
    "AVIF": saved("AVIF", exif=exif(), quality=95),
    "TIFF": tiff(np.asarray(stored()), 8, 2, tags=[(274, 3, (TURN,))]),
    "TIFF, compressed": tiff(np.asarray(stored()), 8, 2, deflate=True, tags=[(274, 3, (TURN,))]),
}


def assert_upright(image: Image.Image) -> None:
    assert image.size == (24, 32)
    pixels = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels[4, 12] - (255, 0, 0)).max() < 16
    assert np.abs(pixels[28, 12] - (0, 0, 255)).max() < 16


@pytest.mark.parametrize("name", FILES)
def test_what_was_turned_is_not_turned_again(name: str) -> None:
    once = decode_image(FILES[name]).pixels
    assert_upright(once)
    assert_upright(ImageOps.exif_transpose(once))
    assert_upright(decode_image(once).pixels)
    assert dict(once.getexif()) == {} == once.info


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_made_of_it_says_nothing_of_a_turn(name: str, format: str) -> None:
    file = io.BytesIO()
    decode_image(FILES[name]).pixels.save(file, format)
    with Image.open(file) as again:
        assert 0x0112 not in again.getexif()
        assert_upright(again)


@pytest.mark.parametrize("name", FILES)
def test_thumbnails_are_upright_for_a_browser(name: str) -> None:
    served = Thumbnails(DecodeLimits()).of_query(FILES[name])
    with Image.open(io.BytesIO(served.data)) as shown:
        assert_upright(ImageOps.exif_transpose(shown))
    # What contact sheets, galleries and notebooks show.
    small = thumbnail(FILES[name], (24, 32)).image
    assert small is not None
    assert_upright(ImageOps.exif_transpose(small))


@pytest.mark.parametrize("name", FILES)
def test_an_image_in_memory_is_turned_once_and_stays_as_it_was(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name])) as image:
        assert_upright(decode_image(image).pixels)
        assert_upright(decode_image(image).pixels)
        if image.format != "TIFF":  # which Pillow turns itself
            assert image.size == (32, 24)
            assert image.getexif()[0x0112] == TURN


def test_changes_to_a_decoded_image_leave_the_image_it_came_from() -> None:
    image = stored()
    image.info["comment"] = "mine"
    decode_image(image).pixels.paste((0, 0, 0), (0, 0, 32, 24))
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert image.info == {"comment": "mine"}


def test_every_way_to_encode_a_turned_photograph_gives_one_vector(lite: Encoder) -> None:
    # Not symmetrical, so that a turn changes what is seen.
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (400, 300)
    )
    file = io.BytesIO()
    photograph.save(file, "JPEG", exif=exif(), quality=95)
    data = file.getvalue()
    opened = Image.open(io.BytesIO(data))
    upright = ImageOps.exif_transpose(opened)
    vectors = lite.encode_images([data, opened, upright, decode_image(data).pixels, decode_image(opened).pixels])
    assert (vectors @ vectors[0]).min() > 0.9999
    assert lite.encode_images([opened.rotate(0)])[0] @ vectors[0] > 0.9999


def test_a_turn_beyond_those_of_exif_is_none() -> None:
    data = tiff(np.asarray(stored()), 8, 2, tags=[(274, 3, (9,))])
    assert decode_image(data).pixels.size == (32, 24)
