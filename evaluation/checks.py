"""Input validation for metrics: what cannot be measured is refused, in one line that names it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Pairs = NDArray[Any] | Sequence[tuple[int, int]]


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        ValueError: It is none; the message names it.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; give a whole number of 1 or more")


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse what is neither None nor of a class.

    Raises:
        ValueError: It is of another type; the message names both.
    """
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name} is of type {type(value).__name__}; give a {kind.__name__} or None")


def as_ids(name: str, values: object) -> NDArray[np.int64]:
    """Return row ids as an array of int64.

    Raises:
        ValueError: They are no whole numbers.
    """
    rows = np.asarray(values)
    if rows.dtype.kind not in "iu" and rows.size:
        raise ValueError(f"{name} of type {type(values).__name__} holds no row ids; give whole numbers")
    return rows.astype(np.int64)


def check_k(k: Sequence[int], limit: int, what: str) -> None:
    """Refuse depths that do not lie between 1 and `limit`.

    Raises:
        ValueError: There is no depth, or one is no whole number, below 1 or above `limit`.
    """
    if isinstance(k, str | bytes) or not isinstance(k, Sequence | np.ndarray):
        raise ValueError(f"k is {k!r}; give a list of depths, such as (1, 5, 10)")
    if not len(k):
        raise ValueError("k is empty; give at least one depth, such as (1, 5, 10)")
    for depth in k:
        check_count("k", depth)
        if depth > limit:
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
        row = int(np.argmax(unknown))
        first, second = rows[row].tolist()
        there = f"there are {left} {one}s and {right} {other}s"
        raise ValueError(f"pair {row} is {one} {first} and {other} {second}; {there}")
    return rows.astype(np.int64)
