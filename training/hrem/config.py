"""Settings of HREM's training: `HremConfig`, what the caller may set. `docs/hrem.md` has them as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from storage.arguments import check_fields, exits_as_typed_wrong

from ..errors import TrainingError

Interaction = Literal["fusion", "standalone", "none"]
Ranking = Literal["distance", "hardest"]
LinksWithin = Literal["own", "across"]
RelationGradient = Literal["through", "stopped"]
INTERACTIONS: tuple[Interaction, ...] = ("fusion", "standalone", "none")
RANKINGS: tuple[Ranking, ...] = ("distance", "hardest")
LINKS_WITHIN: tuple[LinksWithin, ...] = ("own", "across")
RELATION_GRADIENTS: tuple[RelationGradient, ...] = ("through", "stopped")
# Where the two published settings differ. The warm-up is 8,000 steps of each data set's batches.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "f30k": {"batch_size": 128, "cutoff": 1.7, "relation_weight": 1.0, "warmup_epochs": 8000 / (145_000 // 128)},
    "coco": {"batch_size": 256, "cutoff": 1.9, "relation_weight": 1.5, "warmup_epochs": 8000 / (566_435 // 256)},
}


@dataclass(frozen=True, kw_only=True)
class HremConfig:
    """Settings of one training run.

    The defaults are those that HREM's published code has for Flickr30K, as far as it has the setting; those of COCO
    stand beside them where they differ. Defaults of our own are marked "ours".

    Attributes:
        bert: Text transformer: a folder, a hub name, `lite` for the one embedded there, or `auto` (ours):
            `bert-base-uncased`, which is published, where it can be had, else that of `lite`. `bigru` trains word
            vectors and a recurrent network instead.
        freeze_bert: Leave the transformer as it is; its states are computed once, so that a CPU can train the rest
            (ours).
        dim: Length of the embeddings; 256 to 1024.
        max_tokens: Tokens of a caption at most (ours).
        pooling: `max` (the mean of the two largest values) or `gpo` (learned).
        fragment_relation: Attention among the regions of an image and among the words of a caption.
        residual_weight: Share of the embedding pooled before that attention.
        heads: Of all attention layers.
        layers: Attention layers of a tower.
        relation_layers: Attention layers of the interaction.
        dropout: In all attention layers.
        interaction: How instances attend to each other in training: `fusion`, all in one layer; `standalone`, first
            across and then within the modalities; `none`.
        warmup_epochs: Before the instances attend to each other. The published 8,000 steps are 7 epochs of Flickr30K
            and 3.6 of COCO.
        link_share: Share of a batch that each instance is linked to, within each of the four blocks.
        links_within: What links images to images and captions to captions: `own`, cosines among them; `across`, as the
            first published version had it, the cosine of the one with the match of the other.
        relation_weight: What relevance is multiplied with before it is added to attention; 1.5 for COCO.
        top_fragments: Largest fragment affinities that the relevance network sees.
        ranking: Loss of the plain embeddings: `distance`, one negative drawn by its distance; `hardest`, the nearest.
        relation_ranking: The same for enhanced embeddings.
        relation_gradient: `through`: towers and relation learn from all losses, through each other. `stopped` (ours):
            the relation sees the embeddings as given and learns from those it enhances alone; the towers learn from
            their own and from the cross losses, in which enhanced embeddings are given.
        cross_loss: Whether plain embeddings are also ranked against enhanced ones; without, enhanced ones only among
            themselves.
        margin: By how much a match should be nearer; 0.1 to 0.3.
        cutoff: Distance beyond which no negative is drawn; 1.9 for COCO.
        distance_dim: Dimension that the distribution of distances is taken from; 512, although embeddings have 1024.
        regularisation: Weight of the divergence that ties cross-modal relevance to the distances of the embeddings.
        temperature: Of the two softmaxes in it.
        region_drop: Share of the regions that a step does not see.
        word_drop: Share of the words that a step hides, exchanges or leaves out.
        batch_size: Captions, each with its image; 256 for COCO.
        epochs: Times that each caption is seen.
        lr: Learning rate of towers and instance relation.
        bert_lr_factor: What it is multiplied with for the transformer.
        graph_lr_factor: What it is multiplied with for the instance relation.
        lr_steps: Epochs at which it falls; None for one half and five sixths of all (15 and 25 of 30).
        lr_decay: What it is multiplied with at each of them.
        weight_decay: AdamW's, on everything.
        clip_norm: Largest norm of the gradient.
        dev_images: Images of the dev split that weights are chosen by; None for all. The papers take 1,000.
        patience: Epochs without gain after which training stops; None never stops early (ours).
        time_limit: Seconds for everything, saving included; the best weights so far are kept (ours).
        workers: Batches read ahead, each in its thread (ours; published: 8).
        cache: Folder for the states of a frozen transformer; None puts them beside the output (ours).
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (fp32, as published), `fp32` or `bf16`.
        seed: The same seed gives the same towers on the same machine.
    """

    # The two towers.
    bert: str = "auto"
    freeze_bert: bool = False
    dim: int = 1024
    max_tokens: int = 64
    pooling: Literal["max", "gpo"] = "max"
    fragment_relation: bool = True
    residual_weight: float = 0.8
    heads: int = 16
    layers: int = 1
    relation_layers: int = 1
    dropout: float = 0.1
    # The instance relation.
    interaction: Interaction = "fusion"
    warmup_epochs: float = 7.0
    link_share: float = 0.5
    links_within: LinksWithin = "own"
    relation_weight: float = 1.0
    top_fragments: int = 10
    # The losses.
    ranking: Ranking = "distance"
    relation_ranking: Ranking = "distance"
    relation_gradient: RelationGradient = "through"
    cross_loss: bool = True
    margin: float = 0.2
    cutoff: float = 1.7
    distance_dim: int = 512
    regularisation: float = 10.0
    temperature: float = 1.0
    # Augmentation.
    region_drop: float = 0.2
    word_drop: float = 0.2
    # Steps and learning rates.
    batch_size: int = 128
    epochs: int = 30
    lr: float = 5e-4
    bert_lr_factor: float = 0.1
    graph_lr_factor: float = 1.0
    lr_steps: tuple[int, ...] | None = None
    lr_decay: float = 0.1
    weight_decay: float = 1e-4
    clip_norm: float = 2.0
    # When to stop, and what weights are chosen by.
    dev_images: int | None = 1000
    patience: int | None = None
    time_limit: float | None = None
    # Where to run.
    workers: int = 2
    cache: str | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, TrainingError)
        if self.precision not in _PRECISIONS:
            raise TrainingError(f"precision is {self.precision!r}; choose one of {', '.join(_PRECISIONS)}")
        for names, least, greatest in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not least <= value <= greatest:
                    raise TrainingError(f"{name} is {value!r}; give {_range(least, greatest)}")
        if self.interaction != "none" and self.warmup_epochs >= self.epochs:
            raise TrainingError(
                f"warmup_epochs {self.warmup_epochs:g} leaves none of the {self.epochs} epochs to instance relations; "
                "lower it, or take interaction 'none'"
            )
        if self.interaction != "none" and self.relation_gradient == "stopped" and not self.cross_loss:
            raise TrainingError(
                "relation_gradient 'stopped' without cross_loss teaches the towers nothing; leave cross_loss on, or "
                "take 'through'"
            )

    @classmethod
    def preset(cls, name: str, **settings: Any) -> HremConfig:
        """Return the published settings of a data set, with those given in their place.

        Args:
            name: `f30k` or `coco`.
            settings: Fields of this class.

        Raises:
            TrainingError: The name is unknown, or a setting cannot be.
        """
        if name not in PRESETS:
            raise TrainingError(f"preset is {name!r}; choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **settings})

    @property
    def steps(self) -> tuple[int, ...]:
        """Epochs at which the learning rate falls."""
        if self.lr_steps is not None:
            return self.lr_steps
        return (round(self.epochs / 2), round(self.epochs * 5 / 6))


_PRECISIONS = ("auto", "fp32", "bf16")
_INFINITE = float("inf")
_NOT_NEGATIVE = (
    "relation_weight",
    "regularisation",
    "lr",
    "bert_lr_factor",
    "graph_lr_factor",
    "weight_decay",
    "time_limit",
    "warmup_epochs",
    "seed",
)
_RANGES: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (
        ("dim", "heads", "layers", "relation_layers", "top_fragments", "epochs", "dev_images", "patience", "workers"),
        1,
        _INFINITE,
    ),
    (("batch_size",), 2, _INFINITE),
    (("max_tokens", "distance_dim"), 4, _INFINITE),
    (("temperature", "clip_norm"), 1e-6, _INFINITE),
    (_NOT_NEGATIVE, 0, _INFINITE),
    (("residual_weight", "link_share", "lr_decay"), 0, 1),
    (("region_drop", "word_drop", "dropout"), 0, 0.95),
    (("margin", "cutoff"), 0, 2),
)


def _range(least: float, greatest: float) -> str:
    return f"{least:g} or more" if greatest == _INFINITE else f"a value from {least:g} to {greatest:g}"
