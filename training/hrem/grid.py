"""The cells of a picture that a convolutional or transformer trunk sees: grid features in the place of regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from encoders import EncoderError
from encoders.conse import ConseTrunk
from encoders.device import Placement
from encoders.preprocess import Preprocess
from encoders.pretrained import load_towers

TIMM = "timm:"
# Of `lite`'s trunk the last two stages, of 192 and 320 channels: what a classifier has no use for, such as what people
# do, is lost in the features after them.
STAGES = 2


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """What turns pictures into maps.

    Attributes:
        spec: Its name.
        preprocess: A picture to (3, H, W) float32.
        maps: (n, 3, H, W) to (n, channels, rows, columns).
        placement: Where it runs.
    """

    spec: str
    preprocess: Callable[[Image.Image], NDArray[np.float32]]
    maps: Callable[[torch.Tensor], torch.Tensor]
    placement: Placement

    def regions(self, images: list[Image.Image], grid: int | None) -> NDArray[np.float32]:
        """Return (n, regions, channels); with `grid` the maps are averaged into grid x grid cells."""
        pixels = torch.from_numpy(np.stack([self.preprocess(image) for image in images])).to(self.placement.device)
        place = self.placement
        with torch.inference_mode(), torch.autocast(place.kind, dtype=place.dtype, enabled=place.precision != "fp32"):
            maps = self.maps(pixels).float()
        if grid is not None:
            maps = functional.adaptive_avg_pool2d(maps, grid)
        cells: NDArray[np.float32] = maps.flatten(2).transpose(1, 2).cpu().numpy()
        return cells


def load_trunk(spec: str, placement: Placement) -> Trunk:
    """Return the trunk of an encoder (`lite`, `ARCH/TAG`, `local-dir:PATH`, ...) or of timm (`timm:NAME`).

    Raises:
        EncoderError: It cannot be loaded, or gives no maps.
    """
    if spec.startswith(TIMM):
        return _timm(spec, placement)
    towers = load_towers(spec)
    visual: Any = towers.model.visual
    visual.to(placement.device)
    trunk = getattr(visual, "trunk", None)
    if not isinstance(trunk, ConseTrunk) and not hasattr(visual, "forward_intermediates"):
        raise EncoderError(f"encoder {spec!r} gives no maps of its pictures; take lite, a ViT or ResNet, or timm:NAME")
    maps = _conse_maps(trunk) if isinstance(trunk, ConseTrunk) else _last_of(visual)
    return Trunk(spec=spec, preprocess=_preprocess(towers.preprocess), maps=maps, placement=placement)


def _timm(spec: str, placement: Placement) -> Trunk:
    import timm
    from timm.data.config import resolve_model_data_config

    try:
        model: Any = timm.create_model(spec.removeprefix(TIMM), pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"cannot load {spec!r}: {words}; give a timm model whose weights can be had, or lite"
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise EncoderError(f"{spec!r} gives no maps of its pictures; take a ResNet, ConvNeXt, EfficientNet or ViT")
    found: Any = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    config = {
        "size": found["input_size"][1:], "mode": "RGB", "mean": found["mean"], "std": found["std"],
        "interpolation": found["interpolation"], "resize_mode": "squash", "fill_color": 0,
    }  # fmt: skip
    model.eval().to(placement.device)

    def maps(pixels: torch.Tensor) -> torch.Tensor:
        levels: list[torch.Tensor] = model.forward_intermediates(pixels, indices=1, intermediates_only=True)
        return levels[-1]

    return Trunk(spec=spec, preprocess=_preprocess(config), maps=maps, placement=placement)


def _preprocess(config: Mapping[str, Any]) -> Callable[[Image.Image], NDArray[np.float32]]:
    return Preprocess(config)


def _conse_maps(trunk: ConseTrunk) -> Callable[[torch.Tensor], torch.Tensor]:
    def maps(pixels: torch.Tensor) -> torch.Tensor:
        backbone = trunk.backbone
        levels = [backbone.bn1(backbone.conv_stem(pixels))]
        for block in backbone.blocks:
            levels.append(block(levels[-1]))
        return torch.cat(levels[-STAGES:], dim=1)

    return maps


def _last_of(visual: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def maps(pixels: torch.Tensor) -> torch.Tensor:
        found = visual.forward_intermediates(pixels, indices=1, intermediates_only=True)
        last: torch.Tensor = found["image_intermediates"][-1]
        return last

    return maps
