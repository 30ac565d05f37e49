"""Vectors are open_clip's own, of unit length, in the order given."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from encoders import Encoder, EncoderError, ImageError, load_encoder

TEXTS = ["a dog", "two cats on a sofa, asleep", "", "caf\u00e9 " * 200, "a Dog", "snow"]


def reference(folder: Path, pictures: list[Image.Image], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what open_clip itself gives, written as its README does it."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
        words = model.encode_text(tokenizer(texts), normalize=True)
    return images.numpy(), words.numpy()


def test_vectors_equal_those_of_open_clip(tiny_folder: Path, tiny: Encoder, make_picture: Callable) -> None:
    pictures = [make_picture(60 + 7 * i, 50 + 3 * i, seed=i) for i in range(5)]
    images, words = reference(tiny_folder, pictures, TEXTS)
    assert (tiny.encode_images(pictures) * images).sum(1).min() > 0.99999
    assert (tiny.encode_texts(TEXTS) * words).sum(1).min() > 0.99999


def test_vectors_equal_those_of_open_clip_on_photographs(tiny_folder: Path, tiny: Encoder, photographs: list) -> None:
    pictures = [Image.open(path).convert("RGB") for path, _ in photographs]
    captions = [caption for _, captions in photographs for caption in captions]
    images, words = reference(tiny_folder, pictures, captions)
    assert (tiny.encode_images(pictures) * images).sum(1).min() > 0.9999
    # At 32 pixels photographs of 640 are decoded at half their size.
    cosines = (tiny.encode_images([path for path, _ in photographs]) * images).sum(1)
    assert cosines.mean() > 0.9999
    assert cosines.min() > 0.998
    assert (tiny.encode_texts(captions) * words).sum(1).min() > 0.9999


def test_rows_are_float32_of_unit_length(tiny: Encoder, make_picture: Callable) -> None:
    for rows in (tiny.encode_images([make_picture()] * 3), tiny.encode_texts(TEXTS)):
        assert rows.dtype == np.float32
        assert rows.shape[1] == tiny.dim == 24
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny", "lite"])
def test_the_order_given_is_kept_over_batches(name: str, request: pytest.FixtureRequest) -> None:
    encoder: Encoder = request.getfixturevalue(name)
    texts = [f"{'very ' * (i * 7 % 11)}large number {i}" for i in range(90)]
    one_by_one = np.concatenate([encoder.encode_texts([text]) for text in texts])
    assert np.abs(encoder.encode_texts(texts) - one_by_one).max() < 1e-5


@pytest.mark.parametrize("name", ["tiny", "lite"])
def test_pictures_pixels_paths_and_bytes_agree(
    name: str, request: pytest.FixtureRequest, make_picture: Callable, tmp_path: Path
) -> None:
    encoder: Encoder = request.getfixturevalue(name)
    pictures = [make_picture(seed=i) for i in range(19)]
    path = tmp_path / "a.png"
    pictures[0].save(path)
    pixels = np.stack([encoder.preprocess(picture) for picture in pictures])
    rows = encoder.encode_pixels(pixels)
    assert np.abs(rows - encoder.encode_images(pictures)).max() < 1e-6
    assert np.abs(rows - encoder.encode_pixels(torch.from_numpy(pixels))).max() < 1e-6
    assert np.abs(rows[:1] - encoder.encode_images([path, str(path), path.read_bytes()])).max() < 1e-5


def test_nothing_gives_no_rows(tiny: Encoder) -> None:
    empty = (tiny.encode_texts([]), tiny.encode_images([]), tiny.encode_pixels(np.empty((0, 3, 32, 32), np.float32)))
    assert [rows.shape for rows in empty] == [(0, 24)] * 3


def test_a_broken_picture_is_an_image_error(tiny: Encoder) -> None:
    with pytest.raises(ImageError, match="not_an_image"):
        tiny.encode_images([b"hello, world"])


def test_what_is_not_a_list_of_texts_is_refused(tiny: Encoder) -> None:
    with pytest.raises(EncoderError, match="takes a list of texts, got the one text 'a dog'"):
        tiny.encode_texts("a dog")
    with pytest.raises(EncoderError, match="takes texts, got int 3"):
        tiny.encode_texts(["a", 3])  # type: ignore[list-item]


def test_pixels_of_another_shape_are_refused(tiny: Encoder) -> None:
    with pytest.raises(EncoderError, match=r"shape \(1, 3, 16, 16\), .* takes \(n, 3, 32, 32\)"):
        tiny.encode_pixels(np.zeros((1, 3, 16, 16), np.float32))


def test_values_that_are_not_finite_are_refused(tiny: Encoder) -> None:
    with pytest.raises(EncoderError, match="values that are not finite at fp32"):
        tiny.encode_pixels(np.full((1, 3, 32, 32), np.nan, np.float32))


@pytest.mark.parametrize("name", ["tiny", "lite"])
def test_many_threads_get_what_one_gets(name: str, request: pytest.FixtureRequest, make_picture: Callable) -> None:
    encoder: Encoder = request.getfixturevalue(name)
    texts = [["a dog", "a very long caption " * (1 + i % 5)] for i in range(16)]
    pixels = [encoder.preprocess(make_picture(seed=i))[None] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        words = list(pool.map(encoder.encode_texts, texts))
        images = list(pool.map(encoder.encode_pixels, pixels))
    assert all(np.abs(got - encoder.encode_texts(text)).max() < 1e-5 for got, text in zip(words, texts, strict=True))
    assert all(np.abs(got - encoder.encode_pixels(one)).max() < 1e-5 for got, one in zip(images, pixels, strict=True))


def test_bf16_moves_vectors_little_and_the_fingerprint_not_at_all(tiny_folder: Path, tiny: Encoder) -> None:
    coarse = load_encoder(f"local-dir:{tiny_folder}", device="cpu", precision="bf16")
    assert (coarse.precision, coarse.fingerprint) == ("bf16", tiny.fingerprint)
    assert coarse.encode_texts(TEXTS).dtype == np.float32
    assert (coarse.encode_texts(TEXTS) * tiny.encode_texts(TEXTS)).sum(1).min() > 0.99


@pytest.mark.parametrize(("most", "where"), [(3, "encode_image"), (1, "encode_image"), (3, "scaled"), (3, "_sent")])
def test_a_batch_that_finds_no_memory_is_halved_and_so_are_those_after_it(
    most: int, where: str, tiny_folder: Path, tiny: Encoder, make_picture: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU does it: the error is torch's own, raised here by what copies, scales or computes only so many."""
    small: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    monkeypatch.setattr(small, "_pass", None)
    owner = {"scaled": small._fast, "_sent": small}.get(where, small._model)
    small.batch_size, real, sizes = 11, getattr(owner, where), []

    def limited(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(batch)

    monkeypatch.setattr(owner, where, limited)
    monkeypatch.setattr(small._pool, "count", 1)
    pixels = np.stack([tiny.byte_pixels(make_picture(seed=number)) for number in range(11)])
    np.testing.assert_allclose(small.encode_pixels(pixels), tiny.encode_pixels(pixels), atol=1e-5)
    assert small.batch_size == most
    sizes.clear()
    small.encode_pixels(pixels)
    assert max(sizes) == most


def test_no_memory_for_a_single_item_says_what_to_do(
    tiny_folder: Path, make_picture: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu")

    def encode_image(batch: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(small._model, "encode_image", encode_image)
    with pytest.raises(EncoderError, match=r"no memory left for one item .*: CUDA out of memory; end what else runs"):
        small.encode_images([make_picture()])


@pytest.mark.parametrize("ahead", [False, True])
def test_no_image_is_lost_where_batches_become_smaller_within_a_call(
    ahead: bool, tiny_folder: Path, tiny: Encoder, make_picture: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    monkeypatch.setattr(small, "_pass", None)
    monkeypatch.setattr(small, "_decodes_ahead", ahead)
    monkeypatch.setattr(small._pool, "count", 1)
    small.batch_size, real = 4, small._model.encode_image

    def limited(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(batch)

    monkeypatch.setattr(small._model, "encode_image", limited)
    pictures = [make_picture(seed=number) for number in range(11)]
    np.testing.assert_allclose(small.encode_images(pictures), tiny.encode_images(pictures), atol=1e-5)
    assert small.batch_size == 2


def test_a_gpu_computes_one_batch_while_the_next_is_decoded(
    tiny_folder: Path, tiny: Encoder, make_picture: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    monkeypatch.setattr(ahead, "_decodes_ahead", True)
    ahead.batch_size, opening, encoding, opened = 2, ahead.open_image, ahead.encode_pixels, []
    third = threading.Event()

    def open_image(image: Any) -> Any:
        opened.append(image)
        if len(opened) == 3:
            third.set()
        return opening(image)

    def encode_pixels(pixels: np.ndarray) -> np.ndarray:
        assert third.wait(60)  # an image of the next batch, before anything of the first is computed
        return encoding(pixels)

    monkeypatch.setattr(ahead, "open_image", open_image)
    monkeypatch.setattr(ahead, "encode_pixels", encode_pixels)
    pictures = [make_picture(seed=number) for number in range(6)]
    np.testing.assert_allclose(ahead.encode_images(pictures), tiny.encode_images(pictures), atol=1e-5)
    with pytest.raises(ImageError):
        ahead.encode_images([*pictures, b"no image"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "auto"])
def test_a_gpu_gives_the_vectors_of_the_cpu(
    precision: str, tiny_folder: Path, tiny: Encoder, make_picture: Callable
) -> None:
    gpu = load_encoder(f"local-dir:{tiny_folder}", device="cuda", precision=precision)
    pictures = [make_picture(seed=i) for i in range(5)]
    assert (gpu.device, gpu.fingerprint) == ("cuda", tiny.fingerprint)
    assert (gpu.encode_texts(TEXTS) * tiny.encode_texts(TEXTS)).sum(1).min() > 0.99
    assert (gpu.encode_images(pictures) * tiny.encode_images(pictures)).sum(1).min() > 0.99
