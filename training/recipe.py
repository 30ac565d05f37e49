"""Settings that suit an encoder, a mode and a device, with what the caller set on top."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from encoders.device import Placement

from .config import FitConfig, Mode


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A `FitConfig` without open ends; see there. `image_blocks` and `text_blocks` are None for a whole tower."""

    mode: Mode
    image_blocks: int | None
    text_blocks: int | None
    epochs: int
    batch_size: int
    chunk_size: int
    captions: int
    lr: float
    head_lr: float
    layer_decay: float
    weight_decay: float
    smoothing: float
    dropout: float
    block_dropout: float | None
    temperature: float | None
    looks: int
    evaluations: int
    lora_rank: int
    lora_alpha: float


FEWEST_IN_BATCH = 32
# Found on parts of Flickr8k's train split; benchmarks/fine_tune.py measures them on its dev split.
_LITE: dict[str, Any] = {
    "mode": "upper", "image_blocks": 0, "text_blocks": 1, "epochs": 40, "batch_size": 500, "chunk_size": 128,
    "captions": 1, "lr": 2e-4, "head_lr": 3e-4, "layer_decay": 1.0, "weight_decay": 0.05, "smoothing": 0.0,
    "dropout": 0.8, "block_dropout": 0.3, "temperature": 0.05, "looks": 1, "evaluations": 10,
}  # fmt: skip
# AutoMM's and open_clip's usual values for pretrained CLIP models.
_FULL: dict[str, Any] = {
    "image_blocks": None, "text_blocks": None, "epochs": 10, "batch_size": 128, "chunk_size": 32, "captions": 1,
    "lr": 1e-5, "head_lr": 1e-5, "layer_decay": 0.9, "weight_decay": 0.05, "smoothing": 0.0, "dropout": 0.0,
    "block_dropout": None, "temperature": None, "looks": 1, "evaluations": 10, "lora_rank": 8, "lora_alpha": 16.0,
}  # fmt: skip
_OTHERS: dict[Mode, dict[str, Any]] = {
    "full": _FULL,
    "upper": {**_FULL, "image_blocks": 2, "text_blocks": 2, "lr": 2e-5, "head_lr": 5e-5},
    "head": {**_FULL, "image_blocks": 0, "text_blocks": 0, "head_lr": 1e-4, "looks": 2, "batch_size": 512},
    "lora": {**_FULL, "lr": 2e-4, "head_lr": 1e-4},
}


def recipe_for(config: FitConfig, family: str, placement: Placement, count: int) -> Recipe:
    """Return the settings of a run.

    Args:
        config: What the caller set.
        family: `lite` for the embedded encoder and what was fine-tuned from it; anything else for other models.
        placement: Where it runs.
        count: How many distinct items there are to learn from; few of them make smaller batches, so that an epoch has
            at least a handful of steps.
    """
    mode = config.mode
    if mode == "auto":
        mode = "upper" if family == "lite" else "full" if placement.kind == "cuda" else "head"
    values: dict[str, Any] = {**_OTHERS[mode], "mode": mode}
    if family == "lite":
        values |= {name: value for name, value in _LITE.items() if name not in ("mode", "image_blocks", "text_blocks")}
        if mode == "upper":
            values |= _LITE
    if placement.kind == "cuda":
        values["chunk_size"] = max(values["chunk_size"], 128)
    values["batch_size"] = min(values["batch_size"], max(FEWEST_IN_BATCH, -(-count // 4)))
    own = {name: value for name, value in asdict(config).items() if name in values and value is not None}
    return Recipe(**{**values, **own, "mode": mode})
