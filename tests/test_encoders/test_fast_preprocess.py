"""The fast transform is open_clip's own up to a rounding, and photographs decoded small give the same vectors."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoders import Encoder, decode_image
from encoders.fast_preprocess import FastPreprocess
from encoders.images import open_image, pixels_for
from encoders.preprocess import MARGIN, Preprocess

MODES = ["shortest", "longest", "squash"]
STATISTICS = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def exact(mode: str, size: object = (48, 48), interpolation: str = "bicubic") -> Preprocess:
    fill = {"fill_color": 255 if mode == "longest" else 0}
    return Preprocess({"size": size, "resize_mode": mode, "interpolation": interpolation, **STATISTICS, **fill})


def as_floats(fast: FastPreprocess, image: Image.Image) -> np.ndarray:
    return fast.scaled(torch.from_numpy(fast(image))[None])[0].numpy()


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40, deadline=None)
@given(width=st.integers(4, 300), height=st.integers(4, 300), bilinear=st.booleans(), tall=st.booleans())
def test_bytes_of_noise_are_open_clips_but_for_roundings(
    mode: str, width: int, height: int, bilinear: bool, tall: bool
) -> None:
    if max(width, height) > 20 * min(width, height):
        return
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    reference = exact(mode, (56, 40) if tall else (48, 48), "bilinear" if bilinear else "bicubic")
    step = reference.table[0, 1] - reference.table[0, 0]
    ours, theirs = as_floats(FastPreprocess(reference), Image.fromarray(noise)), reference(Image.fromarray(noise))
    assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
    assert np.abs(ours - theirs).mean() < 0.6 * step


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(90, 60), (51, 212), (300, 200), (30, 40)])
def test_bytes_of_smooth_pictures_differ_by_two_at_most(
    mode: str, size: tuple[int, int], make_picture: Callable[..., Image.Image]
) -> None:
    reference = exact(mode)
    step = (reference.table[:, 1] - reference.table[:, 0])[:, None, None]
    difference = np.abs(as_floats(FastPreprocess(reference), make_picture(*size)) - reference(make_picture(*size)))
    assert (difference < 2.1 * step).all()


@pytest.mark.parametrize("mode", MODES)
def test_what_need_not_be_resized_is_exact(mode: str, make_picture: Callable[..., Image.Image]) -> None:
    reference = exact(mode)
    assert (
        np.abs(as_floats(FastPreprocess(reference), make_picture(48, 48)) - reference(make_picture(48, 48))).max()
        < 1e-5
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(400_000, 1), (1, 5000), (1, 1), (2, 200_000)])
def test_a_strip_costs_no_absurd_memory(mode: str, size: tuple[int, int]) -> None:
    ready = FastPreprocess(exact(mode, (224, 224)))(Image.new("RGB", size, (255, 0, 0)))
    assert (ready.shape, ready.dtype) == ((3, 224, 224), np.uint8)


@pytest.mark.parametrize("mode", MODES)
@given(width=st.integers(1, 9000), height=st.integers(1, 9000))
def test_a_photograph_stays_larger_than_what_becomes_of_it_by_the_margin(mode: str, width: int, height: int) -> None:
    most = exact(mode, (224, 224)).shrink(width, height)
    assert most >= 1
    assert most == exact(mode, (224, 224)).shrink(height, width)
    side = max(width, height) if mode == "longest" else min(width, height)
    assert most == 1 or side / most >= MARGIN * 224 * 0.999


def test_small_photographs_are_never_decoded_small() -> None:
    whole = exact("shortest", (224, 224))
    assert whole.shrink(500, 375) == 1
    assert 4 > whole.shrink(4000, 3000) >= 2


def enlarged(path: Path) -> bytes:
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image.resize((image.width * 4, image.height * 4), Image.Resampling.LANCZOS)).astype(np.int16)
    noise = np.random.default_rng(0).integers(-6, 7, pixels.shape[:2], dtype=np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels + noise[:, :, None], 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def test_photographs_give_the_vectors_of_a_full_decode_and_of_open_clips_transform(
    lite: Encoder, photographs: list[tuple]
) -> None:
    reference = Preprocess(
        {
            "size": (224, 224),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bicubic",
            "resize_mode": "longest",
            "fill_color": 255,
        }
    )
    sources = [path for path, _ in photographs[:12]] + [enlarged(path) for path, _ in photographs[:4]]
    assert open_image(lite, sources[-1]).pixels.width < decode_image(sources[-1]).info.width
    slow = lite.encode_pixels(np.stack([reference(decode_image(source).pixels) for source in sources]))
    assert (slow * lite.encode_images(sources)).sum(1).min() > 0.999


def test_bytes_and_floats_give_the_same_vectors(lite: Encoder, make_picture: Callable[..., Image.Image]) -> None:
    pictures = [make_picture(300, 200, seed=i) for i in range(5)]
    floats = lite.encode_pixels(np.stack([lite.preprocess(picture) for picture in pictures]))
    small = np.stack([pixels_for(lite, picture) for picture in pictures])
    assert small.dtype == np.uint8
    assert np.abs(lite.encode_pixels(small) - floats).max() < 1e-5
