"""open_clip's own evaluation transform, with the slow half of it done by table look-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import ToTensor

# Beyond this ratio of sides, "shortest" would blow a strip up to gigabytes before it crops the middle out.
_LONGEST_STRIP = 20


class Preprocess:
    """One RGB picture to a (3, H, W) float32 array, equal bit for bit to open_clip's transform. Safe from many threads.

    Resizing and cropping are open_clip's own steps. What follows them (to float, scale, mean, std) maps each byte value
    of a channel to one float, so it is looked up in a table made by open_clip's own steps.

    Attributes:
        config: open_clip's configuration.
        geometry: The steps that resize, crop and pad.
        table: (3, 256) float32: what each byte becomes in each channel.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = PreprocessCfg(**config)
        steps = image_transform_v2(self.config, is_train=False).transforms
        to_tensor = next(i for i, step in enumerate(steps) if isinstance(step, ToTensor))
        self.geometry: list[Callable[[Image.Image], Image.Image]] = steps[:to_tensor]
        self.table = _byte_table(steps[to_tensor:])

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the picture as (3, H, W) float32."""
        image = self.tame(image)
        for step in self.geometry:
            image = step(image)
        return self._look_up(np.asarray(image))

    def _look_up(self, pixels: np.ndarray) -> np.ndarray:
        height, width, _ = pixels.shape
        ready = np.empty((3, height, width), dtype=np.float32)
        for channel in range(3):
            np.take(self.table[channel], pixels[:, :, channel], out=ready[channel], mode="clip")
        return ready

    def tame(self, image: Image.Image) -> Image.Image:
        """Return usual pictures as they are, and long strips so that no step needs absurd memory or 0 pixels."""
        long, short = max(image.size), min(image.size)
        if long <= _LONGEST_STRIP * short or self.config.resize_mode == "squash":
            return image
        if self.config.resize_mode == "longest":
            return _never_thinner_than_a_pixel(image, max(self.config.input_size[1:]))
        return _middle(image, short * _LONGEST_STRIP)


def _byte_table(steps: list[Any]) -> np.ndarray:
    """Return (3, 256) float32: what the steps make of each byte value in each channel."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    value: Any = Image.fromarray(ramp)
    for step in steps:
        value = step(value)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"the transform ends in {type(value).__name__}, not in a tensor")
    return np.ascontiguousarray(value.numpy()[:, :, 0])


def _never_thinner_than_a_pixel(image: Image.Image, size: int) -> Image.Image:
    scale = size / max(image.size)
    if min(image.size) * scale >= 1:
        return image
    target = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(target, Image.Resampling.BICUBIC)


def _middle(image: Image.Image, length: int) -> Image.Image:
    width, height = min(image.width, length), min(image.height, length)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
