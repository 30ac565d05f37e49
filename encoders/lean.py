"""A model made ready for inference only: batch norms folded, weights in the type that they are computed in."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from .conse import ConseTrunk, fold_batch_norm
from .device import Placement


def ready_for_inference(model: nn.Module, placement: Placement) -> Any:
    """Return the model on its device, faster and with vectors equal up to rounding; the model given is used up."""
    if isinstance(getattr(model.visual, "trunk", None), ConseTrunk):
        model = _with_folded_norms(model)
    if placement.precision != "fp32":
        _cast_weights(model, placement.dtype)
    return model.to(memory_format=torch.channels_last).to(placement.device)


def _with_folded_norms(model: nn.Module) -> nn.Module:
    lean = copy.copy(model)
    lean._modules = {**model._modules, "visual": copy.deepcopy(model._modules["visual"])}
    trunk: Any = lean.visual.trunk  # type: ignore[union-attr]
    fold_batch_norm(trunk.backbone)
    return lean


def _cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast what autocast would cast in each forward pass: on a CPU those copies cost more than the arithmetic.

    Norms, embeddings and the residual stream stay in fp32, as under autocast.
    """
    kept = {id(part) for trunk in model.modules() if isinstance(trunk, ConseTrunk) for part in trunk.exact_parts()}
    for part in model.modules():
        if id(part) in kept:
            continue
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            part.to(dtype)
        elif isinstance(part, nn.MultiheadAttention):
            _cast_own(part, dtype)


def _cast_own(part: nn.MultiheadAttention, dtype: torch.dtype) -> None:
    for parameter in part.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)
