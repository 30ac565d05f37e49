"""HREM's instance relation: how the images and captions of a batch attend to each other in training.

The fragments of all pairs give affinities; affinities and distances give links (who attends to whom) and relevance (by
how much); transformer layers over the instances, biased by both, give enhanced embeddings. Links and affinities have no
gradient.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .config import HremConfig, LinksWithin
from .towers.region_towers import EPSILON, Embedded

# Of the leaky ReLU: negative affinities count a tenth.
SLOPE = 0.1
# Affinities held at a time: 4 bytes each, in about four copies.
BLOCK = 4_000_000
# Keeps the gradient of a distance finite where two embeddings are one.
SMALLEST = 1e-8
Enhanced = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Affinity:
    """What the fragments say of every image (rows) and caption (columns).

    Attributes:
        from_images: (n, n) mean over an image's regions of the best word for each.
        from_texts: (n, n) mean over a caption's words of the best region for each; rows are captions.
        top_images: (n, n, top) the largest of the former before the mean, zeros where there are fewer regions.
        top_texts: (n, n, top) the same of the words; rows are captions.
    """

    from_images: torch.Tensor
    from_texts: torch.Tensor
    top_images: torch.Tensor
    top_texts: torch.Tensor


def affinity(images: Embedded, texts: Embedded, top: int) -> Affinity:
    """Return the affinities of all pairs of a batch, some images at a time."""
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
    """Return means and largest values for some images (rows) and all captions (columns), over regions and words."""
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


def linked(scores: torch.Tensor, share: float) -> torch.Tensor:
    """Return in each row the entries that are at least the int(share * n)-th largest, one at least."""
    count = max(1, int(share * scores.shape[1]))
    least = scores.topk(count, dim=1).values[:, -1:]
    return scores >= least


def connection(
    images: torch.Tensor, texts: torch.Tensor, fragments: Affinity, share: float, links_within: LinksWithin = "own"
) -> torch.Tensor:
    """Return which instances are linked: by cosine within a modality, by fragments across.

    With `across` an image is linked to those images whose captions are near it, and a caption likewise.
    """
    with torch.no_grad():
        if links_within == "own":
            eye = torch.eye(len(images), dtype=torch.bool, device=images.device)
            within = [linked(unit @ unit.T, share) | eye for unit in (images, texts)]
        else:
            within = [linked(images @ texts.T, share), linked(texts @ images.T, share)]
        upper = torch.cat([within[0], linked(fragments.from_images, share)], dim=1)
        lower = torch.cat([linked(fragments.from_texts, share), within[1]], dim=1)
        return torch.cat([upper, lower])


class Relevance(nn.Module):
    """How much instances have in common: distances within a modality, a small network over fragments across.

    Args:
        top: Fragment affinities that the networks see.
    """

    def __init__(self, top: int) -> None:
        super().__init__()
        self.images = nn.Sequential(nn.Linear(top, top), nn.ReLU(), nn.Linear(top, 1))
        self.texts = copy.deepcopy(self.images)

    def forward(self, images: torch.Tensor, texts: torch.Tensor, fragments: Affinity) -> Blocks:
        """Return the four blocks for unit rows of images and captions."""
        return Blocks(
            images=self._within(images),
            texts=self._within(texts),
            image_to_text=self.images(fragments.top_images).squeeze(-1) + fragments.from_images,
            text_to_image=self.texts(fragments.top_texts).squeeze(-1) + fragments.from_texts,
        )

    def _within(self, unit: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(2 - 2 * unit @ unit.T).clamp(min=SMALLEST).sqrt())


class Blocks:
    """The relevance of images to images, captions to captions, and across; rows are queries."""

    def __init__(
        self, *, images: torch.Tensor, texts: torch.Tensor, image_to_text: torch.Tensor, text_to_image: torch.Tensor
    ) -> None:
        self.images, self.texts = images, texts
        self.image_to_text, self.text_to_image = image_to_text, text_to_image

    def whole(self) -> torch.Tensor:
        """Return (2n, 2n)."""
        upper = torch.cat([self.images, self.image_to_text], dim=1)
        return torch.cat([upper, torch.cat([self.text_to_image, self.texts], dim=1)])


@dataclass(frozen=True, kw_only=True)
class Related:
    """Enhanced unit rows of images and captions, and the relevance that they came by."""

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

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) for n queries and m keys of (., dim), with an attention bias of (n, m)."""
        queries, keys = queries.unsqueeze(0), keys.unsqueeze(0)
        attended, _ = self.attention(queries, keys, keys, attn_mask=bias, need_weights=False)
        states = self.after_attention(queries + self.drop(attended))
        network = self.narrow(self.drop(torch.relu(self.wide(states))))
        enhanced: torch.Tensor = self.after_network(states + self.drop(network))
        return enhanced.squeeze(0)


def _layers(config: HremConfig) -> nn.ModuleList:
    return nn.ModuleList(RelationLayer(config) for _ in range(config.relation_layers))


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
        self.relevance = Relevance(config.top_fragments)
        self.interaction = Fusion(config) if config.interaction == "fusion" else Standalone(config)

    def forward(self, images: Embedded, texts: Embedded) -> Related:
        """Return the enhanced embeddings of a batch."""
        config = self.config
        fragments = affinity(images, texts, config.top_fragments)
        links = connection(images.unit, texts.unit, fragments, config.link_share, config.links_within)
        relevance = self.relevance(images.unit, texts.unit, fragments)
        bias = attention_bias(links, relevance.whole(), config.relation_weight)
        enhanced = self.interaction(images.unit, texts.unit, bias)
        unit = [functional.normalize(rows, dim=-1, eps=EPSILON) for rows in enhanced]
        return Related(images=unit[0], texts=unit[1], relevance=relevance)
