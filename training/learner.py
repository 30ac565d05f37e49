"""A two-tower model in training: what is trained, one step of it, and its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from encoders.conse import TwinlensMappedMeanPooler
from encoders.device import Placement
from encoders.model import TwoTowers

from .batches import Batch
from .errors import TrainingError
from .examples import Kind
from .feed import Feed, Part
from .grad_cache import Chunk, backward
from .lora import add_adapters, merge_adapters
from .loss import contrastive_loss
from .recipe import Recipe
from .scope import choose, groups
from .towers import ConseTower, TextTower, Tower, image_tower, text_tower

# CLIP's clamp (Radford et al. 2021): a scale above 100 made training unstable.
MAX_SCALE = math.log(100)
Weights = dict[str, torch.Tensor]


class Learner:
    """Trains the upper part of a model's towers by contrast.

    Args:
        towers: The model; it is moved to the device and trained in place.
        recipe: What is trained, and how.
        placement: Device and precision.
        kinds: Which towers take part.
    """

    def __init__(self, towers: TwoTowers, recipe: Recipe, placement: Placement, kinds: set[Kind]) -> None:
        self.recipe, self.placement = recipe, placement
        model: Any = towers.model
        self.model = model.to(placement.device).eval()
        self.image: Tower = image_tower(self.model)
        self.text: TextTower = text_tower(self.model)
        self._set_dropout()
        if recipe.temperature is not None:
            self.model.logit_scale.data.fill_(-math.log(recipe.temperature))
        trained = choose(self.model, *self._limits(kinds))
        self.start = {name: value.detach().cpu().clone() for name, value in trained.items()}
        if recipe.mode == "lora":
            self._adapt(kinds, trained)
        self.trained = trained
        if not trained:
            raise TrainingError(f"mode {recipe.mode!r} trains nothing of this encoder; choose mode full")

    def part(self, kind: Kind) -> Part:
        """Return the trained part of one tower."""
        tower: Tower = self.image if kind == "image" else self.text
        return Part(tower=tower, cut=self._cut(kind), placement=self.placement)

    def optimizer(self) -> torch.optim.AdamW:
        """Return a fresh AdamW over all that is trained."""
        recipe = self.recipe
        rates = (recipe.head_lr, recipe.lr, recipe.layer_decay)
        return torch.optim.AdamW(groups(self.model, self.trained, rates, recipe.weight_decay))

    def training(self, on: bool) -> None:
        """Switch dropout in the trained blocks; norms keep the statistics that they came with."""
        self.model.eval()
        if not on:
            return
        for kind in ("image", "text"):
            for module in self._trained_modules(kind):
                module.train()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def backward(self, batch: Batch, feeds: tuple[Feed, Feed], seed: tuple[int, int]) -> float:
        """Add one batch's gradients to the parameters; return its loss."""
        order = feeds[1].order(batch.right)
        left = self._chunks(feeds[0], batch.left, batch.looks, (*seed, 0))
        right = self._chunks(feeds[1], batch.right[order], np.zeros(len(order), np.int64), (*seed, 1))
        device = self.placement.device
        positives = torch.from_numpy(batch.positives[:, order]).to(device)
        ignored = torch.from_numpy(batch.ignored[:, order]).to(device) if batch.ignored.any() else None

        def loss(left_vectors: torch.Tensor, right_vectors: torch.Tensor) -> torch.Tensor:
            scores = self.model.logit_scale.exp() * left_vectors @ right_vectors.T
            return contrastive_loss(scores, positives, ignored, self.recipe.smoothing)

        return float(backward(left, right, loss))

    def clamp_scale(self) -> None:
        """Keep the logit scale between 1 and 100."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_SCALE)

    def weights(self) -> Weights:
        """Return a copy of what was trained, adapters merged, on the CPU."""
        values = {name: self._value(name) for name in self.start}
        return {name: value.detach().to("cpu", copy=True) for name, value in values.items()}

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put weights in place; adapters, if there are any, are merged first."""
        merge_adapters(self.model)
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                parameters[name].copy_(value)

    def _chunks(self, feed: Feed, rows: np.ndarray, looks: np.ndarray, seed: tuple[int, ...]) -> list[Chunk]:
        count = max(1, -(-len(rows) // self.recipe.chunk_size))
        parts = zip(np.array_split(rows, count), np.array_split(looks, count), strict=True)
        return [self._chunk(feed, part, look, (*seed, number)) for number, (part, look) in enumerate(parts)]

    def _chunk(self, feed: Feed, rows: np.ndarray, looks: np.ndarray, seed: tuple[int, ...]) -> Chunk:
        state = int(np.random.SeedSequence(seed).generate_state(1)[0])
        inputs = feed.fetch(rows, looks)

        def compute() -> torch.Tensor:
            # The same dropout each time that the chunk is computed.
            torch.manual_seed(state)
            return feed.part.features(*inputs)

        return compute

    def _limits(self, kinds: set[Kind]) -> tuple[int | None, int | None]:
        """How many blocks of the image and of the text tower have their own weights trained; -1 for no tower at all."""
        own: dict[str, tuple[int | None, int | None]] = {"full": (None, None), "lora": (0, 0)}
        image, text = own.get(self.recipe.mode, (self.recipe.image_blocks, self.recipe.text_blocks))
        return image if "image" in kinds else -1, text if "text" in kinds else -1

    def _cut(self, kind: Kind) -> int | None:
        limit = self.recipe.image_blocks if kind == "image" else self.recipe.text_blocks
        tower: Tower = self.image if kind == "image" else self.text
        if limit is None or self.recipe.mode == "full":
            return None
        return max(0, len(tower.blocks) - limit)

    def _adapt(self, kinds: set[Kind], trained: dict[str, nn.Parameter]) -> None:
        blocks = [block for kind in sorted(kinds) for block in self._upper_blocks(kind)]
        before = dict(self.model.named_parameters())
        add_adapters(blocks, self.recipe.lora_rank, self.recipe.lora_alpha)
        for name, parameter in self.model.named_parameters():
            if name.endswith((".down", ".up")) and ".parametrizations." in name:
                trained[name] = parameter
            elif name.endswith(".original"):
                plain = name.replace("parametrizations.", "").removesuffix(".original")
                self.start[plain] = before[plain].detach().cpu().clone()
                parameter.requires_grad_(False)

    def _upper_blocks(self, kind: Kind) -> list[nn.Module]:
        tower: Tower = self.image if kind == "image" else self.text
        return tower.blocks[self._cut(kind) or 0 :]

    def _trained_modules(self, kind: Kind) -> list[nn.Module]:
        blocks = self._upper_blocks(kind)
        if isinstance(self.image, ConseTower) and kind == "image":
            return [self.model.visual.trunk, *blocks]
        pooler = getattr(self.model.text, "pooler", None) if kind == "text" and hasattr(self.model, "text") else None
        return [pooler, *blocks] if isinstance(pooler, TwinlensMappedMeanPooler) else blocks

    def _set_dropout(self) -> None:
        if isinstance(self.image, ConseTower):
            self.image.dropout = self.recipe.dropout
        for module in self.model.modules():
            if isinstance(module, TwinlensMappedMeanPooler):
                module.dropout = self.recipe.dropout
            elif isinstance(module, nn.Dropout) and self.recipe.block_dropout is not None:
                module.p = self.recipe.block_dropout

    def _value(self, name: str) -> torch.Tensor:
        module_name, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(module_name)
        value: torch.Tensor = getattr(module, leaf)
        return value


def is_adapted(model: nn.Module) -> bool:
    """Return whether a model has adapters on it."""
    return any(parametrize.is_parametrized(module) for module in model.modules())
