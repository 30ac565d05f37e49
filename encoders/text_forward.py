"""Forward passes of open_clip's text towers on the tokens that are there, instead of on all that a text may have.

A caption has some 15 tokens and a tower computes 64 or 77. What may be left out depends on the tower: one from Hugging
Face masks padding; a causal one lets no token see a later one and reads the vector at the end-of-text token. Others see
the padding, and get all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer
from torch import nn


class TextForward(Protocol):
    """Token ids to features, for ids that were cut to the longest of `lengths`."""

    @property
    def cuts(self) -> bool:
        """Whether a short text costs less than a long one."""

    def lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (n,) int64: how many of the tokens of each row of (n, length) ids change its features."""

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) features, not normalised, of (n, length) token ids."""


def text_forward(model: nn.Module) -> TextForward:
    """Return the forward pass of a model's text tower that needs the fewest tokens; features are equal to rounding."""
    text: Any = getattr(model, "text", None)
    if isinstance(text, HFTextEncoder):
        return PaddedForward(model, text.config.pad_token_id)
    tower: Any = model if type(model) is CLIP else text
    if type(tower) is CLIP:
        pool, end = tower.text_pool_type, tower.text_eos_id
    elif type(tower) is TextTransformer and tower.cls_emb is None and not tower.output_tokens:
        pool, end = tower.pool_type, tower.eos_id
    else:
        return WholeForward(model)
    if tower.attn_mask is None or pool not in ("argmax", "eos"):
        return WholeForward(model)
    return CausalForward(tower, end if pool == "eos" else None)


@dataclass(frozen=True)
class WholeForward:
    """The forward pass of a tower in which padding takes part: every text is as long as the longest."""

    model: Any
    cuts: bool = False

    def lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the whole length for every row."""
        return torch.full((len(ids),), ids.shape[1], dtype=torch.int64)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) features."""
        features: torch.Tensor = self.model.encode_text(ids)
        return features


@dataclass(frozen=True)
class PaddedForward:
    """The forward pass of a Hugging Face tower, which masks its padding out: 5 times as fast for captions."""

    model: Any
    pad: int
    cuts: bool = True

    def lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the position after the last token that is no padding; at least 1."""
        positions = torch.arange(1, ids.shape[1] + 1)
        return ((ids != self.pad) * positions).amax(1).clamp(min=1)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) features."""
        features: torch.Tensor = self.model.encode_text(ids)
        return features


@dataclass(frozen=True)
class CausalForward:
    """The forward pass of open_clip's own causal tower: a `TextTransformer`, or the `CLIP` that holds the same parts.

    Attributes:
        tower: The module with the parts.
        end: The id of the end-of-text token; None where it is the largest id of all.
    """

    tower: Any
    end: int | None
    cuts: bool = True

    def lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the position after the end-of-text token."""
        return self._ends(ids) + 1

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) features."""
        tower, length = self.tower, ids.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        embedded = tower.token_embedding(ids).to(dtype) + tower.positional_embedding[:length].to(dtype)
        states = tower.ln_final(tower.transformer(embedded, attn_mask=tower.attn_mask[:length, :length]))
        pooled = states[torch.arange(len(ids), device=ids.device), self._ends(ids)]
        return self._projected(pooled)

    def _ends(self, ids: torch.Tensor) -> torch.Tensor:
        marks = ids if self.end is None else (ids == self.end).int()
        return marks.argmax(dim=-1)

    def _projected(self, pooled: torch.Tensor) -> torch.Tensor:
        projection = self.tower.text_projection
        if projection is None:
            return pooled
        features: torch.Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return features
