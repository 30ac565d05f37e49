"""The towers and the instance relation in training: the losses, one step, and what is optimised at which rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from encoders.device import Placement
from encoders.transfer import Transfer

from ..checkpoint import Weights
from ..on_device import adamw
from .config import HremConfig
from .instance_relations import Blocks, InstanceRelation, Related
from .region_batches import Matches, RegionBatch
from .towers.region_towers import BertStates, Embedded, Padding, RegionTowers

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


def draw_negatives(scores: torch.Tensor, matches: Matches, cutoff: float, dim: int) -> torch.Tensor:
    """Return for each match a column that does not belong to its row; -1 where none is nearer than `cutoff`."""
    with torch.no_grad():
        distances = distances_of(scores.float())
        logs = log_weights(distances, dim).masked_fill(matches.same | (distances >= cutoff), -math.inf)
        logs = logs.masked_fill(~torch.isfinite(logs), -math.inf)
        able = torch.isfinite(logs).any(1)
        shifted = logs - logs.amax(1, keepdim=True)
        # A row without any negative draws its own diagonal, and is told apart afterwards.
        weights = torch.where(able.unsqueeze(1), shifted.exp().nan_to_num(0.0), torch.ones_like(shifted))
        weights = weights.index_select(0, matches.rows)
        # What `multinomial` does for one draw, which on a GPU waits to look for values that are not finite.
        drawn = (weights / torch.empty_like(weights).exponential_(1)).argmax(1)
        return torch.where(able.index_select(0, matches.rows), drawn, torch.full_like(drawn, -1))


def distance_weighted(scores: torch.Tensor, matches: Matches, margin: float, cutoff: float, dim: int) -> torch.Tensor:
    """Return the hinge of every match against one negative drawn for it, in one direction, summed."""
    negatives = draw_negatives(scores, matches, cutoff, dim)
    rows = matches.rows
    able = negatives >= 0
    gaps = margin + scores[rows, negatives.clamp(min=0)] - scores[rows, matches.columns]
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

    def __call__(self, left: torch.Tensor, right: torch.Tensor, matches: Matches, every: bool) -> torch.Tensor:
        """Return the loss of (n, dim) unit rows whose i-th match; `every` takes all negatives in `hardest`."""
        scores = left @ right.T
        return self._one(scores, matches, every) + self._one(scores.T, matches, every)

    def _one(self, scores: torch.Tensor, matches: Matches, every: bool) -> torch.Tensor:
        if self._kind == "hardest":
            return hardest_negative(scores, matches.same, self._margin, every)
        return distance_weighted(scores, matches, self._margin, self._cutoff, self._dim)


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


class HremLearner(nn.Module):
    """Everything that has parameters.

    Attributes:
        towers: What is kept for search.
        relation: What only training needs; None without interaction.
    """

    def __init__(self, towers: RegionTowers, config: HremConfig, placement: Placement) -> None:
        super().__init__()
        self.towers = towers
        self.relation = None if config.interaction == "none" else InstanceRelation(config)
        self.config, self.placement = config, placement
        self.sent = Transfer(placement.device)
        self.frozen = config.freeze_bert and isinstance(towers.text.words, BertStates)
        if self.frozen:
            self._bert().requires_grad_(False)
        self._plain = self._ranking(config.ranking)
        self._enhanced = self._ranking(config.relation_ranking)
        self.to(placement.device)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """All that the optimiser moves, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def optimizer(self) -> torch.optim.AdamW:
        """Return a fresh AdamW; each group knows its rate at the start as `peak`."""
        config = self.config
        factors = {"bert": config.bert_lr_factor, "relation": config.graph_lr_factor, "towers": 1.0}
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in factors}
        for name, value in self.trained.items():
            groups[_group(name)].append(value)
        named = [(factors[name] * config.lr, values) for name, values in groups.items() if values]
        parts = [{"params": values, "lr": rate, "peak": rate} for rate, values in named]
        return adamw(parts, self.placement, config.weight_decay)

    def training_mode(self, on: bool) -> None:
        """Switch dropout and the norm's statistics; a frozen transformer has neither."""
        self.train(on)
        if self.frozen:
            self._bert().eval()

    def embed(self, batch: RegionBatch) -> tuple[Embedded, Embedded]:
        """Return the towers' output for a batch."""
        regions, mask = self.sent(batch.regions), self.sent(batch.region_mask)
        images: Embedded = self.towers.image(regions, mask, batch.region_padding.through(self.sent))
        return images, self.embed_words(batch.words, batch.word_mask, batch.word_padding)

    def embed_words(self, words: torch.Tensor, mask: torch.Tensor, known: Padding | None = None) -> Embedded:
        """Return the text tower's output for ids, or for ready-made states; `known` is where their padding lies."""
        padding = (known or Padding.of(mask)).through(self.sent)
        words, mask = self.sent(words), self.sent(mask)
        text = self.towers.text
        tower = text.from_states if words.is_floating_point() else text
        embedded: Embedded = tower(words, mask, padding)
        return embedded

    def backward(self, batch: RegionBatch, step: int, epoch: float) -> torch.Tensor:
        """Add a batch's gradients to the parameters; return its loss, which is not waited for."""
        # The same dropout and the same negatives whether the run was stopped before or not.
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, step)).generate_state(1)[0]))
        loss = self.loss(batch, epoch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def loss(self, batch: RegionBatch, epoch: float) -> torch.Tensor:
        """Return the loss of a batch at so many epochs from the start: plain at first, then with the relations."""
        device = self.placement
        with torch.autocast(device.kind, dtype=device.dtype, enabled=device.precision != "fp32"):
            embedded = self.embed(batch)
        # Relations and losses are computed in fp32 whatever the towers compute in.
        images, texts = (replace(side, unit=side.unit.float()) for side in embedded)
        matches = batch.matches.through(self.sent)
        every = epoch < ALL_NEGATIVES_EPOCHS
        total = self._plain(images.unit, texts.unit, matches, every)
        if self.relation is None or epoch < self.config.warmup_epochs:
            return total
        seen = (images, texts)
        if self.config.relation_gradient == "stopped":
            seen = (replace(images, unit=images.unit.detach()), replace(texts, unit=texts.unit.detach()))
        return total + self._related_loss((images.unit, texts.unit), self.relation(*seen), matches, every)

    def _related_loss(
        self, plain: tuple[torch.Tensor, torch.Tensor], related: Related, matches: Matches, every: bool
    ) -> torch.Tensor:
        images, texts = plain
        total = self._enhanced(related.images, related.texts, matches, every)
        if self.config.cross_loss:
            given_images, given_texts = related.images, related.texts
            if self.config.relation_gradient == "stopped":
                given_images, given_texts = given_images.detach(), given_texts.detach()
            total = total + self._enhanced(images, given_texts, matches, every)
            total = total + self._enhanced(given_images, texts, matches, every)
        if self.config.regularisation:
            apart = regularisation(related.relevance, images, texts, self.config.temperature)
            total = total + self.config.regularisation * apart
        return total

    def weights(self) -> Weights:
        """Return a copy of all weights and statistics, on the CPU; not of a frozen transformer."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self._tensors()}

    def load(self, weights: Weights) -> None:
        """Put back what `weights` returned."""
        with torch.no_grad():
            for name, value in self._tensors():
                value.copy_(weights[name])

    # What is kept in the end is all that a resumed run needs beside the optimiser.
    state, restore = weights, load

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in self.state_dict().items():
            if not (self.frozen and _group(name) == "bert"):
                yield name, value

    def _ranking(self, kind: str) -> RankingLoss:
        return RankingLoss(kind, self.config.margin, self.config.cutoff, self.config.distance_dim)

    def _bert(self) -> Any:
        words: Any = self.towers.text.words
        return words.bert


def _group(name: str) -> str:
    if name.startswith("relation."):
        return "relation"
    return "bert" if name.startswith("towers.text.words.bert.") else "towers"
