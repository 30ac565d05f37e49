"""The shape of the two towers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import EncoderError

Pooling = Literal["max", "gpo"]
Words = Literal["bert", "bigru"]


@dataclass(frozen=True, kw_only=True)
class TowersConfig:
    """What a checkpoint needs to be built again. The defaults are those of HREM's published code.

    Attributes:
        region_dim: Length of one region's features: 2048 of bottom-up attention, 320 or 1280 of `lite`'s trunk.
        max_regions: Regions of a picture at most.
        dim: Length of the embeddings; 256 to 1024. Time and memory grow with its square.
        words: `bert`: a transformer from any folder or hub; `bigru`: word vectors and a recurrent network.
        word_dim: Length of BERT's token states, or of the word vectors of `bigru` (300).
        max_tokens: Tokens of a text at most, [CLS] and [SEP] included; the rest is cut.
        fragment_relation: Whether the regions of a picture, and the words of a text, attend to each other.
        residual_weight: Share of the embedding pooled before that attention; 0.8 of it and 0.2 of what comes after.
        pooling: Before the attention: `max`, the mean of the `max_k` largest values of each dimension; `gpo`, learned
            weights of the sorted values (Chen et al. 2021, "Learning the Best Pooling Strategy ...").
        max_k: Values that `max` takes.
        heads: Of each attention layer; must divide `dim`.
        layers: Attention layers of a tower.
        ff_dim: Width inside an attention layer; None for `dim`.
        dropout: In the attention layers.
    """

    region_dim: int
    max_regions: int
    dim: int = 1024
    words: Words = "bert"
    word_dim: int = 768
    max_tokens: int = 64
    fragment_relation: bool = True
    residual_weight: float = 0.8
    pooling: Pooling = "max"
    max_k: int = 2
    heads: int = 16
    layers: int = 1
    ff_dim: int | None = None
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.heads < 1 or self.dim < 1 or self.dim % self.heads:
            raise EncoderError(f"dim {self.dim} cannot be cut into {self.heads} heads; give a multiple")
        for name in ("region_dim", "max_regions", "word_dim", "max_k", "layers"):
            if getattr(self, name) < 1:
                raise EncoderError(f"{name} is {getattr(self, name)!r}; give 1 or more")
        if self.max_tokens < 3:
            raise EncoderError(f"max_tokens is {self.max_tokens}; give 3 or more, since two go to [CLS] and [SEP]")
        if not 0 <= self.residual_weight <= 1:
            raise EncoderError(f"residual_weight is {self.residual_weight!r}; give a share from 0 to 1")
        if self.pooling not in ("max", "gpo") or self.words not in ("bert", "bigru"):
            raise EncoderError(
                f"pooling {self.pooling!r} or words {self.words!r} is unknown; choose max, gpo; bert, bigru"
            )
