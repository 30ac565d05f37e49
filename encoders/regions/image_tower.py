"""Region features to one vector a picture."""

from __future__ import annotations

import torch
from torch import nn

from .config import TowersConfig
from .head import Embedded, FragmentHead

HIDDEN = 512


class RegionProjection(nn.Module):
    """A linear map plus a small network: (n, m, region_dim) -> (n, m, dim)."""

    def __init__(self, region_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(region_dim, dim)
        self.wide = nn.Linear(region_dim, HIDDEN)
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.narrow = nn.Linear(HIDDEN, dim)
        for layer in (self.linear, self.wide, self.narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, regions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the projected regions; rows of padding are zero and leave no trace in the norm's statistics."""
        there = regions[mask]
        if self.training and len(there) < 2:
            raise ValueError("batch norm needs at least two regions in a training batch")
        found: torch.Tensor = self.linear(there) + self.narrow(torch.relu(self.norm(self.wide(there))))
        projected = found.new_zeros(*mask.shape, found.shape[-1])
        projected[mask] = found
        return projected


class ImageTower(nn.Module):
    """Regions to unit vectors."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.project = RegionProjection(config.region_dim, config.dim)
        self.head = FragmentHead(config)

    def forward(self, regions: torch.Tensor, mask: torch.Tensor) -> Embedded:
        """Return the embeddings of (n, m, region_dim) regions."""
        embedded: Embedded = self.head(self.project(regions, mask), mask)
        return embedded
