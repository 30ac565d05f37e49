"""open_clip's evaluation transform, quick: bytes instead of floats, resized by torch, from photographs decoded small.

Its vectors are measured against those of `Preprocess` after a full decode: cosine above 0.999 for every photograph
(`benchmarks/encode.py`, `docs/encode.md`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from open_clip.transform import ResizeKeepRatio
from PIL import Image
from torch.nn import functional
from torchvision.transforms import InterpolationMode, Resize

from .preprocess import Preprocess

# A photograph is decoded at 1/2, 1/4 or 1/8 while both sides stay so many times what the transform makes of them. At 4
# the lowest cosine of 100 photographs was .9992; at 3.3 it was .995, at 2.2 .998.
MARGIN = 4.0
# Torch resizes bytes 5 to 9 times as fast as Pillow, by the same filters; other ones it does otherwise or not at all.
_FILTERS = {InterpolationMode.BICUBIC: "bicubic", InterpolationMode.BILINEAR: "bilinear"}


class QuickPreprocess:
    """One RGB picture to (3, H, W) uint8, and a batch of those to float32. Safe from many threads.

    A byte differs from that of `Preprocess` by a rounding, as torch's filter weights have 16 bits and Pillow's 22; by
    more in noise alone, where a filter overshoots white or black between its two passes.
    """

    def __init__(self, exact: Preprocess) -> None:
        self._exact = exact
        # Each channel's table is a straight line.
        low, high = exact.table[:, 0], exact.table[:, 255]
        self._scale = torch.from_numpy((high - low) / 255).reshape(1, 3, 1, 1)
        self._shift = torch.from_numpy(low.copy()).reshape(1, 3, 1, 1)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the picture as (3, H, W) uint8."""
        image = self._exact.tame(image)
        for step in self._exact.geometry:
            image = _resized(step, image) if _is_quick(step) else step(image)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def floats(self, image: Image.Image) -> np.ndarray:
        """Return the picture as (3, H, W) float32: what `scaled` makes of its bytes."""
        ready: np.ndarray = self.scaled(torch.from_numpy(self(image))[None])[0].contiguous().numpy()
        return ready

    def scaled(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (n, 3, H, W) bytes as the float32 that `Preprocess` would give, on the batch's own device."""
        scale, shift = self._scale.to(batch.device), self._shift.to(batch.device)
        wide = batch.to(torch.float32, memory_format=torch.channels_last)
        return wide.mul_(scale).add_(shift)

    def shrink(self, width: int, height: int) -> float:
        """Return by how much a picture may be divided before this transform; 1 where it should stay whole.

        The smaller one of both ways round, as a photograph may be turned after it was decoded.
        """
        ratios = [self._ratio(*size) for size in ((width, height), (height, width))]
        return max(1.0, min(ratios) / MARGIN)

    def _ratio(self, width: int, height: int) -> float:
        """Return how much smaller a picture becomes; of its two sides the one that shrinks less."""
        target_height, target_width = self._exact.config.input_size[1:]
        sides: tuple[float, float] = (width / target_width, height / target_height)
        return max(sides) if self._exact.config.resize_mode == "longest" else min(sides)


def _is_quick(step: Any) -> bool:
    return isinstance(step, Resize | ResizeKeepRatio) and step.interpolation in _FILTERS


def _resized(step: Any, image: Image.Image) -> Image.Image:
    height, width = _target(step, image)
    if (width, height) == image.size:
        return image
    # A view of rows of pixels as channels-last planes: torch's quick path for bytes.
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
