"""The process in which decoders of other people's native code see untrusted bytes: it may be ended at any moment.

libheif and libjxl decode whatever a file codes, however often and however large, and no clock of ours reaches into
them. A process has limits for both, and takes nobody with it when it crashes.
"""

from __future__ import annotations

import importlib
import io
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

from PIL import Image

from storage.child_process import data_bytes, own_output, serve

from ..errors import ImageError
from . import jpeg_xl

# What the two packages raise on damaged input; whatever else happens ends this process.
_DAMAGE = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, TypeError, struct.error)
# Of libjxl's floats, the bytes made of them, and copies.
_BYTES_PER_PIXEL = 24
_SPARE_BYTES = 128 << 20
_KEPT_BYTES = 256 << 20  # a process that has kept more than this after a request ends; the next one starts small


def read_heif(data: bytes, max_pixels: int) -> Image.Image:
    """Return the primary image of a HEIF file, turned as the file's own boxes say."""
    heif: Any = importlib.import_module("pillow_heif.as_plugin")
    options: Any = importlib.import_module("pillow_heif.options")
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    options.DECODE_THREADS = 1
    image: Image.Image = heif.HeifImageFile(io.BytesIO(data))
    _check(image.width * image.height, max_pixels)
    image.load()
    _check(image.width * image.height, max_pixels)
    return image


def read_jpeg_xl(data: bytes, max_pixels: int) -> Image.Image:
    """Return the image of a JPEG XL file, turned as its codestream says."""
    plugin: Any = importlib.import_module("pillow_jxl")
    _check(jpeg_xl.pixels(data), max_pixels)
    try:
        _, info, samples, _, further = plugin.Decoder(num_threads=0)(jpeg_xl.decodable(data))
    except RuntimeError as error:  # whose words are for those who build libjxl
        raise ImageError("corrupt", "libjxl cannot decode it") from error
    _check(info.width * info.height, max_pixels)
    image = Image.frombytes(info.mode, (info.width, info.height), samples)
    for box in further:
        name = {"Exif": "exif", "xml ": "xmp"}.get(_name(box))
        if name is not None:
            image.info[name] = bytes(box.data)
    return image


def _name(box: Any) -> str:
    kind = box.box_type
    return kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)


def _check(pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise ImageError("too_many_pixels", f"{pixels} pixels are more than the limit of {max_pixels}")


READERS: dict[str, Callable[[bytes, int], Image.Image]] = {"HEIF": read_heif, "JXL": read_jpeg_xl}


def answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode one file: what is to be told of it, and its pixels, its EXIF and its XMP, one after the other."""
    try:
        image = READERS[request["format"]](data, request["max_pixels"])
    except ImageError as error:
        return {"failed": [error.reason, error.detail]}, b""
    except MemoryError:
        return {"failed": ["unreadable", "not enough memory to decode the image"]}, b""
    except _DAMAGE as error:
        return {"failed": ["corrupt", " ".join(str(error).split())[:200] or type(error).__name__]}, b""
    parts = [image.tobytes(), *(_bytes(image.info.get(name)) for name in ("exif", "xmp"))]
    told = {"mode": image.mode, "size": image.size, "parts": [len(part) for part in parts]}
    return told, b"".join(parts)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""


def main() -> None:
    """Answer requests on standard input."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    answers = own_output()
    small = data_bytes()

    def answer_one(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes, bool]:
        most = small + _SPARE_BYTES + 2 * len(data) + _BYTES_PER_PIXEL * request["max_pixels"]
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
        # Counted is what this process computes, not what it waits for: a busy machine rejects no image.
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        told, decoded = answer(request, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return told, decoded, data_bytes() > small + _KEPT_BYTES

    serve(sys.stdin.buffer, answers, answer_one)
