"""Preprocessing: open_clip's evaluation transform, exact (`Preprocess`) and fast on bytes (`FastPreprocess`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, ResizeKeepRatio, image_transform_v2
from PIL import Image
from torch.nn import functional
from torchvision.transforms import InterpolationMode, Resize, ToTensor

# Beyond this ratio of sides, "shortest" would blow a strip up to gigabytes before it crops the middle out.
_LONGEST_STRIP = 20


class Preprocess:
    """One RGB image to a (3, H, W) float32 array, equal bit for bit to open_clip's transform. Thread-safe.

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
        """Return the image as (3, H, W) float32."""
        image = self.limit_aspect(image)
        for step in self.geometry:
            image = step(image)
        return self._look_up(np.asarray(image))

    def _look_up(self, pixels: np.ndarray) -> np.ndarray:
        height, width, _ = pixels.shape
        ready = np.empty((3, height, width), dtype=np.float32)
        for channel in range(3):
            np.take(self.table[channel], pixels[:, :, channel], out=ready[channel], mode="clip")
        return ready

    def limit_aspect(self, image: Image.Image) -> Image.Image:
        """Return the image, a long strip cut or shrunk so that no step makes gigabytes or a side of 0 pixels."""
        long, short = max(image.size), min(image.size)
        if long <= _LONGEST_STRIP * short or self.config.resize_mode == "squash":
            return image
        if self.config.resize_mode == "longest":
            return _shrunk_to_longest(image, max(self.config.input_size[1:]))
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


# A photograph is decoded at 1/2, 1/4 or 1/8 while both sides stay this many times the transform's output. At 4 the
# lowest cosine of 100 photographs was .9992; at 3.3 it was .995, at 2.2 .998.
MARGIN = 4.0
# Torch resizes bytes 5 to 9 times as fast as Pillow, with the same filters; for others it differs, or has none.
_FILTERS = {InterpolationMode.BICUBIC: "bicubic", InterpolationMode.BILINEAR: "bilinear"}


class FastPreprocess:
    """One RGB image to (3, H, W) uint8, and a batch of those to float32. Thread-safe.

    A byte differs from that of `Preprocess` by a rounding, as torch's filter weights have 16 bits and Pillow's 22; by
    more in noise alone, where a filter overshoots white or black between its two passes.

    Attributes:
        pixel_shape: (3, H, W).
        scale: (1, 3, 1, 1) float32; with `shift`, what a byte of each channel becomes: byte * scale + shift.
        shift: (1, 3, 1, 1) float32.
    """

    def __init__(self, exact: Preprocess) -> None:
        self._exact = exact
        self.pixel_shape = tuple(exact.config.input_size)
        # Each channel's table is a straight line.
        low, high = exact.table[:, 0], exact.table[:, 255]
        self.scale = torch.from_numpy((high - low) / 255).reshape(1, 3, 1, 1)
        self.shift = torch.from_numpy(low.copy()).reshape(1, 3, 1, 1)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the image as (3, H, W) uint8."""
        image = self._exact.limit_aspect(image)
        for step in self._exact.geometry:
            image = _resized(step, image) if _is_fast(step) else step(image)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def floats(self, image: Image.Image) -> np.ndarray:
        """Return the image as (3, H, W) float32: what `scaled` makes of its bytes."""
        ready: np.ndarray = self.scaled(torch.from_numpy(self(image))[None])[0].contiguous().numpy()
        return ready

    def scaled(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (n, 3, H, W) bytes as the float32 that `Preprocess` would give, on the batch's own device."""
        scale, shift = self.scale.to(batch.device), self.shift.to(batch.device)
        wide = batch.to(torch.float32, memory_format=torch.channels_last)
        return wide.mul_(scale).add_(shift)

    def bytes_of(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the (n, 3, H, W) bytes that `scaled` or `floats` made a batch of; bytes are returned as they are."""
        if batch.dtype == torch.uint8:
            return batch
        return ((batch - self.shift) / self.scale).round().clamp(0, 255).to(torch.uint8)

    def shrink(self, width: int, height: int) -> float:
        """Return by which factor an image may be divided before this transform; 1 where it should stay whole.

        The smaller one of both ways round, as a photograph may be turned after it was decoded.
        """
        ratios = [self._ratio(*size) for size in ((width, height), (height, width))]
        return max(1.0, min(ratios) / MARGIN)

    def _ratio(self, width: int, height: int) -> float:
        """Return how much smaller an image becomes; of its two sides the one that shrinks less."""
        target_height, target_width = self._exact.config.input_size[1:]
        sides: tuple[float, float] = (width / target_width, height / target_height)
        return max(sides) if self._exact.config.resize_mode == "longest" else min(sides)


def _is_fast(step: Any) -> bool:
    return isinstance(step, Resize | ResizeKeepRatio) and step.interpolation in _FILTERS


def _resized(step: Any, image: Image.Image) -> Image.Image:
    height, width = _target(step, image)
    if (width, height) == image.size:
        return image
    # A view of rows of pixels as channels-last planes: torch's fast path for bytes.
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    small = functional.interpolate(planes, size=(height, width), mode=_FILTERS[step.interpolation], antialias=True)
    return Image.fromarray(small[0].permute(1, 2, 0).contiguous().numpy())


def _target(step: Any, image: Image.Image) -> tuple[int, int]:
    """Return height and width as the step itself computes them."""
    if isinstance(step, ResizeKeepRatio):
        height, width = step.get_params(image, step.size, step.longest)
        return height, width
    if not isinstance(step.size, int):
        height, width = step.size
        return height, width
    short, long = sorted(image.size)
    other = int(step.size * long / short)
    return (other, step.size) if image.width <= image.height else (step.size, other)
