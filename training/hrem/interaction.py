"""Instances attend to each other along the graph: each embedding enhanced by what the batch holds beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from encoders.regions.head import EPSILON, Embedded

from .affinity import affinity
from .config import HremConfig
from .graph import Blocks, Relevance, connection

Enhanced = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Related:
    """Enhanced unit rows of pictures and captions, and the relevance that they came by."""

    images: torch.Tensor
    texts: torch.Tensor
    relevance: Blocks


def attention_bias(linked: torch.Tensor, relevance: torch.Tensor, weight: float) -> torch.Tensor:
    """Return what is added to attention before the softmax: weighted relevance, minus infinity where nothing links."""
    bias = weight * relevance if weight else torch.zeros_like(relevance)
    return bias.masked_fill(~linked, -torch.inf)


class RelationLayer(nn.Module):
    """One post-norm transformer layer (Vaswani et al. 2017) whose queries and keys may differ.

    Not torch's own: in evaluation its fast path gives NaN for attention biases of minus infinity.
    """

    def __init__(self, config: HremConfig) -> None:
        super().__init__()
        dim, dropout = config.dim, config.dropout
        self.attention = nn.MultiheadAttention(dim, config.heads, dropout, batch_first=True)
        self.wide, self.narrow = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.after_attention, self.after_network = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, asking: torch.Tensor, asked: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) for the n rows that ask, (m, dim) that are asked and a bias of (n, m)."""
        query, keys = asking.unsqueeze(0), asked.unsqueeze(0)
        found, _ = self.attention(query, keys, keys, attn_mask=bias, need_weights=False)
        states = self.after_attention(query + self.drop(found))
        network = self.narrow(self.drop(torch.relu(self.wide(states))))
        done: torch.Tensor = self.after_network(states + self.drop(network))
        return done.squeeze(0)


def _layers(config: HremConfig) -> nn.ModuleList:
    return nn.ModuleList(RelationLayer(config) for _ in range(config.layers))


class Fusion(nn.Module):
    """All 2n instances as one sequence through transformer layers."""

    def __init__(self, config: HremConfig) -> None:
        super().__init__()
        self.layers = _layers(config)

    def forward(self, images: torch.Tensor, texts: torch.Tensor, bias: torch.Tensor) -> Enhanced:
        """Return (n, dim) of both."""
        states = torch.cat([images, texts])
        for layer in self.layers:
            states = layer(states, states, bias)
        return states[: len(images)], states[len(images) :]


class Standalone(nn.Module):
    """First across the modalities, then within each; each step's layers serve both directions."""

    def __init__(self, config: HremConfig) -> None:
        super().__init__()
        self.across, self.within = _layers(config), _layers(config)

    def forward(self, images: torch.Tensor, texts: torch.Tensor, bias: torch.Tensor) -> Enhanced:
        """Return (n, dim) of both."""
        n = len(images)
        for across, within in zip(self.across, self.within, strict=True):
            images, texts = across(images, texts, bias[:n, n:]), across(texts, images, bias[n:, :n])
            images, texts = within(images, images, bias[:n, :n]), within(texts, texts, bias[n:, n:])
        return images, texts


class InstanceRelation(nn.Module):
    """Graph and interaction. Only training needs it."""

    def __init__(self, config: HremConfig) -> None:
        super().__init__()
        self.config = config
        self.relevance = Relevance(config.top_fragments, config.sigma)
        self.interaction = Fusion(config) if config.interaction == "fusion" else Standalone(config)

    def forward(self, images: Embedded, texts: Embedded) -> Related:
        """Return the enhanced embeddings of a batch."""
        config = self.config
        found = affinity(images, texts, config.top_fragments)
        links = connection(images.unit, texts.unit, found, config.link_share)
        relevance = self.relevance(images.unit, texts.unit, found)
        bias = attention_bias(links, relevance.whole(), config.relation_weight)
        entering = (images.unit, texts.unit) if config.normalise_instances else (images.raw, texts.raw)
        enhanced = self.interaction(*entering, bias)
        unit = [functional.normalize(rows, dim=-1, eps=EPSILON) for rows in enhanced]
        return Related(images=unit[0], texts=unit[1], relevance=relevance)
