"""How to train: what the caller may set. Defaults are those of HREM's published code; `docs/hrem.md` has the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import TrainingError

Interaction = Literal["fusion", "standalone", "none"]
Ranking = Literal["distance", "hardest"]
INTERACTIONS: tuple[Interaction, ...] = ("fusion", "standalone", "none")
RANKINGS: tuple[Ranking, ...] = ("distance", "hardest")


@dataclass(frozen=True, kw_only=True)
class HremConfig:
    """Settings of one training run.

    Attributes:
        bert: Text transformer: a folder, a hub name, `lite` for the one embedded there, or `auto`: `bert-base-uncased`
            where it can be had, else that of `lite`. `bigru` trains word vectors and a recurrent network instead.
        freeze_bert: Leave the transformer as it is; its states are computed once, so that a CPU can train the rest.
        dim: Length of the embeddings; 256 to 1024.
        max_tokens: Tokens of a caption at most.
        fragment_relation: Attention among the regions of a picture and among the words of a caption.
        residual_weight: Share of the embedding pooled before that attention.
        pooling: `max` (the mean of the two largest values) or `gpo` (learned).
        heads: Of all attention layers.
        layers: Attention layers of a tower, and of the interaction.
        dropout: In all attention layers.
        interaction: How instances attend to each other in training: `fusion`, all in one layer; `standalone`, first
            across and then within the modalities; `none`.
        warmup_epochs: Before the instances attend to each other. The published 8,000 steps are 7 epochs of Flickr30K
            and 3.6 of COCO.
        link_share: Share of a batch that each instance is linked to, within each of the four blocks.
        relation_weight: What relevance is multiplied with before it is added to attention; 1 for Flickr30K, 1.5 COCO.
        top_fragments: Largest fragment affinities that the relevance network sees.
        sigma: Distance at which the relevance within a modality has fallen to 1/e.
        normalise_instances: Whether unit vectors enter the interaction.
        cross_loss: Whether plain embeddings are also ranked against enhanced ones; without, enhanced ones only among
            themselves.
        regularisation: Weight of the divergence that ties cross-modal relevance to the distances of the embeddings.
        temperature: Of the two softmaxes in it.
        ranking: Loss of the plain embeddings: `distance`, one negative drawn by its distance; `hardest`, the nearest.
        relation_ranking: The same for enhanced embeddings.
        margin: By how much a match should be nearer; 0.1 to 0.3.
        cutoff: Distance beyond which no negative is drawn; 1.7 for Flickr30K, 1.9 for COCO.
        distance_dim: Dimension that the distribution of distances is taken from. The published code has 512 for
            embeddings of 1024.
        all_negatives_epochs: Epochs in which `hardest` takes all negatives.
        region_drop: Share of the regions that a step does not see.
        word_drop: Share of the words that a step hides, exchanges or leaves out.
        batch_size: Captions, each with its picture; 128 for Flickr30K, 256 for COCO.
        epochs: Times that each caption is seen.
        lr: Learning rate; 5e-4 for towers and graph.
        bert_lr_factor: Of it for the transformer.
        graph_lr_factor: Of it for the interaction.
        lr_steps: Epochs at which it falls; None for one half and five sixths of all (15 and 25 of 30).
        lr_decay: By what it is multiplied then.
        weight_decay: AdamW's, on everything.
        clip_norm: Largest length of the gradient.
        dev_images: Pictures of the dev split that weights are chosen by; None for all. The papers take 1,000.
        patience: Epochs without gain after which training stops; None never stops early.
        time_limit: Seconds for everything; the best weights so far are kept.
        workers: Batches read ahead, each in its thread.
        cache: Folder for the states of a frozen transformer; None puts them beside the output.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (fp32, as published), `fp32` or `bf16`.
        seed: The same seed gives the same towers on the same machine.
    """

    bert: str = "auto"
    freeze_bert: bool = False
    dim: int = 1024
    max_tokens: int = 64
    fragment_relation: bool = True
    residual_weight: float = 0.8
    pooling: Literal["max", "gpo"] = "max"
    heads: int = 16
    layers: int = 1
    dropout: float = 0.1
    interaction: Interaction = "fusion"
    warmup_epochs: float = 7.0
    link_share: float = 0.5
    relation_weight: float = 1.0
    top_fragments: int = 10
    sigma: float = 1.0
    normalise_instances: bool = True
    cross_loss: bool = True
    regularisation: float = 10.0
    temperature: float = 1.0
    ranking: Ranking = "distance"
    relation_ranking: Ranking = "distance"
    margin: float = 0.2
    cutoff: float = 1.7
    distance_dim: int = 512
    all_negatives_epochs: int = 1
    region_drop: float = 0.2
    word_drop: float = 0.2
    batch_size: int = 128
    epochs: int = 30
    lr: float = 5e-4
    bert_lr_factor: float = 0.1
    graph_lr_factor: float = 1.0
    lr_steps: tuple[int, ...] | None = None
    lr_decay: float = 0.1
    weight_decay: float = 1e-4
    clip_norm: float = 2.0
    dev_images: int | None = 1000
    patience: int | None = None
    time_limit: float | None = None
    workers: int = 2
    cache: str | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        for names, least, most in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not least <= value <= most:
                    raise TrainingError(f"{name} is {value!r}; give {_range(least, most)}")
        if self.interaction != "none" and self.warmup_epochs >= self.epochs:
            raise TrainingError(
                f"warmup_epochs {self.warmup_epochs:g} leaves none of the {self.epochs} epochs to instance relations; "
                "lower it, or take interaction 'none'"
            )

    @property
    def steps(self) -> tuple[int, ...]:
        """Epochs at which the learning rate falls."""
        if self.lr_steps is not None:
            return self.lr_steps
        return (round(self.epochs / 2), round(self.epochs * 5 / 6))


_CHOICES: dict[str, tuple[str, ...]] = {
    "interaction": INTERACTIONS,
    "ranking": RANKINGS,
    "relation_ranking": RANKINGS,
    "pooling": ("max", "gpo"),
    "precision": ("auto", "fp32", "bf16"),
}
_INFINITE = float("inf")
_RANGES: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("dim", "heads", "layers", "top_fragments", "epochs", "dev_images", "patience", "workers"), 1, _INFINITE),
    (("batch_size",), 2, _INFINITE),
    (("max_tokens", "distance_dim"), 4, _INFINITE),
    (("sigma", "temperature", "clip_norm"), 1e-6, _INFINITE),
    (
        (
            "relation_weight",
            "regularisation",
            "lr",
            "bert_lr_factor",
            "graph_lr_factor",
            "weight_decay",
            "time_limit",
            "warmup_epochs",
            "all_negatives_epochs",
            "seed",
        ),
        0,
        _INFINITE,
    ),
    (("residual_weight", "link_share", "lr_decay"), 0, 1),
    (("region_drop", "word_drop", "dropout"), 0, 0.95),
    (("margin", "cutoff"), 0, 2),
)


def _range(least: float, most: float) -> str:
    return f"{least:g} or more" if most == _INFINITE else f"a value from {least:g} to {most:g}"
