"""Every depth, order and meaning of samples against arithmetic on the samples themselves."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from image_writers import bmp, packed, png, pnm, tiff
from PIL import Image

from encoders import ImageError, decode_image

HEIGHT, WIDTH = 5, 19
# A byte may be rounded another way, and Pillow takes the high byte of 16-bit colours.
CLOSE = 1.01


def samples(most: int, *bands: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most + 1, (HEIGHT, WIDTH, *bands), dtype=np.int64).astype(np.uint32)


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data).pixels).astype(float)


def grey(share: np.ndarray, *, white_is_zero: bool = False) -> np.ndarray:
    return np.repeat((1 - share if white_is_zero else share)[:, :, None] * 255, 3, axis=2)


def on_white(colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    result: np.ndarray = 255 * (colour * opacity + 1 - opacity)
    return np.broadcast_to(result, (HEIGHT, WIDTH, 3))


def stretched(values: np.ndarray) -> np.ndarray:
    wide = values.astype(float)
    result: np.ndarray = (wide - wide.min()) / (wide.max() - wide.min())
    return result


def close(data: bytes, expected: np.ndarray, tolerance: float = CLOSE) -> None:
    found = decoded(data)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance


def refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^unsupported_format: .*(save it|Pillow knows no way)"):
        decode_image(data)


LAYOUTS = [
    pytest.param({"order": order, "deflate": deflate, "tile": tile}, id=f"{order}{deflate}{tile}")
    for order in "<>"
    for deflate in (False, True)
    for tile in (0, 16)
]
# Wide grey that Pillow has a reader for: by order of bytes, photometric and fill order.
READ_AT_12_BITS = {("<", 1, 1)}
READ_AT_16_BITS = {("<", 0, 1), ("<", 1, 1), ("<", 1, 2), (">", 1, 1)}


def has_reader(order: str, bits: int, photometric: int, fill: int, deflate: bool) -> bool:
    if bits > 8:
        return (order, photometric, fill) in (READ_AT_12_BITS if bits == 12 else READ_AT_16_BITS)
    return deflate or (bits, photometric, fill) != (8, 0, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fill", [1, 2])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_of_a_tiff(bits: int, photometric: int, fill: int, layout: dict[str, object]) -> None:
    values = samples(2**bits - 1)
    data = tiff(values, bits, photometric, fill=fill, **layout)  # type: ignore[arg-type]
    if has_reader(str(layout["order"]), bits, photometric, fill, bool(layout["deflate"])):
        close(data, grey(values / (2**bits - 1), white_is_zero=photometric == 0))
    else:
        refused(data)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_a_tiff(bits: int, planar: bool, layout: dict[str, object]) -> None:
    white = 2**bits - 1
    four = samples(white, 4)
    colour, last = four[:, :, :3] / white, four[:, :, 3:] / white
    faded = np.concatenate([(four[:, :, :3] * last).astype(np.uint32), four[:, :, 3:]], axis=2)

    def written(values: np.ndarray, photometric: int = 2, extra: tuple[int, ...] = ()) -> bytes:
        return tiff(values, bits, photometric, extra=extra, planar=planar, **layout)  # type: ignore[arg-type]

    raw_planes = planar and not layout["deflate"]
    close(written(four[:, :, :3]), colour * 255)
    close(written(four, extra=(2,)), on_white(colour, last), 2)
    if raw_planes:
        refused(written(four, extra=(0,)))
        refused(written(faded, extra=(1,)))
    else:
        close(written(four, extra=(0,)), colour * 255)
        # What was multiplied with the opacity has lost digits.
        close(written(faded, extra=(1,)), on_white(faded[:, :, :3] / white, np.ones(1)) + 255 * (1 - last), 6)
    if raw_planes and bits == 16:
        refused(written(four, 5))
    else:
        close(written(four, 5), 255 * (1 - colour) * (1 - last), 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_grey_with_transparency_of_a_tiff(layout: dict[str, object]) -> None:
    two = samples(255, 2)
    shade, opacity = two[:, :, :1] / 255, two[:, :, 1:] / 255
    faded = np.concatenate([(two[:, :, :1] * opacity).astype(np.uint32), two[:, :, 1:]], axis=2)
    close(tiff(two, 8, 1, extra=(2,), **layout), on_white(shade, opacity), 2)  # type: ignore[arg-type]
    close(tiff(two, 8, 1, extra=(0,), **layout), on_white(shade, np.ones(1)))  # type: ignore[arg-type]
    close(tiff(faded, 8, 1, extra=(1,), **layout), on_white(faded[:, :, :1] / 255, np.ones(1)) + 255 * (1 - opacity), 6)  # type: ignore[arg-type]
    refused(tiff(two, 8, 1, extra=(2,), planar=True, **layout))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("type", ["int8", "int16", "int32", "uint32", "float32"])
def test_values_of_a_tiff_that_state_no_range(type: str, layout: dict[str, object]) -> None:
    spread = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH))
    values = (spread * 30).astype(type) if type != "uint32" else samples(2**32 - 1)
    bits = values.dtype.itemsize * 8
    if type == "uint32" and layout["order"] == ">":
        refused(tiff(values, bits, 1, **layout))  # type: ignore[arg-type]
        return
    close(tiff(values, bits, 1, **layout), grey(stretched(values)))  # type: ignore[arg-type]
    if type == "float32":
        close(tiff(values, bits, 0, **layout), grey(stretched(values), white_is_zero=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_a_tiff(bits: int, layout: dict[str, object]) -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (2**bits, 3))
    values = samples(2**bits - 1)
    close(tiff(values, bits, 3, colours=colours, **layout), colours[values] / 257)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_luminance_and_chrominance_of_a_tiff(layout: dict[str, object]) -> None:
    values = samples(255, 3)
    y, blue, red = values[:, :, 0].astype(float), values[:, :, 1] - 128.0, values[:, :, 2] - 128.0
    rgb = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=2).clip(0, 255)
    close(tiff(values, 8, 6, tags=[(530, 3, (1, 1))], **layout), rgb, 2.5)  # type: ignore[arg-type]


def test_subsampled_chrominance_without_compression_is_refused() -> None:
    # Of 2 x 2 pixels 4 luminances and one pair of chrominances: 6 bytes.
    data = tiff(samples(255, 3)[:4, :6].reshape(4, 18)[:, :9], 8, 6, tags=[(530, 3, (2, 2))])
    head = data.index(struct.pack("<HHII", 256, 4, 1, 9))
    wide = data[: head + 8] + struct.pack("<I", 6) + data[head + 12 :]
    bands = wide.index(struct.pack("<HHIHH", 277, 3, 1, 1, 0))
    refused(wide[: bands + 8] + struct.pack("<HH", 3, 0) + wide[bands + 12 :])


def test_lab_of_a_tiff() -> None:
    # L 0-255 for 0-100, a and b as signed bytes: white, black, grey of 50 % reflectance, and a saturated red.
    lab = np.array([[[255, 0, 0], [0, 0, 0], [194, 0, 0], [138, 81, 70]]], dtype=np.uint32)
    found = decoded(tiff(lab, 8, 8))[0]
    assert np.abs(found - [[255, 255, 255], [0, 0, 0], [188, 188, 188], [255, 0, 0]]).max() < 6


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"])
def test_every_lossless_compression_of_a_tiff(compression: str) -> None:
    image = Image.fromarray(samples(255, 3).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    close(file.getvalue(), np.asarray(image).astype(float), 0)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_a_png_and_its_transparent_shade(bits: int, interlaced: bool) -> None:
    values = samples(2**bits - 1)
    shade = int(values[2, 3])
    plain = grey(values / (2**bits - 1))
    close(png(values, bits, 0, interlaced=interlaced), plain)
    plain[values == shade] = 255
    close(png(values, bits, 0, interlaced=interlaced, chunks=[(b"tRNS", struct.pack(">H", shade))]), plain)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_a_png(bits: int, interlaced: bool) -> None:
    values = samples(2**bits - 1)
    colours, opacities = samples(255, 4).reshape(-1, 4)[: 2**bits, :3], samples(255, seed=1).reshape(-1)[: 2**bits]
    colours, opacities = np.resize(colours, (2**bits, 3)), np.resize(opacities, 2**bits)
    palette = (b"PLTE", colours.astype(np.uint8).tobytes())
    close(png(values, bits, 3, interlaced=interlaced, chunks=[palette]), colours[values].astype(float), 0)
    clear = (b"tRNS", opacities.astype(np.uint8).tobytes())
    expected = on_white(colours[values] / 255, opacities[values][:, :, None] / 255)
    close(png(values, bits, 3, interlaced=interlaced, chunks=[palette, clear]), expected, 2)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_and_opacity_of_a_png(bits: int, interlaced: bool) -> None:
    white = 2**bits - 1
    four = samples(white, 4)
    three = four[:, :, :3]
    close(png(three, bits, 2, interlaced=interlaced), three / white * 255)
    expected = three / white * 255
    expected[2, 3] = 255
    colour = struct.pack(">3H", *three[2, 3].tolist())
    close(png(three, bits, 2, interlaced=interlaced, chunks=[(b"tRNS", colour)]), expected)
    close(png(four, bits, 6, interlaced=interlaced), on_white(three / white, four[:, :, 3:] / white), 2)
    two = four[:, :, :2]
    close(png(two, bits, 4, interlaced=interlaced), on_white(two[:, :, :1] / white, two[:, :, 1:] / white), 2)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("white", [1, 2, 15, 100, 254, 255, 256, 1000, 4095, 32767, 65534, 65535])
def test_every_white_of_a_pgm_and_a_ppm(white: int, plain: bool) -> None:
    values = samples(white)
    close(pnm(values, white, plain=plain), grey(values / white))
    # Half of the range, so that stretching would be seen.
    close(pnm(values // 2, white, plain=plain), grey(values // 2 / white))
    colours = samples(white, 3)
    close(pnm(colours, white, plain=plain), colours / white * 255)


def test_bits_and_floats_of_pnm() -> None:
    bits = samples(1)
    head = f"P4\n{WIDTH} {HEIGHT}\n".encode()
    close(head + b"".join(packed(bits, 1)), grey(bits / 1, white_is_zero=True), 0)
    floats = np.random.default_rng(0).random((HEIGHT, WIDTH), dtype=np.float32)
    for scale, order in ((-1.0, "<"), (1.0, ">")):
        lines = floats[::-1].astype(f"{order}f4").tobytes()  # the lowest line first
        close(f"Pf\n{WIDTH} {HEIGHT}\n{scale}\n".encode() + lines, grey(stretched(floats)))


def test_every_depth_of_a_bmp() -> None:
    for bits in (1, 4, 8):
        values, colours = samples(2**bits - 1), np.random.default_rng(0).integers(0, 256, (2**bits, 4)).astype(np.uint8)
        data = bmp(packed(values, bits), WIDTH, bits, colours=colours.tobytes())
        close(data, colours[values][:, :, 2::-1].astype(float), 0)
    words = samples(2**16 - 1)
    five = np.stack([words >> 10 & 31, words >> 5 & 31, words & 31], axis=2) / 31 * 255
    close(bmp(packed(words, 16, "<"), WIDTH, 16), five)
    six = np.stack([(words >> 11) / 31, (words >> 5 & 63) / 63, (words & 31) / 31], axis=2) * 255
    close(bmp(packed(words, 16, "<"), WIDTH, 16, masks=(0xF800, 0x7E0, 0x1F)), six)
    for bits in (24, 32):
        values = samples(255, bits // 8)
        data = bmp(packed(values.reshape(HEIGHT, -1), 8), WIDTH, bits)
        close(data, values[:, :, 2::-1].astype(float), 0)


INKS = (40, 90, 200, 60)


def cmyk_jpeg(marker: bytes | None) -> bytes:
    """A JPEG whose stored values are 255 less the inks, as Adobe writes it; its Adobe marker replaced."""
    file = io.BytesIO()
    Image.new("CMYK", (16, 16), INKS).save(file, "JPEG", quality=100)
    data = file.getvalue()
    start = data.index(b"\xff\xee\x00\x0eAdobe")
    return data[:start] + (data[start : start + 15] + marker if marker is not None else b"") + data[start + 16 :]


def test_adobe_inverts_the_inks_of_a_jpeg_and_others_do_not() -> None:
    inks = np.array(INKS) / 255
    shown = 255 * (1 - inks[:3]) * (1 - inks[3])
    assert np.abs(decoded(cmyk_jpeg(b"\0"))[8, 8] - shown).max() < 3
    # Without the marker the stored values are the inks.
    assert np.abs(decoded(cmyk_jpeg(None))[8, 8] - 255 * inks[:3] * inks[3]).max() < 3


def test_inks_of_a_jpeg_in_luminance_and_chrominance() -> None:
    y, blue, red, black = (255 - ink for ink in INKS)
    rgb = np.array(
        [y + 1.402 * (red - 128), y - 0.344136 * (blue - 128) - 0.714136 * (red - 128), y + 1.772 * (blue - 128)]
    )
    # libjpeg takes 255 less the colour for the stored ink, which Adobe inverts once more.
    assert np.abs(decoded(cmyk_jpeg(b"\2"))[8, 8] - (255 - rgb.clip(0, 255)) * black / 255).max() < 3


def test_opacity_of_webp_and_avif() -> None:
    # Smooth, since AVIF at its best still rounds.
    ramp = np.linspace(0, 255, 16).astype(np.uint8)
    across, down = np.broadcast_to(ramp, (16, 16)), np.broadcast_to(ramp[:, None], (16, 16))
    image = np.stack([across, down, 255 - across, down], axis=2)
    opacity = image[:, :, 3:] / 255
    expected = 255 * (image[:, :, :3] / 255 * opacity + 1 - opacity)
    for format, options, tolerance in (
        ("WEBP", {"lossless": True, "exact": True}, 1.5),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 6),
    ):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format, **options)
        close(file.getvalue(), expected, tolerance)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_multiplied_opacity_lies_on_white(mode: str) -> None:
    half = Image.new("RGBA", (4, 4), (200, 200, 200, 128)).convert("RGBa")
    image = half if mode == "RGBa" else Image.new("LA", (4, 4), (200, 128)).convert("La")
    assert np.abs(decoded_image(image)[0, 0] - (200 * 128 / 255 + 127)).max() < 2


def decoded_image(image: Image.Image) -> np.ndarray:
    return np.asarray(decode_image(image).pixels).astype(float)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_sixteen_bits_of_an_image_in_memory(mode: str) -> None:
    image = Image.new(mode, (4, 4), 0x1234)
    assert np.abs(decoded_image(image) - 0x1234 / 257).max() < CLOSE
