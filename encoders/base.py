"""What every encoder offers, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from storage.schema import EncoderInfo

if TYPE_CHECKING:
    import torch

ImageLike = Image.Image | Path | str | bytes
"""An image as `decode_image` takes it: a PIL image, a path, or the bytes of a file."""


class Encoder(Protocol):
    """A two-tower model: images and texts to unit vectors of one space. Safe from many threads.

    Attributes:
        spec: The string that loads this encoder again from any working directory.
        dim: Length of its vectors.
        fingerprint: SHA-256 over weights, preprocessing, tokenizer, dim and normalisation; the same for the same model
            on another device or at another precision.
        device: Where it runs, e.g. `cpu` or `cuda`.
        precision: `fp32`, `bf16` or `fp16`.
        batch_size: Images that one call is best given, and a quarter of the texts; what one forward pass takes at most.
            Lower it where a GPU runs out of memory.
    """

    spec: str
    dim: int
    fingerprint: str
    device: str
    precision: str
    batch_size: int

    @property
    def info(self) -> EncoderInfo:
        """What an index remembers of this encoder."""

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return one RGB image as the model wants it: (3, H, W) float32. Meant for decode threads; needs no GPU."""

    def encode_pixels(self, pixels: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return (n, dim) float32 unit rows for (n, 3, H, W) preprocessed images, in the order given."""

    def encode_images(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for images, in the order given.

        Raises:
            ImageError: Where one of them cannot be decoded.
        """

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for texts, in the order given; what is too long for the model is cut.

        Texts of like length share a batch, so a thousand a call are faster than a thousand calls of one batch each.
        """


def backend_of(encoder: Encoder) -> str:
    """The library that computes an encoder's images: torch, unless it says otherwise."""
    return str(getattr(encoder, "backend", "torch"))


def plain_array(value: Any) -> Any:
    """Return a tensor of torch as an array, whatever its type and device; everything else as it is."""
    if type(value).__module__.partition(".")[0] != "torch" or not hasattr(value, "detach"):
        return value
    tensor = value.detach()
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
