"""No file takes longer than its limit: structures that cost too much are refused, and a clock ends the rest."""

from __future__ import annotations

import io
import struct
import threading
import time

import numpy as np
import pytest
from PIL import Image
from slow_images import BOUNDED, REFUSED, file_of, jpeg_scans

from encoders import DecodeLimits, ImageError, decode_image
from encoders.avif import frames_and_pixels
from encoders.decode_cost import TimedFile
from encoders.images import DEFAULT_LIMITS
from searcher.render.thumbnails import thumbnail
from searcher.server.errors import RefusedError
from searcher.server.image_cache import Thumbnails

BRIEF = DecodeLimits(max_seconds=0.2)
LARGE = 6_000_000


@pytest.mark.parametrize("name", REFUSED)
def test_what_takes_too_long_is_refused_in_time(name: str) -> None:
    data = REFUSED[name](LARGE)
    started = time.thread_time()
    with pytest.raises(
        ImageError, match=r"^too_slow: .*(limit of 0\.2 seconds of one core|save it anew|at most)"
    ) as caught:
        decode_image(data, BRIEF)
    assert caught.value.reason == "too_slow"
    # Reading the whole file is no part of the limit, nor the last piece.
    assert time.thread_time() - started < 1.5


@pytest.mark.parametrize("name", BOUNDED)
def test_what_has_a_bound_of_its_own_ends_as_well(name: str) -> None:
    data = BOUNDED[name](50_000)
    started = time.thread_time()
    # Of the refinements the data ends before the last one.
    expected = {"TIFF tile": "too_many_pixels", "JPEG refinements": "corrupt"}
    assert outcome(data) == expected.get(name, "RGB")
    assert time.thread_time() - started < 2


def outcome(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> str:
    try:
        return decode_image(data, limits).pixels.mode
    except ImageError as error:
        return error.reason


def test_many_scans_are_refused_before_they_are_decoded_wherever_an_image_enters() -> None:
    data = jpeg_scans(2000)
    started = time.thread_time()
    with pytest.raises(ImageError, match="too_slow: a JPEG with more than 100 scans; save it anew"):
        decode_image(data)
    with pytest.raises(RefusedError, match="the query image cannot be shown: it takes too long to decode"):
        Thumbnails(DecodeLimits()).of_query(data)
    assert thumbnail(data, (10, 10)).problem == "too slow"
    assert time.thread_time() - started < 1


def test_scans_below_the_bound_are_ended_by_the_clock() -> None:
    with pytest.raises(ImageError, match="too_slow: decoding takes longer"):
        decode_image(jpeg_scans(85, 9400, header=b"\x01\x11\x01\x3f\x10", colour=True), DecodeLimits(max_seconds=0.03))


def test_the_scans_of_previews_and_of_further_images_do_not_count() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x010F] = "\xff\xda".encode("latin-1") * 200
    many = [image.rotate(degrees) for degrees in range(120)]
    for data in (
        file_of(image, "JPEG", progressive=True, exif=exif, quality=95),
        file_of(image, "MPO", save_all=True, append_images=many, quality=95),
        file_of(image, "JPEG", progressive=True, quality=95),
    ):
        plain = decode_image(file_of(image, "JPEG", quality=95)).pixels
        assert np.abs(np.asarray(decode_image(data).pixels).astype(int) - np.asarray(plain)).max() < 3


def test_a_progressive_jpeg_read_scan_by_scan_has_the_same_pixels() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    data = file_of(image, "JPEG", progressive=True, quality=95)
    end = data.rindex(b"\xff\xd9")
    # Refinements of nothing: as many scans as make a file suspect.
    start = data.rindex(b"\xff\xda")
    assert data.count(b"\xff\xda") > 5
    again = data[:end] + data[start:end] * 20 + data[end:]
    assert again.count(b"\xff\xda") > 20
    expected = np.asarray(Image.open(io.BytesIO(again)).convert("RGB"))
    assert (np.asarray(decode_image(again).pixels) == expected).all()


@pytest.mark.parametrize(
    "options", [{}, {"save_all": True, "append_images": [Image.new("RGB", (64, 48), (1, 2, 3))] * 12}]
)
def test_ordinary_avif_is_read(options: dict[str, object]) -> None:
    data = file_of(Image.new("RGB", (64, 48), (200, 30, 30)), "AVIF", **options)
    assert np.abs(np.asarray(decode_image(data).pixels)[20, 20].astype(int) - (200, 30, 30)).max() < 6


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (333, 77)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_avif_is_held_to_the_pixels_that_it_codes_and_not_to_those_that_it_claims(
    size: tuple[int, int], mode: str
) -> None:
    data = file_of(Image.new(mode, size, (200, 30, 30, 90)[: len(mode)]), "AVIF")
    limits = DecodeLimits(max_pixels=size[0] * size[1])
    assert decode_image(data, limits).pixels.size == size
    place = data.index(b"ispe") + 8
    claimed = data[:place] + struct.pack(">II", 1, 1) + data[place + 8 :]
    fewer = DecodeLimits(max_pixels=limits.max_pixels - 1)
    if fewer.max_pixels:
        with pytest.raises(ImageError, match=f"too_many_pixels: .* {limits.max_pixels} in one image; the limit is"):
            decode_image(claimed, fewer)


def test_the_pixels_of_a_sequence_header_are_found_behind_all_that_may_stand_before_them() -> None:
    parts = [
        *("000", "1", "0"),  # profile, still, a header that is not reduced
        *("1", "0" * 64, "1", "0001", "000"),  # timing, equal intervals of 2^3 ticks
        *("1", "00111", "0" * 42),  # a decoder model with delays of 8 bits
        *("1", "00001"),  # delays of display, 2 operating points
        *("0" * 12, "01000", "1", "1", "0" * 17, "1", "0000"),  # of a high level, with all that may belong to one
        *("0" * 12, "00100", "0", "0"),  # of a low one, with nothing
        *("1011", "1010", f"{3000 - 1:012b}", f"{2000 - 1:011b}"),
    ]
    bits = "".join(parts)
    bits += "0" * (-len(bits) % 8)
    header = int(bits, 2).to_bytes(len(bits) // 8, "big")
    unit = bytes((1 << 3 | 2, len(header))) + header
    assert frames_and_pixels(unit) == (0, 6_000_000)
    with pytest.raises(ValueError, match="ends early"):
        frames_and_pixels(bytes((1 << 3 | 2, 9)) + header[:9])


def test_the_clock_counts_what_a_thread_computes_and_not_what_it_waits_for() -> None:
    file = TimedFile(bytes(1000), 0.05)
    time.sleep(0.1)
    assert file.read(10) == bytes(10)
    compute(0.1)
    with pytest.raises(ImageError, match=r"too_slow: .* limit of 0\.05 seconds"):
        file.read(10)


def compute(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_slow_image_in_one_thread_does_not_end_that_of_another() -> None:
    outcomes: list[str] = []

    def decode(data: bytes) -> None:
        outcomes.append(outcome(data, BRIEF))

    good = file_of(Image.new("RGB", (600, 400)), "PNG")
    threads = [threading.Thread(target=decode, args=(data,)) for data in (REFUSED["PNG of empty data"](LARGE), good)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["RGB", "too_slow"]
