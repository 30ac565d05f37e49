"""What ties the relevance across modalities to the embeddings."""

from __future__ import annotations

import torch
from torch.nn import functional

from .graph import Blocks
from .losses import distances_of


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
