"""Small real models and pictures that the tests of the encoders share."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clip import TINY, write_folder

from encoders import Encoder, load_encoder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Image.Image]:
    def make(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
        """Return a smooth random RGB picture."""
        small = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

    return make


@pytest.fixture
def tiny_config() -> dict:
    """The architecture of a CLIP of a few hundred kilobytes, apart from its vocabulary."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session", name="write_folder")
def write_folder_fixture() -> Callable[..., Path]:
    return write_folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Encoder:
    return load_encoder(f"local-dir:{tiny_folder}", device="cpu")


@pytest.fixture(scope="session")
def lite() -> Encoder:
    return load_encoder("lite", device="cpu")


@pytest.fixture(scope="session")
def photographs(data: Path) -> list[tuple[Path, list[str]]]:
    """Real photographs with their captions."""
    lines = (data / "coco_cc" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(data / "coco_cc" / row["image"], row["captions"]) for row in rows]
