"""A tiny model, images that it can learn, and one finished run that several tests look at."""

from __future__ import annotations

import pytest
import torch
from two_tone import save_tiny, two_tone

from training import CaptionedImages, FitConfig

# Enough steps for the tiny model to learn something, in a second or two.
QUICK = FitConfig(mode="full", epochs=8, batch_size=16, lr=1e-3, head_lr=1e-3, views=0, evaluations=4, device="cpu")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def quick() -> FitConfig:
    return QUICK


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec of an untrained CLIP."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> CaptionedImages:
    """48 images of two colours, with two captions each."""
    paths, captions = two_tone(tmp_path_factory.mktemp("images"), 48)
    return CaptionedImages(paths, captions)
