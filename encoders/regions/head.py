"""What both towers share: fragments of one width to one unit vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .config import TowersConfig
from .pooling import GeneralisedPooling, MaxPooling, masked_mean

EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """One tower's output for a batch.

    Attributes:
        unit: (n, dim) unit rows: the embeddings.
        raw: (n, dim) before normalisation.
        fragments: (n, m, dim) before attention and pooling.
        mask: (n, m) True where there is a fragment.
    """

    unit: torch.Tensor
    raw: torch.Tensor
    fragments: torch.Tensor
    mask: torch.Tensor


def attention_layer(dim: int, heads: int, ff_dim: int, dropout: float) -> nn.TransformerEncoderLayer:
    """Return one post-norm transformer encoder layer without positions (Vaswani et al. 2017)."""
    return nn.TransformerEncoderLayer(dim, heads, ff_dim, dropout, activation="relu", batch_first=True)


class FragmentHead(nn.Module):
    """Pool; let fragments attend to each other and pool again; mix (HREM's fragment-level relation)."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.weight = config.residual_weight
        self.pool = MaxPooling(config.max_k) if config.pooling == "max" else GeneralisedPooling()
        layers = config.layers if config.fragment_relation else 0
        ff_dim = config.ff_dim or config.dim
        self.relation = nn.ModuleList(
            attention_layer(config.dim, config.heads, ff_dim, config.dropout) for _ in range(layers)
        )

    def forward(self, fragments: torch.Tensor, mask: torch.Tensor) -> Embedded:
        """Return the embeddings of (n, m, dim) fragments."""
        raw = self.pool(fragments, mask)
        if len(self.relation):
            states = fragments
            for layer in self.relation:
                states = layer(states, src_key_padding_mask=~mask)
            raw = self.weight * raw + (1 - self.weight) * masked_mean(states, mask)
        return Embedded(unit=functional.normalize(raw, dim=-1, eps=EPSILON), raw=raw, fragments=fragments, mask=mask)
