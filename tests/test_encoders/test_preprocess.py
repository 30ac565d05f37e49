"""Preprocessing is open_clip's own, bit for bit, and survives pictures of any shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from encoders import Encoder, decode_image
from encoders.preprocess import Preprocess

MODES = ["shortest", "longest", "squash"]


def config(mode: str, size: object = (48, 48), interpolation: str = "bicubic") -> dict[str, object]:
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    extra = {"resize_mode": mode, "interpolation": interpolation, "fill_color": 255 if mode == "longest" else 0}
    return {"size": size, "mean": mean, "std": std, **extra}


def theirs(settings: dict[str, object], image: Image.Image) -> np.ndarray:
    return image_transform_v2(PreprocessCfg(**settings), is_train=False)(image).numpy()


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40, deadline=None)
@given(width=st.integers(4, 300), height=st.integers(4, 300), bilinear=st.booleans())
def test_it_equals_the_transform_of_open_clip_bit_for_bit(mode: str, width: int, height: int, bilinear: bool) -> None:
    if max(width, height) > 20 * min(width, height):
        return
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    chosen = config(mode, interpolation="bilinear" if bilinear else "bicubic")
    ours = Preprocess(chosen)(Image.fromarray(noise))
    assert (ours.dtype, ours.shape, ours.flags.c_contiguous) == (np.float32, (3, 48, 48), True)
    assert np.array_equal(ours, theirs(chosen, Image.fromarray(noise)))


@pytest.mark.parametrize("size", [32, (24, 48)])
@pytest.mark.parametrize("mode", MODES)
def test_other_input_sizes_work_too(mode: str, size: object, make_picture: Callable[..., Image.Image]) -> None:
    chosen = config(mode, size=size)
    assert np.array_equal(Preprocess(chosen)(make_picture()), theirs(chosen, make_picture()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(4_000_000, 1), (1, 5000), (5000, 2), (1, 1), (2, 2_000_000)])
def test_a_strip_costs_no_absurd_memory(mode: str, size: tuple[int, int]) -> None:
    ready = Preprocess(config(mode, size=(224, 224)))(Image.new("RGB", size, (255, 0, 0)))
    assert ready.shape == (3, 224, 224)
    assert np.isfinite(ready).all()


def test_a_long_strip_keeps_its_middle() -> None:
    strip = Image.new("RGB", (8000, 40), (255, 0, 0))
    strip.paste((0, 0, 255), (3960, 0, 4040, 40))
    ready = Preprocess(config("shortest"))(strip)
    assert np.allclose(ready, Preprocess(config("shortest"))(Image.new("RGB", (40, 40), (0, 0, 255))), atol=0.05)


def test_lite_pads_to_a_square_on_white(lite: Encoder) -> None:
    ready = lite.preprocess(Image.new("RGB", (400, 100), (0, 0, 0)))
    assert ready.shape == (3, 224, 224)
    assert ready[:, 0, :].min() == 1.0
    assert ready[:, 112, :].max() == -1.0


def test_it_equals_the_transform_of_open_clip_on_photographs(photographs: list[tuple]) -> None:
    chosen = config("shortest", size=(224, 224))
    for path, _ in photographs[:10]:
        pixels = decode_image(path).pixels
        assert np.array_equal(Preprocess(chosen)(pixels), theirs(chosen, pixels))
