"""Images of the next steps are decoded ahead and sent as bytes where a GPU trains; what is learned stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders import load_encoder
from encoders.preprocess import Preprocess
from training import CaptionedImages, FitConfig, fine_tuning, fit_encoder
from training.batches import Announced
from training.features import ImageFeed, scaled


def test_bytes_become_the_floats_of_the_preprocessing_bit_for_bit() -> None:
    preprocess = Preprocess({"size": 8, "mean": (0.48, 0.45, 0.4), "std": (0.27, 0.26, 0.28)})
    pixels = np.arange(2 * 3 * 8 * 8, dtype=np.int64).astype(np.uint8).reshape(2, 3, 8, 8)
    expected = np.stack([preprocess.scaled(image) for image in pixels])
    found = scaled(torch.from_numpy(pixels), torch.from_numpy(preprocess.table))
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(found.numpy(), expected)


class Numbers:
    """Stands for a sampler: its batches are numbers."""

    steps = 5

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        yield from range(10 * number + start, 10 * number + self.steps)


@pytest.mark.parametrize(("ahead", "known"), [(0, [1, 2, 3, 4]), (2, [3, 4, 4, 4]), (9, [4, 4, 4, 4])])
def test_batches_come_in_order_and_are_announced_before_those_in_front_are_taken(ahead: int, known: list[int]) -> None:
    announced, sampler = list[Any](), Numbers()
    batches = Announced(sampler=sampler, announce=announced.append, ahead=ahead)  # type: ignore[arg-type]
    assert [(batch, len(announced)) for batch in batches.epoch(1, start=1)] == list(
        zip(range(11, 15), known, strict=True)
    )
    assert (announced, batches.steps) == ([11, 12, 13, 14], 5)


def test_a_run_as_on_a_gpu_learns_the_same_bit_for_bit(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(quick, epochs=1, views=1, evaluations=1, interpolate=False)
    plain = fit_encoder(tiny, examples, None, tmp_path / "plain", config)
    monkeypatch.setitem(fine_tuning.BATCHES_AHEAD, "cpu", 2)
    make, feeds, found = ImageFeed.__init__, list[ImageFeed](), list[int]()

    def made(feed: ImageFeed, *given: Any, **more: Any) -> None:
        make(feed, *given, **more)
        feed._as_bytes = True
        feeds.append(feed)

    take = ImageFeed._pixels

    def taken(feed: ImageFeed, rows: np.ndarray, draws: np.ndarray) -> torch.Tensor:
        found.append(sum(key in feed._begun for key in zip(rows.tolist(), draws.tolist(), strict=True)))
        return take(feed, rows, draws)

    monkeypatch.setattr(ImageFeed, "__init__", made)
    monkeypatch.setattr(ImageFeed, "_pixels", taken)
    ahead = fit_encoder(tiny, examples, None, tmp_path / "ahead", config)
    assert [row["loss"] for row in ahead.curve] == [row["loss"] for row in plain.curve]
    first, second = (
        load_encoder(one.encoder, device="cpu").encode_texts(["red beside blue"]) for one in (plain, ahead)
    )
    np.testing.assert_array_equal(first, second)
    assert sum(count > 0 for count in found) == ahead.curve[-1]["step"] == 3
    assert not any(feed._begun for feed in feeds)
