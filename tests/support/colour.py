"""A real encoder without weights: pictures by their mean colours, texts by the colours that they name.

It is quick, deterministic, and puts a red picture next to the words "a red square": enough to test everything around
an encoder with real decoding, real batches and real results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from encoders import decode_image
from storage import EncoderInfo

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 40),
    "blue": (30, 40, 210),
    "yellow": (230, 220, 40),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
    "orange": (240, 140, 20),
    "purple": (130, 30, 150),
}
GRID = 4
DIM = GRID * GRID * 3


class ColourEncoder:
    """Vectors are the mean colours of a 4 x 4 grid, minus grey, at unit length."""

    spec = "colour"
    dim = DIM
    device = "cpu"
    precision = "fp32"
    batch_size = 8

    def __init__(self, name: str = "colour") -> None:
        self.spec = name
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self.images_encoded = 0
        self.texts_encoded = 0

    @property
    def info(self) -> EncoderInfo:
        """What an index remembers."""
        return EncoderInfo(spec=self.spec, dim=self.dim, fingerprint=self.fingerprint)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return (3, 4, 4) float32."""
        small = image.resize((GRID, GRID), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32).transpose(2, 0, 1)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return (n, 48) unit rows."""
        self.images_encoded += len(pixels)
        return unit(np.asarray(pixels).transpose(0, 2, 3, 1).reshape(len(pixels), -1) - 127.3)

    def encode_images(self, images: Sequence[Image.Image | Path | str | bytes]) -> np.ndarray:
        """Return (n, 48) unit rows."""
        return self.encode_pixels(np.stack([self.preprocess(decode_image(image).pixels) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, 48) unit rows: the mean of the colours named, and a little that depends on the words."""
        self.texts_encoded += len(texts)
        return unit(np.stack([text_colours(text) for text in texts]))


def text_colours(text: str) -> np.ndarray:
    """Return (48,) float32 before scaling."""
    named = [colour for name, colour in COLOURS.items() if name in text.lower()] or [(128, 128, 128)]
    base = np.tile(np.mean(named, axis=0), GRID * GRID) - 127.3
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return (base + np.random.default_rng(seed).normal(0, 2, DIM)).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows at unit length, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def paint(path: Path, colour: str, size: tuple[int, int] = (40, 30), noise: int = 0) -> Path:
    """Write a picture of one colour, with a little noise so that no two are alike."""
    pixels = np.full((size[1], size[0], 3), COLOURS[colour], dtype=np.int16)
    pixels += np.random.default_rng(noise).integers(-9, 10, pixels.shape, dtype=np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def paint_folder(folder: Path, count: int = 40, captions: bool = True) -> Path:
    """Write `count` pictures in all colours; each with two captions in a sidecar file."""
    names = list(COLOURS)
    for number in range(count):
        colour = names[number % len(names)]
        path = paint(folder / colour / f"{number:04}.png", colour, noise=number)
        if captions:
            path.with_suffix(".txt").write_text(f"a {colour} square, number {number}\nsomething {colour}\n", "utf-8")
    return folder
