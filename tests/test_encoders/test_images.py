"""Any bytes give one upright RGB picture, or an ImageError that says why not."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from encoders import DecodeLimits, ImageError, decode_image
from storage.errors import TwinlensError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def smooth(width: int = 90, height: int = 60) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def pixel(data: bytes, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = decode_image(data).pixels.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def reason(source: Path | bytes | Image.Image, **limits: object) -> str:
    with pytest.raises(ImageError, match=r"^\w+: .+") as caught:
        decode_image(source, DecodeLimits(**limits))
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_lossless_picture_keeps_every_pixel(format: str) -> None:
    decoded = decode_image(file_of(smooth(), format))
    assert decoded.pixels.mode == "RGB"
    assert decoded.pixels.tobytes() == smooth().tobytes()
    assert (decoded.info.width, decoded.info.height) == (90, 60)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "GIF", "MPO"])
def test_a_lossy_picture_looks_the_same(format: str) -> None:
    difference = np.asarray(decode_image(file_of(smooth(), format)).pixels).astype(int) - np.asarray(smooth())
    assert np.abs(difference).mean() < 12


def test_the_digest_and_size_are_those_of_the_file(tmp_path: Path) -> None:
    data = file_of(smooth(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        decoded = decode_image(source)
        assert (decoded.info.sha256, decoded.info.file_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(file_of(smooth(), "PNG"))
    assert decode_image(path).pixels.tobytes() == smooth().tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Displayed: red, green over blue, white; each orientation stores it turned the other way.
    shown = Image.new("RGB", (2, 3))
    shown.putdata([RED, GREEN, BLUE, WHITE, RED, RED])
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = shown if orientation == 1 else shown.transpose(Image.Transpose(back[orientation]))
    decoded = decode_image(file_of(stored, format, exif=exif))
    assert decoded.pixels.tobytes() == shown.tobytes()
    assert (decoded.info.width, decoded.info.height) == (2, 3)


def test_a_damaged_exif_block_does_not_cost_the_picture() -> None:
    data = file_of(smooth(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_image(data).info.width == 90


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert pixel(file_of(clear, "PNG")) == WHITE
    assert pixel(file_of(half, "PNG")) == (255, 127, 127)
    assert pixel(file_of(half.convert("LA"), "PNG"))[0] > 128
    assert pixel(file_of(clear, "WEBP", lossless=True)) == WHITE


def test_a_transparent_colour_lies_on_white() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    assert pixel(file_of(palette, "PNG")) == BLUE
    assert pixel(file_of(palette, "PNG", transparency=0)) == WHITE
    assert pixel(file_of(palette, "GIF", transparency=0)) == WHITE
    assert pixel(file_of(Image.new("RGB", (4, 4), BLUE), "PNG", transparency=BLUE)) == WHITE
    assert pixel(file_of(Image.new("L", (4, 4), 7), "PNG", transparency=7)) == WHITE


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        decoded = decode_image(file_of(Image.fromarray(ramp), format)).pixels
        assert np.asarray(decoded)[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


@pytest.mark.parametrize("type", [np.float32, np.int32])
def test_values_without_a_stated_range_are_stretched(type: type) -> None:
    ramp = np.array([[-1, 0, 1]], dtype=type)
    decoded = decode_image(file_of(Image.fromarray(ramp), "TIFF")).pixels
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 127, 255]


def test_values_that_are_not_numbers_are_black() -> None:
    odd = np.array([[np.nan, 0, 2, np.inf]], dtype=np.float32)
    assert np.asarray(decode_image(Image.fromarray(odd)).pixels)[0, :, 0].tolist() == [0, 0, 255, 0]
    assert decode_image(Image.new("F", (3, 3), 5.0)).pixels.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "PA", "RGBX"])
def test_every_usual_mode_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (5, 4))
    decoded = decode_image(image)
    assert (decoded.pixels.mode, decoded.info.width, decoded.info.height) == ("RGB", 5, 4)


def test_cmyk_white_is_white_and_red_is_red() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert pixel(file_of(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")) == WHITE
    assert pixel(file_of(red, "TIFF")) == RED
    assert abs(np.array(pixel(file_of(red, "JPEG"))) - RED).max() < 5


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_only_the_first_frame_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), BLUE)]
    data = file_of(Image.new("RGB", (8, 8), RED), format, save_all=True, append_images=frames)
    assert np.abs(np.array(pixel(data)) - RED).max() < 8


def test_a_pil_image_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file_of(smooth(), "PNG"))
    with Image.open(path) as lazy:
        decoded = decode_image(lazy)
    assert decoded.pixels.tobytes() == smooth().tobytes()
    assert decoded.info.file_bytes == 0
    assert decoded.info.sha256 == decode_image(smooth()).info.sha256 != decode_image(smooth(60, 90)).info.sha256


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing: no file at '.*nothing\.jpg'"):
        decode_image(tmp_path / "nothing.jpg")


def test_what_is_no_regular_file_is_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("a\0b"), Path("x" * 5000)):
        assert reason(path) == "unreadable"


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert reason(tmp_path / "a.jpg") == reason(b"") == "empty"


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert reason(path) == "too_large"
    assert reason(file_of(smooth(), "PNG"), max_bytes=100) == "too_large"


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    for width, height in [(12_000, 12_000), (30_000, 30_000), (2_000_000_000, 1)]:
        assert reason(png_header(width, height)) == "too_many_pixels"
    assert reason(file_of(smooth(), "PNG"), max_pixels=5399) == "too_many_pixels"
    assert reason(smooth(), max_pixels=5399) == "too_many_pixels"
    assert decode_image(file_of(smooth(), "PNG"), DecodeLimits(max_pixels=5400)).info.width == 90


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_picture_is_corrupt_and_never_half_grey(format: str, share: float) -> None:
    data = file_of(smooth(300, 200), format)
    assert reason(data[: max(16, int(len(data) * share))]) == "corrupt"


def test_truncated_pictures_are_not_let_through_by_a_setting_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match=r"unreadable: PIL\.ImageFile\.LOAD_TRUNCATED_IMAGES is on"):
        decode_image(file_of(smooth(), "JPEG")[:-200])


@pytest.mark.parametrize("data", [b"hello, world", b"\0" * 100, b"<html></html>", b"x"])
def test_other_files_are_not_images(data: bytes) -> None:
    assert reason(data) == "not_an_image"


def test_a_known_format_outside_the_allow_list_is_named() -> None:
    with pytest.raises(ImageError, match="unsupported_format: PSD is not among the formats tried: JPEG, PNG"):
        decode_image(b"8BPS\0\1" + bytes(20))
    with pytest.raises(ImageError, match="AVIF, PPM, HEIF, JXL; convert it to JPEG or PNG"):
        decode_image(b"\0\0\0\x0cjP  \r\n")
    assert reason(file_of(smooth(), "ICO")) == "unsupported_format"
    assert reason(file_of(smooth(), "GIF"), formats=("PNG",)) == "unsupported_format"


def test_an_image_error_is_a_twinlens_error_and_travels_between_processes() -> None:
    error = ImageError("corrupt", "half of it is gone")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, TwinlensError)
    assert (again.reason, again.detail, str(again)) == ("corrupt", "half of it is gone", "corrupt: half of it is gone")


def files_of_every_format() -> Iterator[bytes]:
    picture, exif = smooth(), Image.Exif()
    exif[0x0112] = 6
    yield file_of(picture, "JPEG", exif=exif)
    yield file_of(picture, "JPEG", progressive=True)
    yield file_of(picture.convert("CMYK"), "JPEG")
    yield file_of(picture, "PNG", exif=exif)
    yield file_of(picture.convert("P"), "PNG", transparency=3)
    yield file_of(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "PNG")
    yield file_of(picture, "WEBP", exif=exif)
    yield file_of(picture, "AVIF")
    yield file_of(picture, "GIF", save_all=True, append_images=[picture.rotate(90)])
    yield file_of(picture.convert("P"), "BMP")
    yield file_of(picture, "PPM")
    yield file_of(picture, "MPO", save_all=True, append_images=[picture])
    for compression in ("raw", "tiff_deflate", "packbits"):
        yield file_of(picture, "TIFF", compression=compression)
    yield file_of(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF")


FILES = list(files_of_every_format())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_picture_or_an_image_error(data: st.DataObject) -> None:
    mutated = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 6))):
        reach = data.draw(st.sampled_from([len(mutated), min(300, len(mutated))]))
        mutated[data.draw(st.integers(0, reach - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(1, len(mutated)))
    with contextlib.suppress(ImageError):
        assert decode_image(bytes(mutated[:cut])).pixels.mode == "RGB"


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_give_an_image_error(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^\w+: .+"):
        decode_image(b"\x89PNG" + data)


def test_pillow_warnings_do_not_leak_from_any_thread() -> None:
    noisy = [file_of(smooth(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"), png_header(10_000, 9_500)]
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(io.BytesIO(noisy[0])).getexif()
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(_outcome, noisy * 50))
    assert outcomes[1::2] == ["too_many_pixels"] * 50
    assert len(set(outcomes[::2])) == 1
    assert warnings.filters == before


def _outcome(data: bytes) -> str:
    try:
        return decode_image(data).info.sha256
    except ImageError as error:
        return error.reason


def test_decoding_imports_no_torch(home: Path) -> None:
    code = "import sys; from encoders import decode_image; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], cwd=home, check=False).returncode == 0
