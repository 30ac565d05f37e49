"""The towers and the instance relation in training: one step's loss, and what is optimised at which rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from encoders.device import Placement

from ..checkpoint import Weights
from .config import HremConfig
from .instance_relations import InstanceRelation, Related
from .ranking_losses import ALL_NEGATIVES_EPOCHS, RankingLoss, regularisation
from .region_batches import RegionBatch
from .towers.region_towers import BertStates, Embedded, RegionTowers


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
        return torch.optim.AdamW(
            [{"params": values, "lr": rate, "peak": rate} for rate, values in named], weight_decay=config.weight_decay
        )

    def training_mode(self, on: bool) -> None:
        """Switch dropout and the norm's statistics; a frozen transformer has neither."""
        self.train(on)
        if self.frozen:
            self._bert().eval()

    def embed(self, batch: RegionBatch) -> tuple[Embedded, Embedded]:
        """Return the towers' output for a batch."""
        device = self.placement.device
        images: Embedded = self.towers.image(batch.regions.to(device), batch.region_mask.to(device))
        return images, self.embed_words(batch.words, batch.word_mask)

    def embed_words(self, words: torch.Tensor, mask: torch.Tensor) -> Embedded:
        """Return the text tower's output for ids, or for ready-made states."""
        words, mask = words.to(self.placement.device), mask.to(self.placement.device)
        text = self.towers.text
        embedded: Embedded = text.from_states(words, mask) if words.is_floating_point() else text(words, mask)
        return embedded

    def backward(self, batch: RegionBatch, step: int, epoch: float) -> float:
        """Add a batch's gradients to the parameters; return its loss."""
        # The same dropout and the same negatives whether the run was stopped before or not.
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, step)).generate_state(1)[0]))
        loss = self.loss(batch, epoch)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def loss(self, batch: RegionBatch, epoch: float) -> torch.Tensor:
        """Return the loss of a batch at so many epochs from the start: plain at first, then with the relations."""
        device = self.placement
        with torch.autocast(device.kind, dtype=device.dtype, enabled=device.precision != "fp32"):
            embedded = self.embed(batch)
        # Relations and losses are computed in fp32 whatever the towers compute in.
        images, texts = (replace(side, unit=side.unit.float()) for side in embedded)
        owners = batch.owners.to(device.device)
        every = epoch < ALL_NEGATIVES_EPOCHS
        total = self._plain(images.unit, texts.unit, owners, every)
        if self.relation is None or epoch < self.config.warmup_epochs:
            return total
        related = self.relation(images, texts)
        return total + self._related_loss((images.unit, texts.unit), related, owners, every)

    def _related_loss(
        self, plain: tuple[torch.Tensor, torch.Tensor], related: Related, owners: torch.Tensor, every: bool
    ) -> torch.Tensor:
        images, texts = plain
        total = self._enhanced(related.images, related.texts, owners, every)
        if self.config.cross_loss:
            total = total + self._enhanced(images, related.texts, owners, every)
            total = total + self._enhanced(related.images, texts, owners, every)
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
