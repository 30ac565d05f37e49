"""Exporting the image tower of a loaded encoder: that of `lite`, as it is or fine-tuned.

Nothing is exported that was not compared: over the golden photographs every vector must have a cosine of at least
`LOWEST_COSINE` to that of the encoder, which decodes, resizes and computes by its own way.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn
from torch.nn import functional

from storage.files.layout import TOWER_WEIGHTS

from ..cpu_backends import golden_images
from ..errors import TowerError
from ..fast_preprocess import FastPreprocess
from ..lite import ConseTrunk, WideConseTrunk, fold_batch_norm
from ..preprocess import Preprocess, PreprocessConfig
from ..tower_export import keep_tower, near_enough, towers_in_fp32, write_tower
from ..tower_files import TowerDescription
from ..two_towers import TwoTowers
from .conv_net import Array, ConvArchitecture
from .tower import ImageTower, ImageTowerInfo, find_image_tower

if TYPE_CHECKING:
    from ..base import Encoder

# The layers of a block by the names of timm: with and without a layer that widens it first.
_LAYERS = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
_NARROW_LAYERS = {"depthwise": "conv_dw", "project": "conv_pw"}
_REFERENCE_BATCH = 4


def keep_image_tower(encoder: Encoder) -> TowerDescription:
    """Export the image tower of an encoder to the user's cache, unless it is there, and return its description.

    Raises:
        TowerError: As `keep_tower` raises it.
    """
    return keep_tower("image", encoder, find_image_tower, export_image_tower)


def export_image_tower(encoder: Encoder, folder: Path) -> ImageTowerInfo:
    """Write the image tower of an encoder to a new folder, compare it, and return what it says of itself.

    Raises:
        TowerError: It is of a kind that is not computed without torch, or its vectors differ.
        OSError: The disk refuses.
    """
    towers = towers_in_fp32(encoder, "image")
    info, weights = image_side(towers, encoder.fingerprint, encoder.dim)
    data = {TOWER_WEIGHTS: save(weights)}
    return write_tower(folder, info, data, lambda: compare(ImageTower.open(folder, "size"), towers, encoder.device))


def image_side(towers: TwoTowers, fingerprint: str, dim: int) -> tuple[ImageTowerInfo, dict[str, Array]]:
    """Return the description and the weights of a model's image tower.

    Raises:
        TowerError: It is of a kind that is not computed without torch; the message says what.
    """
    visual: Any = getattr(towers.model, "visual", None)
    trunk = getattr(visual, "trunk", None)
    if not isinstance(trunk, ConseTrunk) or len(visual.head):
        kind = type(visual if trunk is None else trunk).__name__
        raise TowerError(f"an image tower of the class {kind} is computed by torch alone")
    architecture, weights = _conv_weights(trunk, dim)
    info = ImageTowerInfo(
        fingerprint=fingerprint,
        spec=towers.spec,
        architecture=architecture,
        preprocess=PreprocessConfig.of(towers.preprocess),
        files={},
    )
    return info, weights


def compare(tower: ImageTower, towers: TwoTowers, device: str) -> float:
    """Return the lowest cosine between the vectors of a tower and those of the model, over the golden photographs.

    Raises:
        TowerError: It is below `LOWEST_COSINE`.
    """
    images = golden_images()
    fast, encode = FastPreprocess(Preprocess(towers.preprocess)), cast("Any", towers.model).encode_image
    pixels = torch.from_numpy(np.stack([fast(image) for image in images])).to(device)
    with torch.inference_mode():
        batches = torch.split(pixels, _REFERENCE_BATCH)
        features = torch.cat([encode(fast.scaled(batch)).float().cpu() for batch in batches])
        reference = functional.normalize(features, dim=-1).numpy()
    return near_enough(float(np.vecdot(tower.encode_images(images), reference).min()), towers.spec)


def _conv_weights(trunk: ConseTrunk, dim: int) -> tuple[ConvArchitecture, dict[str, Array]]:
    backbone: Any = copy.deepcopy(trunk.backbone)
    fold_batch_norm(backbone)
    stem = backbone.conv_stem
    weights = {"stem.weight": _array(stem.weight.flatten(1).T), "stem.bias": _array(stem.bias)}
    strides: list[int] = []
    last_blocks: list[int] = []
    for stage in backbone.blocks:
        for block in stage:
            layers = _LAYERS if hasattr(block, "conv_pwl") else _NARROW_LAYERS
            for name, theirs in layers.items():
                weights |= _layer(f"{len(strides)}.{name}", getattr(block, theirs))
            strides.append(int(block.conv_dw.stride[0]))
        last_blocks.append(len(strides) - 1)
    weights |= _layer("head", backbone.conv_head) | _layer("classifier", backbone.classifier)
    weights["class_vectors"] = _array(trunk.class_vectors)
    taps: tuple[int, ...] = ()
    if trunk.residual.weight.count_nonzero():
        weights["residual.weight"] = _array(trunk.residual.weight.T)
        if isinstance(trunk, WideConseTrunk):
            weights |= {"seen.mean": _array(trunk.seen_mean), "seen.scale": _array(trunk.seen_scale)}
            taps = tuple(last_blocks[-2:])
    made = ConvArchitecture(dim=dim, strides=tuple(strides), taps=taps, temperature=float(trunk.temperature.detach()))
    return made, weights


def _layer(name: str, layer: nn.Module) -> dict[str, Array]:
    weight: Any = layer.weight
    if isinstance(layer, nn.Conv2d):
        weight = weight[:, 0].permute(1, 2, 0) if layer.groups > 1 else weight[:, :, 0, 0]
    return {f"{name}.weight": _array(weight if weight.ndim == 3 else weight.T), f"{name}.bias": _array(layer.bias)}


def _array(tensor: Any) -> Array:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
