"""Tiny region features with captions that say what is in them, and one finished run that several tests look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from concepts import write_concepts

from training.hrem import HremConfig

# Seconds, and enough to learn a dozen words.
QUICK = HremConfig(
    bert="bigru",
    dim=32,
    heads=4,
    epochs=6,
    warmup_epochs=2,
    batch_size=16,
    lr=2e-3,
    distance_dim=32,
    device="cpu",
    region_drop=0.1,
    word_drop=0.1,
    workers=1,
)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def quick() -> HremConfig:
    return QUICK


@pytest.fixture(scope="session")
def precomp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 images to learn from, 12 for dev and 12 for test, two captions each."""
    folder = tmp_path_factory.mktemp("data") / "toy_precomp"
    write_concepts(folder, {"train": 24, "dev": 12, "test": 12}, np.random.default_rng(0))
    return folder


@pytest.fixture(scope="session")
def run(precomp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint."""
    from training.hrem import fit_hrem

    out = tmp_path_factory.mktemp("runs") / "toy"
    fit_hrem(precomp, out, QUICK)
    return out
