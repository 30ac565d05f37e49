from __future__ import annotations

import numpy as np
import pytest

from storage.exact_search import EXPONENT_SHIFT, to_float32, to_scaled_float32


def test_every_finite_number_becomes_the_same_number() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert np.array_equal(to_float32(finite), finite.astype(np.float32))


def test_small_numbers_times_a_large_query_give_the_same_product_to_the_last_bit() -> None:
    generator = np.random.default_rng(0)
    vectors = (generator.standard_normal((200, 512)) / 23).astype(np.float16)
    vectors[:3] = [[6e-8], [-6e-5], [0]]  # the smallest that float16 has, and none
    query = (generator.standard_normal(512) / 23).astype(np.float32)
    assert np.array_equal(to_scaled_float32(vectors) * EXPONENT_SHIFT, to_float32(vectors))
    small = np.vecdot(to_scaled_float32(vectors), (query * EXPONENT_SHIFT)[None])
    assert np.array_equal(small, np.vecdot(to_float32(vectors), query[None]))


def test_the_sign_of_zero_stays() -> None:
    assert np.array_equal(np.signbit(to_float32(np.array([0.0, -0.0], dtype=np.float16))), [False, True])


@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (1, 1), (700, 512), (2, 3, 5)])
def test_the_shape_stays(shape: tuple[int, ...]) -> None:
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    wide = to_float32(vectors)
    assert wide.dtype == np.float32
    assert np.array_equal(wide, vectors.astype(np.float32))
