"""Every pixel mode of Pillow to upright 8-bit RGB."""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from .errors import ImageError
from .tiff import Samples, correct_tiles, tiff_samples

WHITE = (255, 255, 255)
_ORIENTATION_TAG = 0x0112
# The turns and flips that undo EXIF orientations 2-8.
_UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)
# They say in a place of their own how they are turned; what EXIF says beside it does not count, by their standards.
_TURNED_BY_DECODERS = ("HEIF", "JXL")
_DAMAGED_EXIF = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, struct.error)
_WHITE_16 = 65535
# By what a PNG's own samples are multiplied where Pillow gives bytes.
_DEPTHS = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}


def upright(image: Image.Image) -> Image.Image:
    """Return a loaded image as its EXIF (or XMP) orientation says it is to be displayed."""
    undo = _UNDO.get(_orientation(image))
    return image if undo is None else image.transpose(undo)


def turned(image: Image.Image) -> bool:
    """Return whether `upright` makes a loaded image's width its height."""
    return _orientation(image) in _TURNED


def is_upright(image: Image.Image) -> bool:
    """Return whether an image, loaded or not, is to be displayed as it is stored."""
    return _orientation(image) not in _UNDO


def states_turn(exif: bytes) -> bool:
    """Return whether EXIF says how an image is to be turned, if only by nothing."""
    read = Image.Exif()
    with suppress(*_DAMAGED_EXIF):
        read.load(exif)
        return _ORIENTATION_TAG in read
    return False


def _orientation(image: Image.Image) -> int:
    if image.format in _TURNED_BY_DECODERS:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGED_EXIF:
        # A damaged EXIF block says nothing about the pixels, which are whole: take them as they are.
        return 1
    return value if isinstance(value, int) else 1


def without_metadata(image: Image.Image) -> Image.Image:
    """Return the image, which becomes pixels alone.

    An orientation that was applied and is still told, in EXIF or XMP, would be applied again by whoever reads it next:
    by a browser that shows a thumbnail, or by an encoder that is given the image.
    """
    image.info = {}
    with suppress(*_DAMAGED_EXIF):
        exif = image.getexif()
        for tag in list(exif):
            del exif[tag]
    return image


def samples_of(image: Image.Image) -> Samples:
    """Return what an opened file states about its samples; ask before it is loaded, as Pillow then forgets it.

    Raises:
        ImageError: With `unsupported_format` where Pillow would give other pixels than the file's.
    """
    if image.format == "TIFF" and (tags := getattr(image, "tag_v2", None)) is not None:
        correct_tiles(image, tags)
        return tiff_samples(image, tags)
    if image.format == "JPEG" and image.mode == "CMYK":
        # Adobe writes CMYK inverted and marks its files; Pillow takes every file for one of Adobe's.
        return Samples(inverted="adobe" not in image.info)
    if image.format == "PNG" and "transparency" in image.info:
        return Samples(white=_WHITE_16, transparent=_transparent_colour(image))
    # Pillow scales a PGM of more than 8 bits to 16; of modes that say 16 themselves the whole range counts.
    scaled = image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I")
    return Samples(white=_WHITE_16 if scaled else None)


def _transparent_colour(image: Image.Image) -> tuple[int, ...] | None:
    """Return a PNG's transparent colour in 8-bit values where the file states it in 2, 4 or 16 bits."""
    colour = image.info["transparency"]
    tile = next(iter(getattr(image, "tile", ())), None)
    if image.mode.startswith("I;16"):
        return (colour,)
    if tile is None or isinstance(colour, bytes) or tile[3] not in _DEPTHS:
        return None
    scale = _DEPTHS[tile[3]]
    return tuple(int(value * scale) for value in (colour if isinstance(colour, tuple) else (colour,)))


def scaled_pnm(image: Image.Image) -> Image.Image | None:
    """Return a binary PGM or PPM with a white of its own as an 8-bit image; None for everything else.

    Pillow reads such files value by value in Python: 12 megapixels in 20 s.
    """
    tile = next(iter(getattr(image, "tile", ())), None)
    if image.format != "PPM" or tile is None or tile[0] != "ppm":
        return None
    bands, white = (3 if image.mode == "RGB" else 1), tile[3][1]
    kind = np.dtype(">u2" if white > 255 else "u1")
    file: Any = getattr(image, "fp")  # noqa: B009
    file.seek(tile[2])
    data = file.read(image.width * image.height * bands * kind.itemsize)
    if len(data) < image.width * image.height * bands * kind.itemsize:
        raise OSError("image file is truncated")
    values = np.minimum(np.frombuffer(data, kind), white).astype(np.uint32)
    shown = ((values * 255 + white // 2) // white).astype(np.uint8)
    shape = (image.height, image.width, 3) if bands == 3 else (image.height, image.width)
    return Image.fromarray(shown.reshape(shape))


def to_rgb(image: Image.Image, samples: Samples | None = None) -> Image.Image:
    """Return a loaded image as RGB: transparency on white, 16 bits scaled to 8, CMYK and palettes resolved.

    Args:
        image: In any mode of Pillow.
        samples: What the image's file states beside the mode; without it, what the mode says alone.

    Raises:
        ImageError: With `unsupported_format` where there is no way from this mode to RGB.
    """
    samples = samples or samples_of(image)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F") or samples.numpy is not None:
        rgb = _grey(_wide(image, samples))
    elif samples.transparent is not None:
        rgb = image.convert("RGB")
    else:
        rgb = _eight_bit(image, samples)
    return rgb if samples.transparent is None else _without(rgb, np.asarray(image), samples.transparent)


def _eight_bit(image: Image.Image, samples: Samples) -> Image.Image:
    try:
        if image.mode == "La":
            image = image.convert("LA")
        if samples.inverted:
            image = ImageChops.invert(image)
        return _on_white(image) if image.has_transparency_data else image.convert("RGB")
    except ValueError as error:
        raise ImageError("unsupported_format", f"pixel mode {image.mode!r} has no conversion to RGB") from error


def _on_white(image: Image.Image) -> Image.Image:
    coloured = image.convert("RGBA")
    paper = Image.new("RGB", coloured.size, WHITE)
    paper.paste(coloured, mask=coloured.getchannel("A"))
    return paper


def _without(rgb: Image.Image, values: np.ndarray, colour: tuple[int, ...]) -> Image.Image:
    """Return the image with white where the file's own values are those of the transparent colour."""
    matching = values == np.array(colour) if values.ndim == 3 else values == colour[0]
    clear = matching.all(axis=2) if matching.ndim == 3 else matching
    rgb.paste(WHITE, mask=Image.fromarray(clear.astype(np.uint8) * 255))
    return rgb


def _wide(image: Image.Image, samples: Samples) -> np.ndarray:
    """Return 16- and 32-bit values as bytes.

    Pillow's own conversion clips at 255, which turns nearly every such image white. Integers and floats of 32 bits
    state no range, so they are stretched from their own lowest to their own highest value.
    """
    values: np.ndarray = np.asarray(image)
    if samples.white is not None:
        scaled = np.clip(values, 0, samples.white).astype(np.uint32)
        scaled = (scaled * 255 + samples.white // 2) // samples.white
    else:
        scaled = _stretched(values if samples.numpy is None else values.view(samples.numpy))
    shown: np.ndarray = 255 - scaled if samples.inverted else scaled
    return shown


def _stretched(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # signalling NaNs of damaged files
        finite = np.nan_to_num(values.astype(np.float64), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    # Halved first: the highest less the lowest float is more than a float holds.
    span = high / 2 - low / 2
    return (finite / 2 - low / 2) / span * 255 if span > 0 else finite * 0


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


_lock = threading.Lock()
_inside = 0
_filter: Any = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that come from Pillow's own modules while any thread is inside.

    `warnings.catch_warnings` swaps the process-wide list of filters, so two decode threads that overlap would restore
    each other's. Here the first thread in adds one filter and the last one out takes it away.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _filter
    with _lock:
        _inside += 1
        if _inside == 1 or _filter not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _filter = warnings.filters[0]


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            # Someone else may have swapped the list meanwhile; then our filter went with it.
            with suppress(ValueError):
                warnings.filters.remove(_filter)  # type: ignore[attr-defined]
