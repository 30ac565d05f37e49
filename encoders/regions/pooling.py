"""Many fragments to one vector. Masks are True where there is a fragment; padding never counts."""

from __future__ import annotations

import math

import torch
from torch import nn

_GPO_DIM = 32
_GPO_TEMPERATURE = 0.1


def masked_mean(fragments: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (n, dim) means over the fragments of (n, m, dim)."""
    weights = mask.unsqueeze(-1).to(fragments.dtype)
    return (fragments * weights).sum(1) / weights.sum(1).clamp(min=1)


class MaxPooling(nn.Module):
    """The mean of the k largest values of each dimension; of all of them where an item has fewer fragments than k."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, fragments: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) for (n, m, dim) fragments."""
        k = min(self.k, fragments.shape[1])
        hidden = fragments.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        top = hidden.topk(k, dim=1).values
        there = torch.isfinite(top)
        return top.masked_fill(~there, 0.0).sum(1) / there.sum(1).clamp(min=1)


class GeneralisedPooling(nn.Module):
    """GPO (Chen et al. 2021): the sorted values of each dimension, weighted by a small network that sees only ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.ranks = nn.GRU(_GPO_DIM, _GPO_DIM, batch_first=True, bidirectional=True)
        self.score = nn.Linear(_GPO_DIM, 1, bias=False)

    def forward(self, fragments: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) for (n, m, dim) fragments."""
        count = fragments.shape[1]
        lengths = mask.sum(1)
        there = torch.arange(count, device=mask.device) < lengths.unsqueeze(1)
        codes = rank_codes(count, _GPO_DIM).to(fragments.device).expand(len(fragments), -1, -1)
        packed = nn.utils.rnn.pack_padded_sequence(codes, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.ranks(packed)[0], batch_first=True, total_length=count)
        both = (states[..., :_GPO_DIM] + states[..., _GPO_DIM:]) / 2
        scores = self.score(both).squeeze(-1).masked_fill(~there, float("-inf"))
        weights = torch.softmax(scores / _GPO_TEMPERATURE, dim=1)
        ordered = fragments.masked_fill(~mask.unsqueeze(-1), float("-inf")).sort(dim=1, descending=True).values
        pooled: torch.Tensor = (ordered.masked_fill(~there.unsqueeze(-1), 0.0) * weights.unsqueeze(-1)).sum(1)
        return pooled


def rank_codes(count: int, dim: int) -> torch.Tensor:
    """Return (count, dim) sine and cosine codes of the ranks (Vaswani et al. 2017)."""
    steps = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angles = torch.arange(count).unsqueeze(1) * steps
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(count, dim)
