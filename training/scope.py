"""Which parameters are trained, at which learning rate and with which decay."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

# The number of a block in a parameter's name, as open_clip, timm and transformers write it.
_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|layers?|stages|h)\.(\d+)\.|(?:^|\.)layer(\d)\.")
# What comes before the blocks.
_STEM = re.compile(
    r"(?:^|\.)(?:conv1|conv2|conv3|bn1|bn2|bn3|conv_stem|stem|patch_embed|class_embedding|cls_token|pos_embed|"
    r"positional_embedding|token_embedding|embeddings|ln_pre|norm_pre)(?:\.|$)"
)
# EfficientNets end in one more convolution, which belongs to the last stage.
_LAST = re.compile(r"backbone\.(?:conv_head|bn2)\.")
_NO_DECAY = re.compile(r"(?:positional_embedding|class_embedding|cls_token|pos_embed|logit_scale|logit_bias)$")


def depths(model: nn.Module) -> dict[str, int]:
    """Return for each parameter how many blocks lie above it, counting its own: 0 for heads, most for the stem."""
    names = [name for name, _ in model.named_parameters()]
    highest = {side: max((_block(name) for name in names if _side(name) == side), default=-1) for side in _SIDES}
    return {name: _depth(name, highest[_side(name)]) for name in names}


_SIDES = ("image", "text", "both")


def _side(name: str) -> str:
    if name.startswith("visual."):
        return "image"
    return "both" if name in ("logit_scale", "logit_bias") else "text"


def _block(name: str) -> int:
    found = _BLOCK.search(name)
    return int(found[1] or found[2]) if found else -1


def _depth(name: str, highest: int) -> int:
    if _LAST.search(name):
        return 1
    block = _block(name)
    if block >= 0:
        return highest - block + 1
    return highest + 2 if _STEM.search(name) else 0


def choose(model: nn.Module, image_blocks: int | None, text_blocks: int | None) -> dict[str, nn.Parameter]:
    """Freeze all but the heads and the last blocks of each tower; return what is trained, by name.

    Args:
        model: An open_clip model.
        image_blocks: How many blocks of the image tower; None for the whole tower.
        text_blocks: The same for the text tower.
    """
    limits = {"image": image_blocks, "text": text_blocks, "both": None}
    found = depths(model)
    for name, parameter in model.named_parameters():
        limit = limits[_side(name)]
        parameter.requires_grad_(limit is None or found[name] <= limit)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def groups(
    model: nn.Module, trained: Iterable[str], rates: tuple[float, float, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: a learning rate for each depth, no decay on norms, biases and embeddings.

    Args:
        model: The model whose parameters are trained.
        trained: Their names.
        rates: (heads, last block, factor from one block to the one below it). The factor is 0.65 to 1: lower layers
            hold what is common to all pictures and need to change least.
        weight_decay: For matrices and filters.
    """
    head, block, factor = rates
    found, parameters = depths(model), dict(model.named_parameters())
    table: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name in trained:
        depth = found[name]
        rate = head if depth == 0 else block * factor ** (depth - 1)
        decays = parameters[name].ndim > 1 and not _NO_DECAY.search(name)
        table.setdefault((rate, weight_decay if decays else 0.0), []).append(parameters[name])
    return [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), members in table.items()
    ]
