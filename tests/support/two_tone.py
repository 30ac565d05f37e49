"""Pictures of two colours with captions that name them, and tiny untrained CLIPs that can learn which is which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from colour import COLOURS
from PIL import Image
from tiny_clip import write_folder


def save_tiny(folder: Path, seed: int = 0) -> str:
    """Write a seeded random CLIP as an open_clip folder; return its spec."""
    return f"local-dir:{write_folder(folder, seed)}"


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
