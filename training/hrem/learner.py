"""The towers and the instance relation in training: one step's loss, and what is optimised at which rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from encoders.device import Placement
from encoders.regions.head import Embedded
from encoders.regions.text_tower import BertStates
from encoders.regions.towers import RegionTowers

from .config import HremConfig
from .feed import Batch
from .interaction import InstanceRelation, Related
from .losses import RankingLoss
from .regularisation import regularisation

Weights = dict[str, torch.Tensor]


class Learner(nn.Module):
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

    def embed(self, batch: Batch) -> tuple[Embedded, Embedded]:
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

    def loss(self, batch: Batch, epoch: float) -> torch.Tensor:
        """Return the loss of a batch at so many epochs from the start: plain at first, then with the relations."""
        place = self.placement
        with torch.autocast(place.kind, dtype=place.dtype, enabled=place.precision != "fp32"):
            images, texts = self.embed(batch)
        owners = batch.owners.to(place.device)
        every = epoch < self.config.all_negatives_epochs
        total = self._plain(images.unit.float(), texts.unit.float(), owners, every)
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

    def kept(self) -> Weights:
        """Return a copy of all state, on the CPU; without a frozen transformer, which has not changed."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self._state()}

    def load(self, weights: Weights) -> None:
        """Put what `kept` gave back."""
        with torch.no_grad():
            for name, value in self._state():
                value.copy_(weights[name])

    def _state(self) -> Iterator[tuple[str, torch.Tensor]]:
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
