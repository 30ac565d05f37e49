"""The cross-embedding association graph: who may attend to whom in a batch, and how much they have in common.

The 2n instances are the n pictures, then the n captions; both results are (2n, 2n), in four blocks.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from .affinity import Affinity

# Keeps the gradient of a distance finite where two embeddings are one.
SMALLEST = 1e-8


def linked(scores: torch.Tensor, share: float) -> torch.Tensor:
    """Return in each row the entries that are at least the int(share * n)-th largest, one at least."""
    count = max(1, int(share * scores.shape[1]))
    least = scores.topk(count, dim=1).values[:, -1:]
    return scores >= least


def connection(images: torch.Tensor, texts: torch.Tensor, found: Affinity, share: float) -> torch.Tensor:
    """Return which instances are linked: by cosine within a modality, by fragments across."""
    with torch.no_grad():
        eye = torch.eye(len(images), dtype=torch.bool, device=images.device)
        within = [linked(unit @ unit.T, share) | eye for unit in (images, texts)]
        upper = torch.cat([within[0], linked(found.from_images, share)], dim=1)
        lower = torch.cat([linked(found.from_texts, share), within[1]], dim=1)
        return torch.cat([upper, lower])


class Relevance(nn.Module):
    """How much instances have in common: distances within a modality, a small network over fragments across.

    Args:
        top: Fragment affinities that the networks see.
        sigma: Distance at which relevance has fallen to 1/e.
    """

    def __init__(self, top: int, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.images = nn.Sequential(nn.Linear(top, top), nn.ReLU(), nn.Linear(top, 1))
        self.texts = copy.deepcopy(self.images)

    def forward(self, images: torch.Tensor, texts: torch.Tensor, found: Affinity) -> Blocks:
        """Return the four blocks for unit rows of pictures and captions."""
        return Blocks(
            images=self._within(images),
            texts=self._within(texts),
            image_to_text=self.images(found.top_images).squeeze(-1) + found.from_images,
            text_to_image=self.texts(found.top_texts).squeeze(-1) + found.from_texts,
        )

    def _within(self, unit: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(2 - 2 * unit @ unit.T).clamp(min=SMALLEST).sqrt() / self.sigma)


class Blocks:
    """The relevance of pictures to pictures, captions to captions, and across; rows ask."""

    def __init__(
        self, *, images: torch.Tensor, texts: torch.Tensor, image_to_text: torch.Tensor, text_to_image: torch.Tensor
    ) -> None:
        self.images, self.texts = images, texts
        self.image_to_text, self.text_to_image = image_to_text, text_to_image

    def whole(self) -> torch.Tensor:
        """Return (2n, 2n)."""
        upper = torch.cat([self.images, self.image_to_text], dim=1)
        return torch.cat([upper, torch.cat([self.text_to_image, self.texts], dim=1)])
