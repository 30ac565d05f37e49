"""Vectors at one byte a value: a level for each value, and one scale for each row, whose products are float16 numbers.

The levels are finer for small values than for large ones, since most values of an embedding are small: 64 steps of 1,
then 32 of 2 and 31 of 4, up to 252, to both sides. So a level has at most six significant bits, and a scale has five:
each of their products is a number of float16, exactly, and nothing is rounded a second time when rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 127
"""The largest number of a level; -128 does not occur."""
_TOP = 252.0  # the largest level
_KNEE, _SECOND_KNEE = np.int8(64), np.int8(96)  # the numbers from which on levels are 2 and 4 apart
_BITS = 5
_LENGTH, _ROUNDS = 5e-5, 3  # the share of its length that a row may lose, and how often it is tried
_INFINITY = 0x7C00  # the bits of the first float16 that is none of the positive numbers
_ENCODE_VALUES = 1 << 19
_DECODE_VALUES = 1 << 17
TO_FLOAT16 = 2.0**-112
"""What moves the exponent of a float32 to where float16 has its own, see `exact_search.to_scaled_float32`."""


class Encoded(NamedTuple):
    """Rows at one byte a value.

    Attributes:
        numbers: (n, dim) int8, the number of a level for each value, -127 to 127.
        scales: (n,) float16, above 0.
        lost: The largest length of what rounding took off a row.
    """

    numbers: NDArray[np.int8]
    scales: NDArray[np.float16]
    lost: float


def encode(rows: NDArray[np.float16]) -> Encoded:
    """Return rows (n, dim), finite, at one byte a value; rows that were decoded from it come back as they were.

    A row keeps its length to about a ten-thousandth, so that its dot products stay cosines: of the values that lie
    nearly between two levels, some go to the farther one for that.
    """
    numbers = np.empty(rows.shape, dtype=np.int8)
    scales = np.empty(len(rows), dtype=np.float16)
    lost = 0.0
    step = max(1, _ENCODE_VALUES // rows.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        values = rows[part].astype(np.float32)
        numbers[part], scales[part] = _encoded(values)
        off = (decode(numbers[part], scales[part]) - values).astype(np.float64)
        lost = max(lost, float(np.sqrt(np.vecdot(off, off).max())))
    return Encoded(numbers, scales, lost)


def decode(numbers: NDArray[np.int8], scales: NDArray[np.float16], factor: float = 1.0) -> NDArray[np.float32]:
    """Return the rows that numbers of levels (..., dim) and scales (...) stand for, times a power of two."""
    rows = np.empty(numbers.shape, dtype=np.float32)
    flat, target = numbers.reshape(-1, numbers.shape[-1]), rows.reshape(-1, numbers.shape[-1])
    factors = scales.reshape(-1, 1).astype(np.float32) * np.float32(factor)
    for part in _parts(flat):
        block = target[part]
        block[...] = _levels(flat[part])
        block *= factors[part]
    return rows


def decode_float16(numbers: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.float16]:
    """Return the same rows as float16, which holds each value exactly."""
    rows = np.empty(numbers.shape, dtype=np.uint16)
    flat, target = numbers.reshape(-1, numbers.shape[-1]), rows.reshape(-1, numbers.shape[-1])
    for part in _parts(flat):
        bits = decode(flat[part], scales.reshape(-1)[part], TO_FLOAT16).view(np.uint32)
        signs = bits >> 16
        signs &= 0x8000
        bits >>= 13
        bits |= signs
        target[part] = bits
    return rows.view(np.float16)


def _parts(rows: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of rows that stay in the cache while they are worked on."""
    step = max(1, _DECODE_VALUES // rows.shape[1])
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


def wrong_rows(numbers: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Return for each row (n, dim) whether it has a number or a scale that does not occur: NaN, 0, -128, and more."""
    return ~_is_scale()[scales.view(np.uint16)] | (numbers < -MOST).any(axis=1)


def _levels(numbers: NDArray[np.int8]) -> NDArray[np.int16]:
    """The level of each number n: 4 n - 2 clip(n, 96) - clip(n, 64), in sums that eight bits hold."""
    beyond = numbers - np.clip(numbers, -_KNEE, _KNEE)
    further = numbers - np.clip(numbers, -_SECOND_KNEE, _SECOND_KNEE)
    beyond += further
    beyond += further
    levels = numbers.astype(np.int16)
    levels += beyond.astype(np.int16)
    return levels


def _encoded(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    scales = _scales_of(np.abs(rows).max(axis=1).astype(np.float64))
    values: NDArray[np.float32] = np.divide(np.abs(rows), scales[:, None], dtype=np.float32)
    magnitudes = _nearest(values)
    _keep_lengths(values, magnitudes)
    numbers: NDArray[np.int8] = np.where(rows < 0, -magnitudes, magnitudes)
    return numbers, scales


def _scales_of(largest: NDArray[np.float64]) -> NDArray[np.float16]:
    """The smallest scale by which the top level reaches the largest value of each row, or nearly does.

    Nearly: where the level that the largest value is rounded to could be reached with the next smaller scale, that one
    is taken. A row that was decoded has then the scale that it was decoded with.
    """
    scales = _every_scale()
    position = np.searchsorted(scales, largest / _TOP)
    for _ in range(2):
        chosen = scales[np.minimum(position, len(scales) - 1)]
        reached = _levels(_nearest(largest / chosen)) * chosen
        position = np.minimum(position, np.searchsorted(scales, reached / _TOP))
    return scales[np.minimum(position, len(scales) - 1)].astype(np.float16)


def _nearest(values: NDArray[Any]) -> NDArray[np.int8]:
    """The number of the level nearest to each value, which is at least 0."""
    number = np.minimum(np.minimum(values, values / 2 + 32), values / 4 + 64)
    nearest: NDArray[np.int8] = np.minimum(np.rint(number), MOST).astype(np.int8)
    return nearest


def _keep_lengths(values: NDArray[np.float32], numbers: NDArray[np.int8]) -> None:
    """Move some values of each row to the level on their other side, so that the row is as long as it was."""
    rows = np.arange(len(values))
    for _ in range(_ROUNDS):
        levels = _levels(numbers[rows]).astype(np.float32)
        missing = np.vecdot(values[rows] - levels, values[rows] + levels)  # of the squared length
        uneven = np.abs(missing) > 2 * _LENGTH * np.vecdot(values[rows], values[rows])
        rows = rows[uneven]
        if not len(rows):
            return
        numbers[rows] += _moves(values[rows], numbers[rows], levels[uneven], missing[uneven])


def _moves(
    values: NDArray[np.float32], numbers: NDArray[np.int8], levels: NDArray[np.float32], missing: NDArray[np.float32]
) -> NDArray[np.int8]:
    """Return what to add to the numbers of levels, so that the squared lengths change by about what is missing.

    Those values go first that lose the least for what they do to the length. The largest stay: they made the scale.
    """
    off, short, way = values - levels, np.abs(missing)[:, None], np.sign(missing).astype(np.int8)[:, None]
    movable = (off * way > 0) & (numbers < numbers.max(axis=1, keepdims=True))
    moved = _levels(numbers + np.where(movable, way, np.int8(0))).astype(np.float32)
    gains = np.abs(moved - levels) * (moved + levels)
    movable &= gains <= short
    steps = np.abs(moved - levels)
    price = np.full(gains.shape, np.inf, dtype=np.float32)
    np.divide((steps - 2 * np.abs(off)) * steps, gains, out=price, where=movable)
    order = np.argsort(price, axis=1)
    reached = np.cumsum(np.take_along_axis(np.where(movable, gains, 0), order, axis=1), axis=1)
    count = np.argmin(np.abs(reached - short), axis=1)[:, None]
    chosen = np.empty_like(movable)
    np.put_along_axis(chosen, order, np.arange(numbers.shape[1]) <= count, axis=1)
    moves: NDArray[np.int8] = np.where(chosen & movable, way, np.int8(0))
    return moves


@cache
def _every_scale() -> NDArray[np.float64]:
    """All scales, ascending."""
    return np.flatnonzero(_is_scale()).astype(np.uint16).view(np.float16).astype(np.float64)


@cache
def _is_scale() -> NDArray[np.bool_]:
    """Whether each float16, by its bits, is a scale: above 0, five significant bits, no product beyond float16."""
    finite = np.arange(_INFINITY, dtype=np.uint16).view(np.float16).astype(np.float64)
    significands = np.frexp(finite)[0] * 2**_BITS
    fits = (finite > 0) & (finite * _TOP <= np.finfo(np.float16).max) & (significands == np.rint(significands))
    return np.append(fits, np.zeros((1 << 16) - _INFINITY, dtype=np.bool_))
