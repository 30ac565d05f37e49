"""The image tower of an encoder, opened from disk: images to unit vectors by NumPy and Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from storage.files.layout import Verify

from ..base import ImageLike
from ..errors import TowerError
from ..images import DEFAULT_LIMITS, DecodedImage, DecodeLimits, decode_image
from ..preprocess import Preprocess, PreprocessConfig
from ..tower_files import REMEDY, Rows, TowerDescription, explained, find_tower, mapped_weights
from .conv_net import ConvArchitecture, ConvNet

_MOST_PIXELS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ImageTowerInfo(TowerDescription):
    """What an image tower says of itself.

    Attributes:
        architecture: What is computed.
        preprocess: How images become what it takes.
    """

    architecture: ConvArchitecture
    preprocess: PreprocessConfig


class ImageTower:
    """An image tower that is open: images to unit vectors, by NumPy and Pillow alone. Safe from many threads.

    It decodes and prepares images as an `Encoder` does (`open_image`, `byte_pixels`), and encodes them alike.

    Attributes:
        info: What it says of itself.
        dim: Length of its vectors.
    """

    def __init__(self, info: ImageTowerInfo, net: ConvNet) -> None:
        self.info = info
        self.dim = info.architecture.dim
        self._net = net
        self._preprocess = Preprocess(info.preprocess)

    @classmethod
    def open(cls, folder: Path, verify: Verify = "full") -> ImageTower:
        """Open the tower in a folder, its weights mapped and not read.

        Raises:
            TowerError: A file is missing or damaged.
        """
        with explained("image", folder):
            info = ImageTowerInfo.read(folder, "image", verify)
            config = info.preprocess
            lengths = [len(values) for values in (config.size, config.mean, config.std)]
            if lengths != [2, 3, 3] or not 0 < config.size[0] * config.size[1] <= _MOST_PIXELS:
                raise TowerError(f"the image tower in {folder} prepares images of {config.size} pixels; {REMEDY}")
            return cls(info, ConvNet(info.architecture, mapped_weights(folder)))

    def open_image(self, source: ImageLike, limits: DecodeLimits = DEFAULT_LIMITS) -> DecodedImage[Image.Image]:
        """Return an image decoded as large as this tower needs it; its width and height are those of the file.

        Raises:
            ImageError: It cannot be decoded.
        """
        return decode_image(source, limits, shrink=self._preprocess.shrink)

    def byte_pixels(self, image: Image.Image) -> np.ndarray:
        """Return one RGB image as (3, H, W) uint8."""
        return self._preprocess.byte_pixels(image)

    def encode_pixels(self, pixels: np.ndarray) -> Rows:
        """Return (n, dim) float32 unit rows for (n, 3, H, W) uint8 images, in the order given.

        Raises:
            TowerError: A vector is not finite.
        """
        rows = np.empty((len(pixels), self.dim), dtype=np.float32)
        for row, image in zip(rows, pixels, strict=True):
            row[:] = self._net.encode(self._preprocess.scaled(image))
        if not np.isfinite(rows).all():
            raise TowerError(f"the image tower of {self.info.spec!r} gave values that are not finite; {REMEDY}")
        return rows

    def encode_images(self, images: Sequence[ImageLike]) -> Rows:
        """Return (n, dim) float32 unit rows for images, in the order given.

        Raises:
            ImageError: One of them cannot be decoded.
        """
        return self.encode_pixels(np.stack([self.byte_pixels(self.open_image(image).pixels) for image in images]))


def find_image_tower(fingerprint: str, dim: int, inside: Path | None = None) -> ImageTower | None:
    """Return the image tower of an encoder: that inside a version of an index, else that in the user's cache.

    Args:
        fingerprint: That of the encoder.
        dim: Length of the vectors that it must give.
        inside: The folder of a tower that was checked against its checksums already; None for none.

    Raises:
        TowerError: There is one, and it is damaged or of another encoder.
    """
    return find_tower("image", ImageTower.open, fingerprint, dim, inside)
