"""A two-tower model in training: what is trained, its contrastive loss, one step of it, and its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from encoders.device import Placement
from encoders.lite import TwinlensMappedMeanPooler
from encoders.transfer import Transfer
from encoders.two_towers import TwoTowers

from .batches import Batch
from .checkpoint import Weights
from .config import Recipe
from .errors import TrainingError
from .examples import Kind
from .features import Feed, Part
from .on_device import adamw
from .tower_split import ConseTower, TextTower, Tower, image_tower, text_tower


def contrastive_loss(
    scores: torch.Tensor, positives: torch.Tensor, ignored: torch.Tensor | None = None, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the symmetric InfoNCE loss in which a row may have several right columns, and the other way about.

    For a positive p of a row: -log(exp(s_p) / (exp(s_p) + sum of exp(s_n) over the negatives n)), averaged over
    the positives of the row, then over rows; the same over columns; the mean of both (van den Oord et al. 2018,
    in CLIP's symmetric form). The other positives are not part of the sum, so captions of one image never push
    each other away. With one positive each it is CLIP's loss.

    Args:
        scores: (n, m) similarities times the logit scale.
        positives: (n, m) bool, what belongs together. Rows and columns without any only serve as negatives.
        ignored: (n, m) bool, pairs that are neither positive nor negative, such as two copies of one image.
        smoothing: Share of the target that goes evenly to the negatives; 0 to 0.1. It holds back
            over-confidence on small sets.
    """
    negatives = ~positives if ignored is None else ~(positives | ignored)
    rows = _one_way(scores, positives, negatives, smoothing)
    return (rows + _one_way(scores.T, positives.T, negatives.T, smoothing)) / 2


def _one_way(scores: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, smoothing: float) -> torch.Tensor:
    # The lowest finite number and not -inf, whose gradient would be NaN in a row without negatives.
    lowest = torch.finfo(scores.dtype).min
    against = torch.logsumexp(scores.masked_fill(~negatives, lowest), dim=1, keepdim=True)
    whole = torch.logaddexp(scores, against)
    losses = whole - scores
    if smoothing:
        negative_mean = (scores * negatives).sum(1, keepdim=True) / negatives.sum(1, keepdim=True).clamp(min=1)
        losses = (1 - smoothing) * losses + smoothing * (whole - negative_mean)
    counts = positives.sum(1)
    means = (losses * positives).sum(1) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


Chunk = Callable[[], torch.Tensor]
"""Computes the vectors of one chunk; must give the same values each time it is called."""
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def backward(left: Sequence[Chunk], right: Sequence[Chunk], loss: Loss) -> torch.Tensor:
    """Add the gradients of a loss over all left and right vectors to the parameters; return the loss, detached.

    With one chunk a side this is the plain backward pass, without the second forward pass.

    Args:
        left: Chunks whose vectors, joined, are the rows of one side.
        right: Chunks of the other side.
        loss: A scalar of all (n, dim) left and all (m, dim) right vectors; it may use parameters of its own.
    """
    if len(left) == 1 and len(right) == 1:
        value = loss(left[0](), right[0]())
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
    with torch.no_grad():
        parts = [[chunk() for chunk in side] for side in (left, right)]
    vectors = [torch.cat(side).requires_grad_() for side in parts]
    value = loss(*vectors)
    value.backward()  # type: ignore[no-untyped-call]
    for side, known, whole in zip((left, right), parts, vectors, strict=True):
        _second_pass(side, [len(part) for part in known], whole)
    return value.detach()


def _second_pass(chunks: Sequence[Chunk], sizes: list[int], whole: torch.Tensor) -> None:
    if whole.grad is None:
        return
    for chunk, gradient in zip(chunks, torch.split(whole.grad, sizes), strict=True):
        vectors = chunk()
        if vectors.requires_grad:
            vectors.backward(gradient)  # type: ignore[no-untyped-call]


# The number of a block in a parameter's name, as open_clip, timm and transformers write it.
_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|layers?|stages|h)\.(\d+)\.|(?:^|\.)layer(\d)\.")
# What comes before the blocks.
_STEM = re.compile(
    r"(?:^|\.)(?:conv1|conv2|conv3|bn1|bn2|bn3|conv_stem|stem|patch_embed|class_embedding|cls_token|pos_embed|"
    r"positional_embedding|token_embedding|embeddings|ln_pre|norm_pre)(?:\.|$)"
)
# EfficientNets end in one more convolution, which belongs to the last stage.
_LAST = re.compile(r"backbone\.(?:conv_head|bn2)\.")
_NO_DECAY = re.compile(r"(?:positional_embedding|class_embedding|cls_token|pos_embed|logit_scale|logit_bias)$")


def depths(model: nn.Module) -> dict[str, int]:
    """Return for each parameter how many blocks lie above it, counting its own: 0 for heads, most for the stem."""
    names = [name for name, _ in model.named_parameters()]
    highest = {side: max((_block(name) for name in names if _side(name) == side), default=-1) for side in _SIDES}
    return {name: _depth(name, highest[_side(name)]) for name in names}


_SIDES = ("image", "text", "both")


def _side(name: str) -> str:
    if name.startswith("visual."):
        return "image"
    return "both" if name in ("logit_scale", "logit_bias") else "text"


def _block(name: str) -> int:
    match = _BLOCK.search(name)
    return int(match[1] or match[2]) if match else -1


def _depth(name: str, highest: int) -> int:
    if _LAST.search(name):
        return 1
    block = _block(name)
    if block >= 0:
        return highest - block + 1
    return highest + 2 if _STEM.search(name) else 0


def choose(model: nn.Module, image_blocks: int | None, text_blocks: int | None) -> dict[str, nn.Parameter]:
    """Freeze all but the heads and the last blocks of each tower; return what is trained, by name.

    Args:
        model: An open_clip model.
        image_blocks: How many blocks of the image tower; None for the whole tower.
        text_blocks: The same for the text tower.
    """
    limits = {"image": image_blocks, "text": text_blocks, "both": None}
    depth_of = depths(model)
    for name, parameter in model.named_parameters():
        limit = limits[_side(name)]
        parameter.requires_grad_(limit is None or depth_of[name] <= limit)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def groups(
    model: nn.Module, trained: Iterable[str], rates: tuple[float, float, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: a learning rate for each depth, no decay on norms, biases and embeddings.

    Args:
        model: The model whose parameters are trained.
        trained: Their names.
        rates: (heads, last block, factor from one block to the one below it). The factor is 0.65 to 1: lower layers
            hold what is common to all images and need to change least.
        weight_decay: For matrices and filters.
    """
    head, block, factor = rates
    depth_of, parameters = depths(model), dict(model.named_parameters())
    table: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name in trained:
        depth = depth_of[name]
        rate = head if depth == 0 else block * factor ** (depth - 1)
        decays = parameters[name].ndim > 1 and not _NO_DECAY.search(name)
        table.setdefault((rate, weight_decay if decays else 0.0), []).append(parameters[name])
    return [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), members in table.items()
    ]


_WEIGHTS = {nn.Linear: ("weight",), nn.MultiheadAttention: ("in_proj_weight",)}


class LowRank(nn.Module):
    """Adds a trained matrix of low rank to a frozen one."""

    def __init__(self, weight: torch.Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.empty(rank, columns, device=weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the adapted weight."""
        return weight + self.scale * (self.up @ self.down)


def add_adapters(blocks: Iterable[nn.Module], rank: int, alpha: float) -> int:
    """Put adapters on every linear and attention weight inside some blocks; return how many.

    Args:
        blocks: Whose weights to adapt; the weights themselves are frozen.
        rank: Of the trained matrices; 4 to 64. Higher learns more and costs more.
        alpha: Adapters are scaled by alpha / rank; 1 to 2 times the rank is usual.
    """
    count = 0
    for block in blocks:
        for module in list(block.modules()):
            for name in (name for name in _names(module) if getattr(module, name) is not None):
                parametrize.register_parametrization(module, name, LowRank(getattr(module, name), rank, alpha))
                count += 1
    return count


def merge_adapters(model: nn.Module) -> None:
    """Make the adapted weights ordinary ones, in place."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _names(module: nn.Module) -> tuple[str, ...]:
    return next((names for kind, names in _WEIGHTS.items() if isinstance(module, kind)), ())


# CLIP's clamp (Radford et al. 2021): a scale above 100 made training unstable.
MAX_SCALE = math.log(100)


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
        self._sent = Transfer(placement.device)
        if not trained:
            raise TrainingError(f"mode {recipe.mode!r} trains nothing of this encoder; choose mode full")

    def part(self, kind: Kind) -> Part:
        """Return the trained part of one tower."""
        tower: Tower = self.image if kind == "image" else self.text
        return Part(tower=tower, cut=self._cut(kind), placement=self.placement)

    def optimizer(self) -> torch.optim.AdamW:
        """Return a fresh AdamW over all that is trained; each step keeps the logit scale between 1 and 100."""
        recipe = self.recipe
        rates = (recipe.head_lr, recipe.lr, recipe.layer_decay)
        parts = groups(self.model, self.trained, rates, recipe.weight_decay)
        optimizer = adamw(parts, self.placement)
        optimizer.register_step_post_hook(self._clamp_scale)
        return optimizer

    def training_mode(self, on: bool) -> None:
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

    def backward(self, batch: Batch, feeds: tuple[Feed, Feed], seed: tuple[int, int]) -> torch.Tensor:
        """Add one batch's gradients to the parameters; return its loss, which is not waited for."""
        order = feeds[1].order(batch.right)
        left = self._chunks(feeds[0], batch.left, batch.views, (*seed, 0))
        right = self._chunks(feeds[1], batch.right[order], np.zeros(len(order), np.int64), (*seed, 1))
        positives = self._sent(torch.from_numpy(batch.positives[:, order]))
        ignored = self._sent(torch.from_numpy(batch.ignored[:, order])) if batch.ignored.any() else None

        def loss(left_vectors: torch.Tensor, right_vectors: torch.Tensor) -> torch.Tensor:
            scores = self.model.logit_scale.exp() * left_vectors @ right_vectors.T
            return contrastive_loss(scores, positives, ignored, self.recipe.smoothing)

        return backward(left, right, loss)

    def weights(self) -> Weights:
        """Return a copy of what was trained, adapters merged, on the CPU."""
        values = {name: self._value(name) for name in self.start}
        return {name: value.detach().to("cpu", copy=True) for name, value in values.items()}

    def state(self) -> Weights:
        """Return a copy of the trained parameters as they are, adapters apart, on the CPU."""
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.trained.items()}

    def restore(self, state: Weights) -> None:
        """Put back what `state` returned."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state[name])

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put weights in place; adapters, if there are any, are merged first."""
        merge_adapters(self.model)
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                parameters[name].copy_(value)

    def _clamp_scale(self, *_: Any) -> None:
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_SCALE)

    def _chunks(self, feed: Feed, rows: np.ndarray, views: np.ndarray, seed: tuple[int, ...]) -> list[Chunk]:
        count = max(1, -(-len(rows) // self.recipe.chunk_size))
        parts = zip(np.array_split(rows, count), np.array_split(views, count), strict=True)
        return [self._chunk(feed, part, view, (*seed, number)) for number, (part, view) in enumerate(parts)]

    def _chunk(self, feed: Feed, rows: np.ndarray, views: np.ndarray, seed: tuple[int, ...]) -> Chunk:
        state = int(np.random.SeedSequence(seed).generate_state(1)[0])
        inputs = feed.fetch(rows, views)

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
