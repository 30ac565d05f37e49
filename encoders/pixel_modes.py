"""Every pixel mode of Pillow to upright 8-bit RGB."""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from PIL import Image

from .errors import ImageError

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


def upright(image: Image.Image) -> Image.Image:
    """Return a loaded image as its EXIF orientation says it is to be displayed."""
    undo = _UNDO.get(_orientation(image))
    return image if undo is None else image.transpose(undo)


def turned(image: Image.Image) -> bool:
    """Return whether `upright` makes a loaded image's width its height."""
    return _orientation(image) in _TURNED


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, struct.error):
        # A damaged EXIF block says nothing about the pixels, which are whole: take them as they are.
        return 1
    return value if isinstance(value, int) else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image as RGB: transparency on white, 16 bits scaled to 8, CMYK and palettes resolved.

    Raises:
        ImageError: With `unsupported_format` where Pillow knows no way from this mode to RGB.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16"):
        return _sixteen_bit(image)
    if image.mode in ("I", "F"):
        return _wide(image)
    try:
        return _on_white(image) if image.has_transparency_data else image.convert("RGB")
    except ValueError as error:
        raise ImageError("unsupported_format", f"pixel mode {image.mode!r} has no conversion to RGB") from error


def _on_white(image: Image.Image) -> Image.Image:
    coloured = image.convert("RGBA")
    paper = Image.new("RGB", coloured.size, WHITE)
    paper.paste(coloured, mask=coloured.getchannel("A"))
    return paper


def _sixteen_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255, which turns nearly every 16-bit image white.
    values = np.asarray(image).astype(np.uint32)
    return _grey((values + 128) // 257)


def _wide(image: Image.Image) -> Image.Image:
    """Stretch 32-bit integers and floats from their own lowest to their own highest value: they state no range."""
    with np.errstate(invalid="ignore"):  # signalling NaNs of damaged files
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    return _grey((values - low) / (high - low) * 255 if high > low else values * 0)


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
