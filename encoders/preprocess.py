"""Preprocessing without torch: open_clip's evaluation transform, one RGB image to what an image tower takes.

`PreprocessConfig` is open_clip's configuration, `Preprocess` carries it out with Pillow and NumPy. What resizes faster
by torch, and makes batches, is `fast_preprocess`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

# Beyond this ratio of sides, "shortest" would blow a strip up to gigabytes before it crops the middle out.
_LONGEST_STRIP = 20
# A photograph is decoded at 1/2, 1/4 or 1/8 while both sides stay this many times the transform's output. At 4 the
# lowest cosine of 100 photographs was .9992; at 3.3 it was .995, at 2.2 .998.
MARGIN = 4.0

Resize = Callable[[Image.Image, tuple[int, int], Image.Resampling], Image.Image]
"""From an image, another (width, height) and a filter to the image at that size."""


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """How an image becomes what a model takes: open_clip's `preprocess_cfg`, with its defaults.

    Attributes:
        size: Height and width of what the model takes, in pixels.
        mode: `RGB`, which is all that there is.
        mean: Of the three channels, of values from 0 to 1.
        std: Likewise, the standard deviations.
        interpolation: The filter that resizes.
        resize_mode: `shortest` side to the size and the middle cropped out, `longest` side and padded, or `squash`.
        fill_color: The grey of what is padded, 0 to 255.
    """

    size: tuple[int, ...] = (224, 224)
    mode: Literal["RGB"] = "RGB"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PreprocessConfig:
        """Return the configuration that open_clip's spelling of it says: a size or a mean of one number is for all."""
        values: dict[str, Any] = {one.name: given[one.name] for one in fields(cls) if given.get(one.name) is not None}
        for name, count in (("size", 2), ("mean", 3), ("std", 3)):
            if name in values:
                value = values[name]
                values[name] = tuple(value) if isinstance(value, list | tuple) else (value,) * count
        if values.get("interpolation") == "random":
            values["interpolation"] = "bicubic"  # random in training alone
        return cls(**values)

    @property
    def pixel_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        height, width = self.size
        return 3, height, width


class Preprocess:
    """One RGB image to a (3, H, W) float32 array, equal bit for bit to open_clip's transform. Thread-safe.

    What follows resizing, cropping and padding (to float, scale, mean, std) maps each byte value of a channel to one
    float, so it is looked up in a table.

    Attributes:
        config: The configuration.
        table: (3, 256) float32: what each byte becomes in each channel.
    """

    def __init__(self, config: Mapping[str, Any] | PreprocessConfig) -> None:
        self.config = config if isinstance(config, PreprocessConfig) else PreprocessConfig.of(config)
        self.table = _byte_table(self.config)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the image as (3, H, W) float32."""
        return self.scaled(self.byte_pixels(image))

    def byte_pixels(self, image: Image.Image) -> np.ndarray:
        """Return the image as (3, H, W) uint8."""
        return np.ascontiguousarray(np.asarray(self.fitted(image, Image.Image.resize)).transpose(2, 0, 1))

    def scaled(self, pixels: np.ndarray) -> np.ndarray:
        """Return (3, H, W) bytes as the float32 that the model takes."""
        ready = np.empty(pixels.shape, dtype=np.float32)
        for channel in range(3):
            np.take(self.table[channel], pixels[channel], out=ready[channel], mode="clip")
        return ready

    def fitted(self, image: Image.Image, resize: Resize) -> Image.Image:
        """Return the image resized, cropped and padded to what the model takes.

        Args:
            image: In RGB.
            resize: Resizes it; what torch does otherwise than Pillow is a rounding.
        """
        image = self.limit_aspect(image)
        width, height = self.target(*image.size)
        if (width, height) != image.size:
            image = resize(image, (width, height), _FILTERS[self.config.interpolation])
        return _cropped_or_padded(image, self.config)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that an image is resized to, before it is cropped or padded."""
        to_height, to_width = self.config.size
        if self.config.resize_mode == "squash":
            return to_width, to_height
        if self.config.resize_mode == "shortest" and to_width == to_height:
            # Torchvision rounds down here, and open_clip's own steps to the nearest.
            long = int(to_width * max(width, height) / min(width, height))
            return (to_width, long) if width <= height else (long, to_width)
        pick = max if self.config.resize_mode == "longest" else min
        ratio = pick(height / to_height, width / to_width)
        return round(width / ratio), round(height / ratio)

    def limit_aspect(self, image: Image.Image) -> Image.Image:
        """Return the image, a long strip cut or shrunk so that no step makes gigabytes or a side of 0 pixels."""
        short = min(image.size)
        if not self.is_strip(*image.size):
            return image
        if self.config.resize_mode == "longest":
            return _shrunk_to_longest(image, max(self.config.size))
        return _middle(image, short * _LONGEST_STRIP)

    def is_strip(self, width: int, height: int) -> bool:
        """Return whether `limit_aspect` changes an image of this size."""
        return max(width, height) > _LONGEST_STRIP * min(width, height) and self.config.resize_mode != "squash"

    def shrink(self, width: int, height: int) -> float:
        """Return by which factor an image may be divided before this transform; 1 where it should stay whole.

        The smaller one of both ways round, as a photograph may be turned after it was decoded.
        """
        ratios = [self._ratio(*size) for size in ((width, height), (height, width))]
        return max(1.0, min(ratios) / MARGIN)

    def _ratio(self, width: int, height: int) -> float:
        """Return how much smaller an image becomes; of its two sides the one that shrinks less."""
        to_height, to_width = self.config.size
        sides = (width / to_width, height / to_height)
        return max(sides) if self.config.resize_mode == "longest" else min(sides)


_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def _byte_table(config: PreprocessConfig) -> np.ndarray:
    """Return (3, 256) float32: what the model takes for each byte value in each channel."""
    ramp = np.arange(256, dtype=np.float32) / np.float32(255)
    mean, std = np.array(config.mean, dtype=np.float32), np.array(config.std, dtype=np.float32)
    table: np.ndarray = (ramp - mean[:, None]) / std[:, None]
    return table


@dataclass(frozen=True)
class Fit:
    """How an image that was resized comes to the size that a model takes: first padded, then cropped.

    Attributes:
        border: Pixels of padding at the left, top, right and bottom.
        fill: Their grey.
        left: Where the crop begins, in the padded image.
        top: Likewise.
    """

    border: tuple[int, int, int, int]
    fill: int
    left: int
    top: int

    @classmethod
    def of(cls, width: int, height: int, config: PreprocessConfig) -> Fit:
        """Return that of an image of this size."""
        to_height, to_width = config.size
        across, down = max(0, to_width - width), max(0, to_height - height)
        return cls(
            border=(across // 2, down // 2, (across + 1) // 2, (down + 1) // 2),
            fill=config.fill_color if config.resize_mode == "longest" else 0,
            left=round((width + across - to_width) / 2),
            top=round((height + down - to_height) / 2),
        )


def _cropped_or_padded(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    height, width = config.size
    fit = Fit.of(*image.size, config)
    if any(fit.border):
        image = ImageOps.expand(image, fit.border, (fit.fill,) * 3)
    if image.size == (width, height):
        return image
    return image.crop((fit.left, fit.top, fit.left + width, fit.top + height))


def _shrunk_to_longest(image: Image.Image, size: int) -> Image.Image:
    scale = size / max(image.size)
    if min(image.size) * scale >= 1:
        return image
    target = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(target, Image.Resampling.BICUBIC)


def _middle(image: Image.Image, length: int) -> Image.Image:
    width, height = min(image.width, length), min(image.height, length)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
