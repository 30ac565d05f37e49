"""How well the fragments of each picture and each caption of a batch go together. Nothing here has a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from encoders.regions.head import Embedded

SLOPE = 0.1
EPSILON = 1e-8
# Affinities held at a time: 4 bytes each, in about four copies.
BLOCK = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Affinity:
    """What the fragments say of every picture (rows) and caption (columns).

    Attributes:
        from_images: (n, n) mean over a picture's regions of the best word for each.
        from_texts: (n, n) mean over a caption's words of the best region for each; rows are captions.
        top_images: (n, n, top) the largest of the former before the mean, zeros where there are fewer regions.
        top_texts: (n, n, top) the same of the words; rows are captions.
    """

    from_images: torch.Tensor
    from_texts: torch.Tensor
    top_images: torch.Tensor
    top_texts: torch.Tensor


def affinity(images: Embedded, texts: Embedded, top: int) -> Affinity:
    """Return the affinities of all pairs of a batch, some pictures at a time."""
    with torch.no_grad():
        regions, words = _unit(images), _unit(texts)
        size = max(1, BLOCK // (len(words) * regions.shape[1] * words.shape[1]))
        parts = [
            _block(regions[start : start + size], images.mask[start : start + size], words, texts.mask, top)
            for start in range(0, len(regions), size)
        ]
        from_images, from_texts, top_images, top_texts = (torch.cat(part) for part in zip(*parts, strict=True))
    return Affinity(
        from_images=from_images, from_texts=from_texts.T, top_images=top_images, top_texts=top_texts.transpose(0, 1)
    )


def _unit(embedded: Embedded) -> torch.Tensor:
    unit = functional.normalize(embedded.fragments.detach().float(), dim=-1, eps=EPSILON)
    return unit * embedded.mask.unsqueeze(-1)


def _block(
    regions: torch.Tensor, region_mask: torch.Tensor, words: torch.Tensor, word_mask: torch.Tensor, top: int
) -> tuple[torch.Tensor, ...]:
    """Return means and largest values for some pictures (rows) and all captions (columns), over regions and words."""
    images, m, dim = regions.shape
    texts, n = word_mask.shape
    # (images, m, texts, n): as one product leaves it. In place from here on, since this is most of a step's memory.
    scores = (regions.reshape(-1, dim) @ words.reshape(-1, dim).T).view(images, m, texts, n)
    functional.leaky_relu(scores, SLOPE, inplace=True)
    over_n = torch.linalg.vector_norm(scores, dim=3, keepdim=True).clamp_(min=EPSILON)
    over_m = torch.linalg.vector_norm(scores, dim=1, keepdim=True).clamp_(min=EPSILON)
    best_region = (scores / over_n).masked_fill_(~region_mask[:, :, None, None], -torch.inf).amax(1)
    best_word = scores.div_(over_m).masked_fill_(~word_mask[None, None], -torch.inf).amax(3).transpose(1, 2)
    from_texts, top_texts = _summary(best_region, word_mask[None].expand(images, -1, -1), top)
    from_images, top_images = _summary(best_word, region_mask[:, None].expand(-1, texts, -1), top)
    return from_images, from_texts, top_images, top_texts


def _summary(best: torch.Tensor, mask: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the `top` largest of (i, j, m) values that are there."""
    mean = best.masked_fill(~mask, 0.0).sum(2) / mask.sum(2).clamp(min=1)
    largest = best.masked_fill(~mask, -torch.inf).topk(min(top, best.shape[2]), dim=2).values
    largest = largest.masked_fill(torch.isinf(largest), 0.0)
    return mean, functional.pad(largest, (0, top - largest.shape[2]))
