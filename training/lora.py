"""Low-rank adapters on the weights of linear and attention layers.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022): W + (alpha / rank) B A, where only A and B
are trained and B starts at zero. As a parametrization of the weight it reaches PyTorch's own attention too, which
reads its weights without calling a layer, and it is merged by taking the parametrization off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.utils import parametrize

_WEIGHTS = {nn.Linear: ("weight",), nn.MultiheadAttention: ("in_proj_weight",)}


class LowRank(nn.Module):
    """Adds a trained matrix of low rank to a frozen one."""

    def __init__(self, weight: torch.Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.empty(rank, columns, device=weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the adapted weight."""
        return weight + self.scale * (self.up @ self.down)


def add_adapters(blocks: Iterable[nn.Module], rank: int, alpha: float) -> int:
    """Put adapters on every linear and attention weight inside some blocks; return how many.

    Args:
        blocks: Whose weights to adapt; the weights themselves are frozen.
        rank: Of the trained matrices; 4 to 64. Higher learns more and costs more.
        alpha: Adapters are scaled by alpha / rank; 1 to 2 times the rank is usual.
    """
    count = 0
    for block in blocks:
        for module in list(block.modules()):
            for name in (name for name in _names(module) if getattr(module, name) is not None):
                parametrize.register_parametrization(module, name, LowRank(getattr(module, name), rank, alpha))
                count += 1
    return count


def merge_adapters(model: nn.Module) -> None:
    """Make the adapted weights ordinary ones, in place."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _names(module: nn.Module) -> tuple[str, ...]:
    return next((names for kind, names in _WEIGHTS.items() if isinstance(module, kind)), ())
