"""Small real models and pictures that the tests of the encoders share."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from encoders import Encoder, load_encoder

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}


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


@pytest.fixture(scope="session")
def write_folder() -> Callable[..., Path]:
    def write(folder: Path, seed: int = 0, config: dict = TINY, preprocess: dict = PREPROCESS) -> Path:
        """Save a seeded random CLIP as open_clip itself lays a local folder out."""
        torch.manual_seed(seed)
        kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
        model = kind(**{name: value for name, value in config.items() if name != "custom_text"})
        folder.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
        (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, write_folder: Callable[..., Path]) -> Path:
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
