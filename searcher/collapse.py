"""Collapsing: of items that are the same but for how they were saved, a search shows one that stands for the others.

Two items are copies when their content has the same SHA-256, or when their vectors are so alike that re-saving and
resizing explain it; of two images the shapes must agree too. How alike that is depends on the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.exact_search import to_float32
from storage.schema import Collection

# Vectors of CLIP ViT-B/32: of 600 different photographs 0.3 % have another one at 0.97, 1.2 % at 0.95. Captions encoded
# by `lite`: a missing full stop leaves 0.997 (0.988 at the worst of a hundred), and 1.3 % of captions have another
# photograph's at 0.98, which differs by a word.
NEAR: Mapping[Collection, float] = {"images": 0.97, "texts": 0.98}
# The images of `lite` are mixtures of class names: two different swings have 0.9999, and a photograph re-saved at
# quality 70 has 0.96 (median) to itself, so that no cosine tells copies. Of 1,500 re-saved or resized photographs 31 %
# were found at 0.98, and 15 % of 3,000 had a false partner there.
_BLIND_TO_COPIES = frozenset({"lite"})
# The same bytes have the same vector, but for the rounding of batches.
_SAME = 0.999
_SHAPE = 0.03
MOST_COLLAPSED = 2_000
CONTENT_COLUMNS = ("sha256", "width", "height")

# Positions (n,) among what was ranked to what the catalog has of them in `CONTENT_COLUMNS`.
Facts = Callable[[NDArray[np.int64]], Sequence[Mapping[str, Any]]]


def near_copies(collection: Collection, encoder: str | None) -> float | None:
    """Return the cosine from which two items are copies; None where the encoder cannot tell them."""
    return None if collection == "images" and encoder in _BLIND_TO_COPIES else NEAR[collection]


def first_copies(vectors: NDArray[np.float16], near: float | None, facts: Facts) -> NDArray[np.int64]:
    """Return for each of n ranked items the position of the first one that it is a copy of, (n,); its own for none.

    An item stands for those that are copies of it, not for the copies of copies.

    Args:
        vectors: (n, dim) unit rows, the best item first.
        near: The cosine from which two items may be copies; None for equal content alone.
        facts: Asked only for items that some other is very like.
    """
    wide = to_float32(vectors)
    cosines = wide @ wide.T
    alike = np.tril(cosines >= min(_SAME, near or _SAME), -1)
    first = np.arange(len(wide))
    early = np.flatnonzero(alike.any(axis=0))
    if not len(early):
        return first
    involved = np.flatnonzero(alike.any(axis=0) | alike.any(axis=1))
    contents, shapes = _content_and_shape(involved, facts(involved), len(wide))
    for one in early.tolist():
        if first[one] != one:
            continue
        copies = contents == contents[one]
        if near is not None:
            with np.errstate(invalid="ignore"):
                other_shape = np.abs(shapes / shapes[one] - 1) > _SHAPE  # False where one is not known
            copies |= (cosines[:, one] >= near) & ~other_shape
        first[alike[:, one] & copies & (first == np.arange(len(first)))] = one
    return first


def _content_and_shape(
    positions: NDArray[np.int64], facts: Sequence[Mapping[str, Any]], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return a number for the content of each of `count` items, equal for equal ones, and width over height or NaN."""
    contents, shapes = -1 - np.arange(count), np.full(count, np.nan)
    numbers: dict[str, int] = {}
    for position, fact in zip(positions.tolist(), facts, strict=True):
        if fact["sha256"] is not None:
            contents[position] = numbers.setdefault(fact["sha256"], len(numbers))
        if fact.get("width") and fact.get("height"):
            shapes[position] = fact["width"] / fact["height"]
    return contents, shapes
