"""Settings of fine-tuning: `FitConfig`, what a caller may set; `Recipe`, the same with every value filled in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from storage.arguments import check_fields, exits_as_typed_wrong

from .errors import TrainingError

if TYPE_CHECKING:
    from encoders.device import Placement

Mode = Literal["auto", "full", "upper", "head", "lora"]
MODES: tuple[Mode, ...] = ("auto", "full", "upper", "head", "lora")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of one fine-tuning. None means: what suits the encoder, the mode and the device (see `Recipe`).

    Attributes:
        mode: What is trained. `head`: the projections only, seconds with cached features. `upper`: also the last blocks
            of each tower; the frozen ones below are computed once. `full`: everything; for a GPU or a small model.
            `lora`: low-rank adapters in the blocks, and the heads; a tenth of the optimiser's memory. `auto`: `upper`
            for `lite`, otherwise `full` on a GPU and `head` on a CPU.
        image_blocks: How many of the last blocks of the image tower `upper` and `lora` train; None for all.
        text_blocks: The same for the text tower.
        lora_rank: Rank of the adapters; 4 to 64.
        lora_alpha: Adapters are scaled by alpha / rank.
        epochs: Times that each image is seen; 5 to 30. Early stopping takes the best of them.
        batch_size: Distinct images a step, 2 or more, which compete with each other: more is better and, with
            `chunk_size`, costs no memory.
        chunk_size: Images in one forward pass with gradients. Lower it where memory runs out; results do not change.
        captions: Captions drawn for each image and epoch.
        lr: Learning rate of the last block: 1e-6 to 1e-4 for large pretrained models, up to 1e-3 for small ones.
        head_lr: Learning rate of heads and logit scale.
        layer_decay: What the learning rate is multiplied by from one block to the one below it; 0.65 to 1.
        weight_decay: AdamW's, on matrices and filters only; 0 to 0.2.
        warmup: Share of the steps in which the learning rate rises; then it falls as a cosine to 0.
        clip_norm: Largest norm of the gradient; 0 for any.
        smoothing: Share of the target that goes evenly to the negatives; 0 to 0.1.
        dropout: Share of the features that the heads of `lite` do not see in a step; other models have none. 0.5 to 0.8
            for some thousand images, less for more.
        block_dropout: Of the dropout layers in trained blocks, where a model has any; None leaves the model's own.
        temperature: 1 / logit scale to start from; None keeps the encoder's.
        views: Augmented views of each image that are cached beside the plain one; without a cache each epoch draws a
            fresh one where this is above 0.
        time_limit: Seconds for everything, the last evaluation and saving included; the schedule ends when the time
            does. Where the features of frozen blocks are not ready in half of it, augmented views are left out first,
            then examples; reading the images takes 15 % at most. The report says what was used. 0 saves the untrained
            encoder.
        evaluations: How many times in all validation recall is measured; 0.5 to 2 an epoch is usual.
        patience: Evaluations without gain after which training stops; None never stops early.
        val_share: Share of the images held back for validation where none are given.
        soup: How many of the best checkpoints are averaged, greedily; 1 takes the best one.
        interpolate: Whether to try weights between the untrained and the trained model, on the validation images.
        cache_bytes: Memory for the features of frozen blocks; where they do not fit they are computed each time.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `fp32` or `bf16`. `auto`: bf16 on a GPU that has it, else fp32. Weights stay in fp32.
        seed: The same seed gives the same encoder on the same machine.
    """

    # What is trained.
    mode: Mode = "auto"
    image_blocks: int | None = None
    text_blocks: int | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    # Steps and learning rates.
    epochs: int | None = None
    batch_size: int | None = None
    chunk_size: int | None = None
    captions: int | None = None
    lr: float | None = None
    head_lr: float | None = None
    layer_decay: float | None = None
    weight_decay: float | None = None
    warmup: float = 0.1
    clip_norm: float = 1.0
    # Regularisation and augmentation.
    smoothing: float | None = None
    dropout: float | None = None
    block_dropout: float | None = None
    temperature: float | None = None
    views: int | None = None
    # When to stop, and which weights to keep.
    time_limit: float | None = None
    evaluations: int | None = None
    patience: int | None = 5
    val_share: float = 0.1
    soup: int = 3
    interpolate: bool = True
    # Where to run.
    cache_bytes: int = 4 * 2**30
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, TrainingError)
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainingError(f"{name} is {value!r}; give 1 or more")
        if self.batch_size is not None and self.batch_size < 2:
            raise TrainingError(
                f"batch_size is {self.batch_size!r}, so nothing in a step could be told apart; give 2 or more"
            )
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise TrainingError(f"{name} is {value!r}; give 0 or more")
        for name in _SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise TrainingError(f"{name} is {value!r}; give a share from 0 to below 1")
        if self.val_share == 0:
            raise TrainingError("val_share is 0; give a share above 0, or val of your own")


_AT_LEAST_ONE = ("epochs", "chunk_size", "captions", "lora_rank", "soup", "patience", "evaluations")
_NOT_NEGATIVE = (
    "image_blocks",
    "text_blocks",
    "lr",
    "head_lr",
    "layer_decay",
    "weight_decay",
    "views",
    "time_limit",
    "clip_norm",
    "lora_alpha",
    "cache_bytes",
    "seed",
)
_SHARES = ("warmup", "smoothing", "dropout", "block_dropout", "val_share")


@dataclass(frozen=True, kw_only=True)
class Recipe(FitConfig):
    """A `FitConfig` without open ends, which a run follows from then on; see there for the fields.

    The defaults are those of mode `full`: the usual values of AutoMM and open_clip for pretrained CLIP models.
    `image_blocks` and `text_blocks` are None for a whole tower; device and precision are those of the run.
    """

    mode: Mode = "full"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    epochs: int = 10
    batch_size: int = 128
    chunk_size: int = 32
    captions: int = 1
    lr: float = 1e-5
    head_lr: float = 1e-5
    layer_decay: float = 0.9
    weight_decay: float = 0.05
    smoothing: float = 0.0
    dropout: float = 0.0
    views: int = 1
    evaluations: int = 10


# What the other modes have otherwise than `full`.
_MODES: dict[Mode, dict[str, Any]] = {
    "full": {},
    "upper": {"image_blocks": 2, "text_blocks": 2, "lr": 2e-5, "head_lr": 5e-5},
    "head": {"image_blocks": 0, "text_blocks": 0, "head_lr": 1e-4, "views": 2, "batch_size": 512},
    "lora": {"lr": 2e-4, "head_lr": 1e-4},
}
# What `lite` has otherwise than large pretrained models, in every mode; chosen on parts of Flickr8k's train split.
# benchmarks/fine_tune.py measures them on its dev split.
_LITE: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 500,
    "chunk_size": 128,
    "lr": 2e-4,
    "head_lr": 3e-4,
    "layer_decay": 1.0,
    "dropout": 0.8,
    "block_dropout": 0.3,
    "temperature": 0.05,
    "views": 1,
}
# In mode `upper`: the heads over pooled features, and the last block of the text tower.
_LITE_UPPER: dict[str, Any] = {"image_blocks": 0, "text_blocks": 1}
FEWEST_IN_BATCH = 32
GPU_CHUNK = 128


def recipe_for(config: FitConfig, family: str, placement: Placement, count: int) -> Recipe:
    """Return the settings of a run: the caller's where given, else those of mode and encoder.

    Args:
        config: What the caller set.
        family: `lite` for the embedded encoder and what was fine-tuned from it; anything else for other models.
        placement: Where it runs.
        count: How many distinct items there are to learn from; few of them make smaller batches, so that an epoch has
            at least a handful of steps.
    """
    lite, on_gpu = family == "lite", placement.kind == "cuda"
    mode = config.mode
    if mode == "auto":
        mode = "upper" if lite else "full" if on_gpu else "head"
    values = _MODES[mode] | (_LITE if lite else {}) | (_LITE_UPPER if lite and mode == "upper" else {})
    usual = Recipe(**values)
    usual = replace(
        usual,
        chunk_size=max(usual.chunk_size, GPU_CHUNK) if on_gpu else usual.chunk_size,
        batch_size=min(usual.batch_size, max(FEWEST_IN_BATCH, -(-count // 4))),
    )
    open_ends = {field.name for field in fields(FitConfig) if field.default is None}
    own = {field.name: getattr(config, field.name) for field in fields(FitConfig)}
    own = {name: value for name, value in own.items() if value is not None or name not in open_ends}
    return replace(usual, **{**own, "mode": mode, "device": placement.device, "precision": placement.precision})
