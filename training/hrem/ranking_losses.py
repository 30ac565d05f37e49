"""HREM's losses: negatives drawn by distance or the hardest one, and the divergence that ties relevance to distance."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from .instance_relations import Blocks

# Epochs at first in which `hardest` takes all negatives, as in the published code (vse_mean_warmup_epochs).
ALL_NEGATIVES_EPOCHS = 1
# Below this distance all negatives weigh alike (Wu et al. 2017, "Sampling Matters in Deep Embedding Learning").
NEAREST = 0.5


def log_weights(distances: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the logarithm of the inverse density of distances d on the unit sphere of `dim` dimensions.

    log w = (2 - dim) log d - (dim - 3) / 2 log(1 - d^2 / 4) (Wu et al. 2017), d clamped below at 0.5. It falls until
    the square root of 2 and rises again.
    """
    d = distances.clamp(min=NEAREST)
    return (2 - dim) * d.log() - (dim - 3) / 2 * (1 - d.square() / 4).log()


def distances_of(scores: torch.Tensor) -> torch.Tensor:
    """Return the distances of unit vectors with these cosines; rounding above 1 counts as 0."""
    return (2 - 2 * scores).clamp(min=0).sqrt()


def draw_negatives(scores: torch.Tensor, same: torch.Tensor, cutoff: float, dim: int) -> torch.Tensor:
    """Return for each pair of `same`, in the order of `nonzero`, a column that does not belong to its row.

    -1 where a row has no negative nearer than `cutoff`.
    """
    with torch.no_grad():
        distances = distances_of(scores.float())
        logs = log_weights(distances, dim).masked_fill(same | (distances >= cutoff), -math.inf)
        logs = logs.masked_fill(~torch.isfinite(logs), -math.inf)
        able = torch.isfinite(logs).any(1)
        shifted = logs - logs.amax(1, keepdim=True)
        # A row without any negative draws its own diagonal, and is told apart afterwards.
        weights = torch.where(able.unsqueeze(1), shifted.exp().nan_to_num(0.0), torch.ones_like(shifted))
        rows = same.nonzero()[:, 0]
        drawn = torch.multinomial(weights[rows], 1).squeeze(1)
        return torch.where(able[rows], drawn, torch.full_like(drawn, -1))


def distance_weighted(scores: torch.Tensor, same: torch.Tensor, margin: float, cutoff: float, dim: int) -> torch.Tensor:
    """Return the hinge of every pair against one negative drawn for it, in one direction, summed."""
    negatives = draw_negatives(scores, same, cutoff, dim)
    rows, columns = same.nonzero(as_tuple=True)
    able = negatives >= 0
    gaps = margin + scores[rows, negatives.clamp(min=0)] - scores[rows, columns]
    return (gaps.clamp(min=0) * able).sum()


def hardest_negative(scores: torch.Tensor, same: torch.Tensor, margin: float, every: bool) -> torch.Tensor:
    """Return the hinge of the diagonal against the nearest negative of each row, or against all, summed (VSE++)."""
    gaps = (margin + scores - scores.diagonal().unsqueeze(1)).clamp(min=0).masked_fill(same, 0.0)
    return gaps.sum() if every else gaps.amax(1).sum()


class RankingLoss:
    """One of the two losses, in both directions.

    Args:
        kind: `distance` or `hardest`.
        margin: By how much a match should score higher.
        cutoff: Of `distance`.
        dim: Of `distance`.
    """

    def __init__(self, kind: str, margin: float, cutoff: float, dim: int) -> None:
        self._kind, self._margin, self._cutoff, self._dim = kind, margin, cutoff, dim

    def __call__(self, left: torch.Tensor, right: torch.Tensor, owners: torch.Tensor, every: bool) -> torch.Tensor:
        """Return the loss of (n, dim) unit rows whose i-th match; `every` takes all negatives in `hardest`."""
        scores = left @ right.T
        same = owners.unsqueeze(0) == owners.unsqueeze(1)
        return self._one(scores, same, every) + self._one(scores.T, same, every)

    def _one(self, scores: torch.Tensor, same: torch.Tensor, every: bool) -> torch.Tensor:
        if self._kind == "hardest":
            return hardest_negative(scores, same, self._margin, every)
        return distance_weighted(scores, same, self._margin, self._cutoff, self._dim)


def divergence(relation: torch.Tensor, guide: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return KL(softmax(relation) || softmax(guide)) over rows, averaged over them."""
    log_relation = functional.log_softmax(relation / temperature, dim=1)
    log_guide = functional.log_softmax(guide / temperature, dim=1)
    return (log_relation.exp() * (log_relation - log_guide)).sum(1).mean()


def regularisation(
    relevance: Blocks, images: torch.Tensor, texts: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Return how far the relevance across is from exp(-distance) of the embeddings, which is taken as given."""
    with torch.no_grad():
        guide = torch.exp(-distances_of(images @ texts.T))
    return divergence(relevance.image_to_text, guide, temperature) + divergence(
        relevance.text_to_image, guide.T, temperature
    )
