"""Input validation for metrics: what cannot be measured is refused, in one line that names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Pairs = NDArray[Any] | Sequence[tuple[int, int]]


def check_k(k: Sequence[int], limit: int, what: str) -> None:
    """Refuse depths that do not lie between 1 and `limit`.

    Raises:
        ValueError: There is no depth, or one is below 1 or above `limit`.
    """
    if not k:
        raise ValueError("k is empty; give at least one depth, such as (1, 5, 10)")
    for depth in k:
        if not 1 <= depth <= limit:
            raise ValueError(f"k={depth!r} does not lie between 1 and the {limit} {what}; give other values of k")


def check_sides(left: Floats, right: Floats, names: tuple[str, str] = ("image", "text")) -> None:
    """Refuse two sets of vectors that cannot be compared.

    Raises:
        ValueError: Their shapes are not (n, dim) and (m, dim), or a vector is not finite.
    """
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        shapes = f"{names[0]} vectors {left.shape} and {names[1]} vectors {right.shape}"
        raise ValueError(f"{shapes} must be (n, dim) and (m, dim)")
    check_finite(left, names[0])
    check_finite(right, names[1])


def check_finite(vectors: Floats, name: str) -> None:
    """Refuse NaN and infinite values.

    Raises:
        ValueError: A vector holds one; the first such row is named.
    """
    # The sum of a line is not finite where any of its values is not; it needs no array of the whole size.
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = ~np.isfinite(vectors.sum(axis=1, dtype=np.float32))
    if np.any(wrong):
        raise ValueError(f"{name} vector {int(np.argmax(wrong))} holds NaN or infinite values; encode it again")


def pair_rows(pairs: Pairs, left: int, right: int, names: tuple[str, str] = ("image", "text")) -> NDArray[np.int64]:
    """Return the pairs as (p, 2) rows.

    Raises:
        ValueError: There is none, their shape or dtype is another, or one names a row that does not exist.
    """
    rows = np.asarray(pairs)
    one, other = names
    if not rows.size:
        raise ValueError(f"there are no pairs, so there is nothing to measure; give ({one} row, {other} row) pairs")
    if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "iu":
        raise ValueError(f"pairs of shape {rows.shape}, {rows.dtype}, must be (p, 2) integers: {one} row, {other} row")
    unknown = np.any((rows < 0) | (rows >= [left, right]), axis=1)
    if np.any(unknown):
        place = int(np.argmax(unknown))
        first, second = rows[place].tolist()
        there = f"there are {left} {one}s and {right} {other}s"
        raise ValueError(f"pair {place} is {one} {first} and {other} {second}; {there}")
    return rows.astype(np.int64)
