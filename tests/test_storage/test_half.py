from __future__ import annotations

import numpy as np
import pytest

from storage.half import widen


def test_every_finite_number_becomes_the_same_number() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert np.array_equal(widen(finite), finite.astype(np.float32))


def test_the_sign_of_zero_stays() -> None:
    assert np.array_equal(np.signbit(widen(np.array([0.0, -0.0], dtype=np.float16))), [False, True])


@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (1, 1), (700, 512), (2, 3, 5)])
def test_the_shape_stays(shape: tuple[int, ...]) -> None:
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    wide = widen(vectors)
    assert wide.dtype == np.float32
    assert np.array_equal(wide, vectors.astype(np.float32))
