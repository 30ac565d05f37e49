"""Bytes to one RGB image, or an `ImageError` that says why not. No torch.

source -> bytes (size checked before reading) -> header (format and pixels checked before decoding)
       -> first frame, a photograph as small as may be -> upright (EXIF) -> RGB, transparency on white
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from storage.arguments import check_arguments, check_fields, exits_as_typed_wrong
from storage.schema import ImageInfo

from .decode_cost import check_cost, check_pieces, timed
from .errors import EncoderError, ImageError
from .file_facts.facts import file_facts
from .formats.films import FilmFrame, film_of, read_frame
from .formats.process import PACKAGES, decode_elsewhere
from .formats.raw_preview import RAW, is_raw, raw_preview
from .perceptual_hash import perceptual_hash
from .pixel_modes import (
    is_upright,
    quiet_pillow,
    samples_of,
    scaled_pnm,
    states_turn,
    to_rgb,
    turned,
    upright,
    without_metadata,
)
from .tiff import refused_tiff


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """One format of image files.

    Attributes:
        name: Pillow's name where Pillow knows the format.
        suffixes: By which a corpus takes a file for an image, refused formats included: a refused image is counted,
            not passed over. Empty where a corpus takes no notice of such files.
        magic: Where in the file which bytes stand.
        refused: Why it is not decoded, and what to do; empty where it is.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    magic: tuple[tuple[int, bytes], ...] = ()
    refused: str = ""


_CONVERT = "convert it to JPEG or PNG"
_RENDER = "it holds drawings, so render it to PNG"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# The only list of image formats. A format becomes readable here: where its `refused` is empty, Pillow is given it, but
# for those of `formats.process`, which are decoded in a process of their own.
IMAGE_FORMATS = (
    ImageFormat(name="JPEG", suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"), magic=((0, b"\xff\xd8\xff"),)),
    ImageFormat(name="PNG", suffixes=(".png",), magic=((0, b"\x89PNG"),)),
    ImageFormat(name="WEBP", suffixes=(".webp",), magic=((8, b"WEBP"),)),
    ImageFormat(name="GIF", suffixes=(".gif",), magic=((0, b"GIF8"),)),
    ImageFormat(name="BMP", suffixes=(".bmp", ".dib"), magic=((0, b"BM"),)),
    ImageFormat(
        name=RAW,
        suffixes=(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
        magic=((8, b"CR\2\0"), (0, b"IIRO"), (0, b"IIRS"), (0, b"IIU\0"), (0, b"FUJIFILMCCD-RAW"), (4, b"ftypcrx ")),
    ),
    ImageFormat(
        name="TIFF", suffixes=(".tif", ".tiff"), magic=((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+"))
    ),
    ImageFormat(name="AVIF", suffixes=(".avif",), magic=((4, b"ftypavif"), (4, b"ftypavis"))),
    ImageFormat(name="PPM", suffixes=(".ppm", ".pgm", ".pbm")),
    ImageFormat(
        name="HEIF", suffixes=(".heic", ".heif", ".hif"), magic=tuple((4, b"ftyp" + brand) for brand in _HEIF_BRANDS)
    ),
    ImageFormat(name="JXL", suffixes=(".jxl",), magic=((0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL "))),
    ImageFormat(name="JPEG2000", suffixes=(".jp2",), magic=((4, b"jP  \r\n"), (0, b"\xffO\xffQ")), refused=_CONVERT),
    ImageFormat(name="PSD", magic=((0, b"8BPS"),), refused=_CONVERT),
    ImageFormat(name="ICO", magic=((0, b"\0\0\1\0"),), refused=_CONVERT),
    ImageFormat(name="EPS", magic=((0, b"%!PS"),), refused=_RENDER),
    ImageFormat(name="PDF", magic=((0, b"%PDF"),), refused=_RENDER),
    ImageFormat(name="SVG", magic=((0, b"<svg"),), refused=_RENDER),
)
FORMATS = tuple(one.name for one in IMAGE_FORMATS if not one.refused)
IMAGE_SUFFIXES = tuple(suffix for one in IMAGE_FORMATS for suffix in one.suffixes)
"""Suffixes of image files, in lower case and with the dot."""


def sniff(data: bytes) -> ImageFormat | None:
    """Return the format that these bytes start like, or None for none that is known."""
    for one in IMAGE_FORMATS:
        if any(data[offset : offset + len(magic)] == magic for offset, magic in one.magic):
            return one
    return None


# What Pillow's plugins raise on damaged input, as seen over mutated files of every allowed format.
DAMAGE = (
    OSError,
    Image.DecompressionBombError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    RuntimeError,  # every failure inside libavif
    TypeError,  # a TIFF tag that holds a ratio or text where Pillow expects a number
)

# MPO: what many telephones write, a JPEG with further ones behind it.
_SCALABLE = ("JPEG", "MPO")
Shrink = Callable[[int, int], float]
"""From width and height of a file to the number by which both may be divided; below 2 the image stays whole."""


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What an image may cost before it is decoded.

    Attributes:
        max_bytes: Size of the file. Photographs have 0.1-20 MB; raise it for scans in TIFF.
        max_pixels: Width times height. A decoded pixel takes 3-4 bytes in each decode worker; the default (Pillow's own
            warning line, 89 megapixels) is above nearly every camera. Above twice the default Pillow itself refuses.
        max_seconds: What one core may compute for it. A photograph of 12 megapixels takes 0.1 s, one of the most pixels
            0.4 as JPEG and 2 as PNG. Raise it on a slow machine where the reason `too_slow` meets honest images. HEIC
            and JPEG XL may take three times as long, a frame of a film 15 times. A WebP, an AVIF and a compressed TIFF
            are decoded by one call that no clock ends: what they cost is bounded by `max_pixels` alone, and 88
            megapixels take them 1.6 s at most.
        formats: Pillow's names of the formats that may be tried; each further one is a further parser for hostile
            bytes.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 89_478_485
    max_seconds: float = 4.0
    formats: tuple[str, ...] = FORMATS

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, EncoderError)


Pixels = TypeVar("Pixels")


@dataclass(frozen=True, kw_only=True)
class DecodedImage(Generic[Pixels]):
    """One image that was read and checked.

    Attributes:
        pixels: What the encoder's `preprocess` takes; of `decode_image` an upright RGB image, fully loaded, smaller
            than `info` says where it was decoded small.
        info: What is known of it, as far as its bytes tell.
    """

    pixels: Pixels
    info: ImageInfo


DEFAULT_LIMITS = DecodeLimits()


def decode_image(
    source: Path | str | bytes | Image.Image, limits: DecodeLimits = DEFAULT_LIMITS, *, shrink: Shrink | None = None
) -> DecodedImage[Image.Image]:
    """Return the first frame of an image as upright RGB; safe on hostile bytes and from many threads.

    Args:
        source: A path, the bytes of a file, or a PIL image. The content decides the format, never the file's name.
        limits: Byte and pixel limits, checked before anything is decoded, and the formats that may be tried.
        shrink: By how much the image may be made smaller. A JPEG file is then decoded at 1/2, 1/4 or 1/8, whichever
            is the smallest that is allowed: 4 times as fast for 12 megapixels. Other sources stay whole.

    Raises:
        ImageError: For every source that gives no whole image; nothing else is raised by a source.
        EncoderError: `limits` or `shrink` is none.
    """
    check_arguments(decode_image, {"limits": limits, "shrink": shrink}, EncoderError)
    if isinstance(source, Image.Image):
        return _decode_pillow(source, limits)
    frame = None if isinstance(source, bytes) else _frame(_path(source), limits)
    data = source if isinstance(source, bytes) else frame.data if frame else _read(_path(source), limits.max_bytes)
    _check_bytes(len(data), limits.max_bytes)
    with quiet_pillow(), _damage_as_error():
        image = _opened(data, limits)
        told = image.info  # which the image may lose, and its file may still add to
        rgb, size = _finish(image, limits, shrink)
    facts = file_facts(told, data) if frame is None else frame.facts
    return _decoded(rgb, size, hashlib.sha256(data).hexdigest(), len(data), facts)


def decode_plain_jpeg(
    data: bytes, limits: DecodeLimits, decode: Callable[[bytes, tuple[int, int]], tuple[Pixels, Image.Image] | None]
) -> DecodedImage[Pixels] | None:
    """Return a plain JPEG file as another decoder has it, with what `decode_image` knows of it; None for other files.

    Plain is what all decoders read alike: baseline, in YCbCr of 8 bits, not to be turned, and whole to its last marker.
    What is wrong with a file is for `decode_image` to say.

    Args:
        data: The file.
        limits: As of `decode_image`.
        decode: Returns, of a file and its width and height, the pixels, and the image as `perceptual_hash` makes it
            first; None where it cannot.
    """
    try:
        _check_bytes(len(data), limits.max_bytes)
        with quiet_pillow(), _damage_as_error():
            image = _opened(data, limits)
            if not _is_plain_jpeg(image, data) or image.width * image.height > limits.max_pixels:
                return None
            facts = file_facts(image.info, data)
    except ImageError:
        return None
    found = decode(data, image.size)
    if found is None:
        return None
    pixels, seen = found
    known = _decoded(seen, image.size, hashlib.sha256(data).hexdigest(), len(data), facts)
    return DecodedImage(pixels=pixels, info=known.info)


def _is_plain_jpeg(image: Image.Image, data: bytes) -> bool:
    channels = [layer[0] for layer in getattr(image, "layer", ())]
    plain = (image.format, image.mode, channels) == ("JPEG", "RGB", [1, 2, 3]) and data.endswith(b"\xff\xd9")
    coded_otherwise = image.info.get("progressive") or image.info.get("adobe_transform", 1) != 1
    return plain and not coded_otherwise and is_upright(image) and not ImageFile.LOAD_TRUNCATED_IMAGES


def _decode_pillow(image: Image.Image, limits: DecodeLimits) -> DecodedImage[Image.Image]:
    with quiet_pillow(), _damage_as_error():
        rgb, size = _finish(image, limits, borrowed=True)
        digest = hashlib.sha256(f"{rgb.mode} {rgb.size}".encode())
        digest.update(rgb.tobytes())
    return _decoded(rgb, size, digest.hexdigest(), 0)


def _decoded(
    pixels: Image.Image,
    size: tuple[int, int],
    sha256: str,
    file_bytes: int,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> DecodedImage[Image.Image]:
    info = ImageInfo(
        width=size[0],
        height=size[1],
        sha256=sha256,
        file_bytes=file_bytes,
        mtime_ns=None,
        perceptual_hash=perceptual_hash(pixels),
        **facts,
    )
    return DecodedImage(pixels=pixels, info=info)


def _path(source: Any) -> Path:
    if isinstance(source, str | os.PathLike):
        return Path(source)
    kind = type(source).__name__
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        kind += f" of {source.dtype} with shape {tuple(source.shape)}"
    remedy = "give a path, the bytes of a file, or a PIL image (Image.fromarray of uint8, height x width x 3)"
    raise ImageError("not_an_image", f"an image is of type {kind}; {remedy}")


def _frame(path: Path, limits: DecodeLimits) -> FilmFrame | None:
    """Return the frame of a film that a path such as `film.mp4#t=12.5` names; None for any other."""
    film = film_of(str(path))
    if film is None or path.exists():
        return None
    return read_frame(Path(film[0]), film[1], limits.max_bytes, limits.max_pixels, limits.max_seconds)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        status = path.stat()
        # A fifo or a device would block or never end.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("unreadable", f"{str(path)!r} is not a regular file")
        _check_bytes(status.st_size, max_bytes)
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageError("missing", f"no file at {str(path)!r}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError("unreadable", f"cannot read {str(path)!r}: {_words(error)}") from error


def read_image_file(path: Path, limits: DecodeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the bytes of an image file, not decoded; raises `ImageError` where it cannot be read or is too large."""
    return _read(path, limits.max_bytes)


def _check_bytes(size: int, max_bytes: int) -> None:
    if size == 0:
        raise ImageError("empty", "the file has 0 bytes")
    if size > max_bytes:
        raise ImageError("too_large", f"the file has more bytes than the limit: {size} > {max_bytes}")


def _opened(data: bytes, limits: DecodeLimits) -> Image.Image:
    """Return an image that may be decoded, or that was, by a decoder of its own."""
    if RAW in limits.formats and is_raw(data):
        preview = raw_preview(data)
        image = _opened(preview.jpeg, limits)
        if preview.exif and not states_turn(image.info.get("exif", b"")):
            image.info["exif"] = preview.exif
        return image
    check_pieces(data)
    likely = sniff(data)
    if likely is not None and likely.name in PACKAGES and likely.name in limits.formats and not _holds_avif(data):
        return decode_elsewhere(likely.name, data, limits.max_pixels, limits.max_seconds)
    image = _open(data, limits)
    check_cost(image, data, limits.max_pixels, limits.max_seconds)
    return image


def _holds_avif(data: bytes) -> bool:
    """Return whether a file that starts like HEIF says further on that it is an AVIF."""
    brands = data[16 : min(int.from_bytes(data[:4], "big"), 256)]
    return any(brands[place : place + 4] in (b"avif", b"avis") for place in range(0, len(brands), 4))


def _open(data: bytes, limits: DecodeLimits) -> Image.Image:
    try:
        return Image.open(timed(data, limits.max_seconds), formats=_available(limits.formats))
    except UnidentifiedImageError as error:
        raise _unidentified(data, limits.formats) from error


def _unidentified(data: bytes, formats: tuple[str, ...]) -> ImageError:
    likely = sniff(data)
    if likely is None:
        return ImageError("not_an_image", f"no known image starts with {data[:8]!r}")
    if likely.name in formats:
        if likely.name == "TIFF" and (refused := refused_tiff(data)) is not None:
            return refused
        return ImageError("corrupt", f"starts like {likely.name}, but its header cannot be read")
    remedy = f"; {likely.refused}" if likely.refused else ""
    tried = ", ".join(formats)
    return ImageError("unsupported_format", f"{likely.name} is not among the formats tried: {tried}{remedy}")


def _available(formats: tuple[str, ...]) -> list[str]:
    """Return those of the formats that this build of Pillow has (AVIF and WebP are optional)."""
    Image.init()
    return [name for name in formats if name in Image.OPEN and name not in PACKAGES]


def _finish(
    image: Image.Image, limits: DecodeLimits, shrink: Shrink | None = None, *, borrowed: bool = False
) -> tuple[Image.Image, tuple[int, int]]:
    """Return the image, and its size before it was made smaller; one that is `borrowed` stays as it is."""
    pixels = image.width * image.height
    if pixels > limits.max_pixels:
        stated = f"{image.width} x {image.height}"
        raise ImageError("too_many_pixels", f"{stated} is more than the limit of {limits.max_pixels} pixels")
    if pixels == 0:
        raise ImageError("corrupt", f"the image has no pixels: {image.width} x {image.height}")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        # Set by some training code for the whole process; half-grey images would pass as whole ones.
        raise ImageError("unreadable", "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on in this process; set it to False")
    image = scaled_pnm(image) or image
    whole, samples = image.size, samples_of(image)
    small = shrink is not None and image.format in _SCALABLE and _decode_small(image, shrink(*whole))
    image.load()
    rgb = to_rgb(upright(image), samples)
    size = rgb.size if not small else whole[::-1] if turned(image) else whole
    return without_metadata(rgb.copy() if rgb is image and borrowed else rgb), size


def _decode_small(image: Image.Image, limit: float) -> bool:
    """Ask for a smaller image before it is decoded; return whether it will be smaller."""
    scale = next((scale for scale in (8, 4, 2) if scale <= limit), 1)
    if scale == 1:
        return False
    # Of a JPEG's blocks only the low frequencies are computed; everything that is checked in a file still is.
    return image.draft(None, (max(1, image.width // scale), max(1, image.height // scale))) is not None


@contextmanager
def _damage_as_error() -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", _words(error)) from error
    except MemoryError as error:
        raise ImageError("unreadable", "not enough memory to decode the image") from error
    except DAMAGE as error:
        if "unknown raw mode" in str(error):
            raise ImageError(
                "unsupported_format", "Pillow knows no way to read this order of bits and bands"
            ) from error
        raise ImageError("corrupt", _words(error)) from error


def _words(error: BaseException) -> str:
    """Return an error's text on one line of at most 200 characters; its class where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def open_image(encoder: object, source: Any, limits: DecodeLimits = DEFAULT_LIMITS) -> DecodedImage[Any]:
    """Return an image as an encoder takes it: most take what `decode_image` gives, encoders of regions open their own.

    Raises:
        ImageError: It cannot be used with this encoder.
    """
    custom: Any = getattr(encoder, "open_image", None)
    opened: DecodedImage[Any] = decode_image(source, limits) if custom is None else custom(source, limits)
    return opened


def pixels_for(encoder: Any, pixels: Any) -> np.ndarray:
    """Return an opened image as `encoder.encode_pixels` takes it, as bytes where the encoder takes bytes."""
    prepare: Any = getattr(encoder, "byte_pixels", None) or encoder.preprocess
    ready: np.ndarray = prepare(pixels)
    return ready
