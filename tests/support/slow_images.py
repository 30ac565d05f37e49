"""Image files that are made to take long: each a way to cost far more than its pixels, of a size that is asked for."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from image_writers import png_chunk, tiff
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of a file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def jpeg_scans(scans: int, side: int = 7000, *, header: bytes = b"\1\1\x10\1\x3f\0", colour: bool = False) -> bytes:
    """A progressive JPEG of side x side pixels with many scans of nothing, eleven bytes each."""
    grey = Image.new("RGB", (16, 16), (9, 99, 200)) if colour else Image.new("L", (16, 16), 128)
    data = bytearray(file_of(grey, "JPEG", progressive=True))
    size = data.index(b"\xff\xc2")
    data[size + 5 : size + 9] = struct.pack(">HH", side, side)
    end = data.rindex(b"\xff\xd9")
    return bytes(data[:end]) + (b"\xff\xda\x00\x08" + header + b"\x00") * scans + b"\xff\xd9"


def jpeg_refinements(size: int) -> bytes:
    """As many scans as are allowed, each of which looks at every coefficient."""
    return jpeg_scans(80, min(9400, 100 + size // 100), header=b"\x01\x11\x01\x3f\x10", colour=True)


def jpeg_in_scans_of_one_band(size: int) -> bytes:
    """A JPEG that is not progressive, its bands coded again and again."""
    data = file_of(Image.new("RGB", (64, 64), (9, 99, 200)), "JPEG")
    start, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xd9")
    scans = b"".join(b"\xff\xda\x00\x08\x01" + bytes((band, 0, 0, 63, 0)) + b"\x00" * 40 for band in (1, 2, 3))
    return data[:start] + scans * (size // 150 + 40) + data[end:]


def jpeg_of_filling(size: int) -> bytes:
    """Bytes that belong to nothing, which Pillow passes over one by one."""
    return b"\xff\xd8\xff\xe0\0\4ab" + bytes(size)


def jpeg_of_exif(size: int) -> bytes:
    """EXIF in a great many pieces, which Pillow joins one by one."""
    return b"\xff\xd8" + b"\xff\xe1\0\x0aExif\0\0ab" * (size // 12) + b"\xff\xd9"


def _png(before: bytes, side: int = 10) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = zlib.compress((b"\0" + bytes(3 * side)) * side)
    return PNG + header + before + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def png_profiles(size: int) -> bytes:
    """Colour profiles of a megabyte each, packed into one kilobyte."""
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 20)))
    return _png(profile * (size // len(profile) + 1))


def png_texts(size: int) -> bytes:
    """Texts of a megabyte each, packed into one kilobyte."""
    text = png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 19)))
    return _png(text * (size // len(text) + 1))


def png_of_empty_data(size: int) -> bytes:
    """Pixel data in chunks of no bytes."""
    return _png(png_chunk(b"IDAT", b"") * (size // 12))


def png_of_empty_chunks(size: int) -> bytes:
    """Chunks of no known kind and no bytes."""
    return _png(png_chunk(b"abCd", b"") * (size // 12))


def png_interlaced(size: int) -> bytes:
    """As many pixels as fit, packed a thousandfold, in seven passes."""
    side = min(9400, 100 + size // 200)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 1))
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(1 << 20)) for _ in range(3 * side * side // (1 << 20) + 2)) + packer.flush()
    return PNG + header + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def ppm_in_words(size: int) -> bytes:
    """Numbers as text."""
    return b"P3 5000 4000 255\n" + b"1 " * (size // 2)


def ppm_of_comments(size: int) -> bytes:
    """Comments in place of numbers."""
    return b"P3 5000 4000 255\n" + b"#\n" * (size // 2)


def ppm_behind_a_comment(size: int) -> bytes:
    """A comment within the header."""
    return b"P6 #" + b"a" * size + b"\n10 10 255\n" + bytes(300)


def pgm_of_12_bits(size: int) -> bytes:
    """An honest image with a white of its own, which Pillow itself reads value by value."""
    return f"P5 1000 {size // 2000 + 1} 4095\n".encode() + bytes(2000 * (size // 2000 + 1))


def bmp_runs(size: int) -> bytes:
    """Runs of one pixel."""
    header = struct.pack("<IiiHHIIiiII", 40, 9000, 9000, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(range(256)) * 4
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(header)) + header + b"\1\7" * (size // 2)


def gif_comments(size: int) -> bytes:
    """Comments of one byte."""
    data = file_of(Image.new("P", (10, 10), 1), "GIF")
    start = data.index(b"\x2c")
    return data[:start] + b"\x21\xfe\1a\0" * (size // 5) + data[start:]


def tiff_tile(size: int) -> bytes:
    """One tile of a great many pixels for an image of a hundred."""
    side = min(32000, max(16000, size // 100 // 16 * 16))
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(side * side // (1 << 20) + 1)) + packer.flush()
    grey = np.zeros((10, 10), np.uint32)

    def written(start: int) -> bytes:
        tags = [(322, 4, [side]), (323, 4, [side]), (324, 4, [start]), (325, 4, [len(body)])]
        return tiff(grey, 8, 1, tile=16, deflate=True, tags=tags)

    return written(len(written(0))) + body


def tiff_pieces(size: int) -> bytes:
    """Strips without end for an image of a thousand pixels."""
    count = max(110_000, size // 8)
    offsets, counts = [8] * count, [1] * count
    return tiff(np.zeros((1, 1), np.uint32), 8, 1, tags=[(273, 4, offsets), (279, 4, counts)])


def avif_frames(size: int) -> bytes:
    """One image coded in many frames, of which the first or the last is shown."""
    data = file_of(Image.new("RGB", (64, 64), (9, 99, 200)), "AVIF")
    start = data.index(b"mdat") + 4
    units, place = data[start:], data.index(struct.pack(">II", start, len(data) - start))
    many = units * max(20, size // len(units))
    return data[:place] + struct.pack(">II", len(data), len(many)) + data[place + 8 :] + many


def webp_of_one_colour(size: int) -> bytes:
    """As many pixels as fit in a few bytes."""
    side = min(9400, 100 + size // 100)
    return file_of(Image.new("RGB", (side, side), (9, 99, 200)), "WEBP", lossless=True, method=0)


REFUSED: dict[str, Callable[[int], bytes]] = {
    "JPEG scans": lambda size: jpeg_scans(size // 11 + 200),
    "JPEG in scans of one band": jpeg_in_scans_of_one_band,
    "JPEG of filling": jpeg_of_filling,
    "JPEG of EXIF": jpeg_of_exif,
    "PNG profiles": png_profiles,
    "PNG of empty data": png_of_empty_data,
    "PNG of empty chunks": png_of_empty_chunks,
    "PPM in words": ppm_in_words,
    "PPM of comments": ppm_of_comments,
    "PPM behind a comment": ppm_behind_a_comment,
    "BMP runs": bmp_runs,
    "GIF comments": gif_comments,
    "TIFF pieces": tiff_pieces,
    "AVIF frames": avif_frames,
}
"""Files that are too slow where they are large enough, by what makes them so."""

BOUNDED: dict[str, Callable[[int], bytes]] = {
    "JPEG refinements": jpeg_refinements,
    "PNG texts": png_texts,
    "PNG interlaced": png_interlaced,
    "PGM of 12 bits": pgm_of_12_bits,
    "TIFF tile": tiff_tile,
    "WebP of one colour": webp_of_one_colour,
}
"""Files whose cost has a bound of its own."""
