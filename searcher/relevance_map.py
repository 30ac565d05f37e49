"""Which parts of an image match a query: a map of the cosines of its parts, and an image shaded by it.

The image is cut into overlapping windows, each is encoded by itself, and a part of the map is the mean cosine of the
windows over it. That needs nothing of an encoder but its vectors, and so works for every one, whatever it is made of.
The other such way is to cover parts and see where the cosine falls (Zeiler and Fergus, 2014); it points at the right
one of four photographs in a mosaic much less often (`benchmarks/relevance_map.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.errors import ImageError
from encoders.images import decode_image

from .errors import QueryError
from .query import image_part, query_part

if TYPE_CHECKING:
    from .query_encoder import QueryEncoder

CELLS = 8
"""Rows and columns of a map."""
# A window is so many cells wide and high, and moves by one. Of 3, 4 and 5 the smallest points best.
_WINDOW = 3
_STARTS = [(top, left) for top in range(CELLS - _WINDOW + 1) for left in range(CELLS - _WINDOW + 1)]
# A window of an image that is no larger is what an encoder enlarges anyway.
_LARGEST = 1024
_SHADE = (20, 22, 30)
_DARKEST = 0.8
_LEAST_CONTRAST = 1e-6
# What is near the best part stands out; a map of little contrast is no more than that.
_SHARPNESS = 1.5


def relevance_map(encoder: QueryEncoder, query: Any, image: Any) -> NDArray[np.float32]:
    """Return how near each part of an image is to a query by itself. Takes as long as to encode 36 images.

    Args:
        encoder: Of queries.
        query: A text, or a vector (dim,).
        image: A path, bytes or PIL image.

    Returns:
        (8, 8) float32, rows from the top: the mean cosine of the windows over each part.

    Raises:
        SearchError: The query or the image cannot be used, or no encoder is known.
        EncoderError: The encoder cannot be loaded.
    """
    (vector,) = encoder.encode([query_part(query, "text")])
    try:
        pixels = decode_image(image_part(image).content).pixels
    except ImageError as error:
        raise QueryError(f"the image cannot be used: {error}; give another one") from error
    return map_of(encoder.encode([image_part(window) for window in windows(pixels)]) @ vector)


def windows(image: Image.Image) -> list[Image.Image]:
    """Return the windows of an RGB image whose cosines `map_of` takes, 36."""
    small = image.copy()
    small.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BICUBIC)
    return [small.crop(_box(small, top, left)) for top, left in _STARTS]


def map_of(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the map (8, 8) of the cosines (36,) of the windows of an image with a query."""
    sums, times = np.zeros((2, CELLS, CELLS))
    for (top, left), cosine in zip(_STARTS, cosines, strict=True):
        part = slice(top, top + _WINDOW), slice(left, left + _WINDOW)
        sums[part] += cosine
        times[part] += 1
    return (sums / times).astype(np.float32)


def shaded(image: Image.Image, relevance: NDArray[np.float32]) -> Image.Image:
    """Return an image that is dark where a map (n, n) is low, and as it was where the map is high."""
    low, high = float(relevance.min()), float(relevance.max())
    share = (relevance - low) / max(high - low, _LEAST_CONTRAST)
    mask = Image.fromarray(np.round(share**_SHARPNESS * 255).astype(np.uint8)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    dark = Image.blend(image, Image.new("RGB", image.size, _SHADE), _DARKEST)
    return Image.composite(image, dark, mask)


def _box(image: Image.Image, top: int, left: int) -> tuple[int, int, int, int]:
    """Return a window in pixels, one at least each way."""
    wide, high = image.width / CELLS, image.height / CELLS
    right, bottom = (left + _WINDOW) * wide, (top + _WINDOW) * high
    x, y = min(round(left * wide), image.width - 1), min(round(top * high), image.height - 1)
    return x, y, max(round(right), x + 1), max(round(bottom), y + 1)
