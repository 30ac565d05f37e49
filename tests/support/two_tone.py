"""Pictures of two colours with captions that name them, and tiny untrained CLIPs that can learn which is which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from colour import COLOURS
from PIL import Image
from safetensors.torch import save_file

TINY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}


def save_tiny(folder: Path, seed: int = 0) -> str:
    """Write a seeded random CLIP as an open_clip folder; return its spec."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    save_file(open_clip.CLIP(**TINY).state_dict(), folder / "open_clip_model.safetensors")
    config = json.dumps({"model_cfg": TINY, "preprocess_cfg": PREPROCESS})
    (folder / "open_clip_config.json").write_text(config, encoding="utf-8")
    return f"local-dir:{folder}"


def two_tone(folder: Path, count: int) -> tuple[list[Path], list[list[str]]]:
    """Write `count` pictures, left half one colour and right half another; return paths and two captions each."""
    names = [(left, right) for left in COLOURS for right in COLOURS if left != right]
    order = np.random.default_rng(0).permutation(len(names))[:count]
    folder.mkdir(parents=True, exist_ok=True)
    paths, captions = [], []
    for number in order:
        left, right = names[number]
        pixels = np.empty((32, 32, 3), np.uint8)
        pixels[:, :16], pixels[:, 16:] = COLOURS[left], COLOURS[right]
        paths.append(folder / f"{left}_{right}.png")
        Image.fromarray(pixels).save(paths[-1])
        captions.append([f"{left} beside {right}", f"on the left {left} and on the right {right}"])
    return paths, captions
