"""A tower in two parts: the lower blocks, which may stay as they are, and the upper ones, which are trained.

What frozen blocks give for an item never changes, so it is computed once; on a CPU that turns minutes into seconds.
Each tower lists its blocks from input to output. `lower(raw, cut)` runs what comes before block `cut`, `upper` the
rest, and `upper(lower(raw, cut), raw, cut)` equals the open_clip model's own forward pass. Towers of other designs have
no blocks: they are trained from the pixels or tokens.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Protocol

import torch
from open_clip import CLIP
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer, text_global_pool
from timm.models.vision_transformer import VisionTransformer as TimmVit
from torch import nn

from encoders.lite import ConseTrunk, WideConseTrunk, fold_batch_norm

_BERTS = ("bert", "roberta", "xlm-roberta")


class Tower(Protocol):
    """One side of a model.

    Attributes:
        blocks: Those that a cut may come before, from input to output.
    """

    blocks: list[nn.Module]

    def lower(self, raw: torch.Tensor, cut: int) -> torch.Tensor:
        """Return what enters block `cut` for pixels or token ids; a cut of 0 still runs the stem."""

    def upper(self, hidden: torch.Tensor, raw: torch.Tensor | None, cut: int) -> torch.Tensor:
        """Return (n, dim) features, not yet of unit length; `raw` are the token ids of a text tower."""


class TextTower(Tower, Protocol):
    """The side that reads token ids."""

    def lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Return how many token ids of each text are needed; the others are padding without effect."""


class WholeTower:
    """A tower of any design, never cut."""

    def __init__(self, forward: Any) -> None:
        self.blocks: list[nn.Module] = []
        self._forward = forward

    def lower(self, raw: torch.Tensor, cut: int) -> torch.Tensor:
        """Return the input."""
        return raw

    def upper(self, hidden: torch.Tensor, raw: torch.Tensor | None, cut: int) -> torch.Tensor:
        """Return the features of pixels or token ids."""
        features: torch.Tensor = self._forward(hidden)
        return features

    def lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the full length: where the padding matters is not known."""
        return torch.full((len(ids),), ids.shape[1])


class ClipVit:
    """open_clip's own vision transformer."""

    def __init__(self, visual: VisionTransformer) -> None:
        self._visual: Any = visual
        self.blocks = list(visual.transformer.resblocks)

    def lower(self, raw: torch.Tensor, cut: int) -> torch.Tensor:
        """Return (n, tokens, width) hidden states."""
        return _through(self.blocks[:cut], self._visual._embeds(raw))

    def upper(self, hidden: torch.Tensor, raw: torch.Tensor | None, cut: int) -> torch.Tensor:
        """Return the projected class token."""
        pooled, _ = self._visual._pool(_through(self.blocks[cut:], hidden))
        features: torch.Tensor = pooled if self._visual.proj is None else pooled @ self._visual.proj
        return features


class TimmVitTower:
    """A timm vision transformer inside open_clip, such as SigLIP's."""

    def __init__(self, visual: TimmModel) -> None:
        self._visual: Any = visual
        self._trunk: Any = visual.trunk
        self.blocks = list(self._trunk.blocks)

    def lower(self, raw: torch.Tensor, cut: int) -> torch.Tensor:
        """Return (n, tokens, width) hidden states."""
        trunk = self._trunk
        hidden = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(raw))))
        return _through(self.blocks[:cut], hidden)

    def upper(self, hidden: torch.Tensor, raw: torch.Tensor | None, cut: int) -> torch.Tensor:
        """Return the pooled and projected features."""
        hidden = self._trunk.norm(_through(self.blocks[cut:], hidden))
        features: torch.Tensor = self._visual.head(self._trunk.forward_head(hidden))
        return features


class ConseTower:
    """The image tower of `lite`: seven stages of convolutions, then the class mixture.

    Attributes:
        dropout: Share of the pooled features that the head does not see in training.
    """

    def __init__(self, visual: TimmModel) -> None:
        self._trunk: Any = visual.trunk
        self.blocks = list(self._trunk.backbone.blocks)
        self.dropout = 0.0
        self._folded: Any = None

    def standardise(self, hidden: torch.Tensor, cut: int) -> None:
        """Let a wide head take its scales from what enters block `cut` for some images."""
        if isinstance(self._trunk, WideConseTrunk):
            with torch.no_grad():
                self._trunk.fit_standardization(self.pooled(hidden, cut).float())

    def lower(self, raw: torch.Tensor, cut: int) -> torch.Tensor:
        """Return (n, channels, h, w) feature maps; a cut behind the last stage gives the pooled features."""
        trunk = self._frozen() if cut and not torch.is_grad_enabled() else self._trunk
        backbone = trunk.backbone
        hidden = backbone.bn1(backbone.conv_stem(raw))
        if cut < len(self.blocks):
            return _through(list(backbone.blocks[:cut]), hidden)
        pooled: torch.Tensor = trunk.features_from(hidden, 0)
        return pooled

    def upper(self, hidden: torch.Tensor, raw: torch.Tensor | None, cut: int) -> torch.Tensor:
        """Return the mixture of class vectors."""
        dropout = self.dropout if self._trunk.training else 0.0
        features: torch.Tensor = self._trunk.mix(self.pooled(hidden, cut), dropout)
        return features

    def pooled(self, hidden: torch.Tensor, cut: int) -> torch.Tensor:
        """Return what the head takes, from what enters block `cut`."""
        if cut == len(self.blocks) and hidden.ndim == 2:
            return hidden
        pooled: torch.Tensor = self._trunk.features_from(hidden, cut)
        return pooled

    def _frozen(self) -> Any:
        """Return a copy with its batch norms folded: blocks below a cut never change, and run twice as fast."""
        if self._folded is None:
            self._folded = deepcopy(self._trunk)
            fold_batch_norm(self._folded.backbone)
        return self._folded


class CausalText:
    """open_clip's own text transformer with its causal mask, inside `CLIP` or on its own.

    A token sees only those before it, so the padding behind the longest text can be left away: 5 times faster.
    """

    def __init__(self, owner: CLIP | TextTransformer) -> None:
        self._owner: Any = owner
        self.blocks = list(owner.transformer.resblocks)

    def lower(self, raw: torch.Tensor, cut: int) -> torch.Tensor:
        """Return (n, tokens, width) hidden states."""
        hidden = self._owner.token_embedding(raw) + self._owner.positional_embedding[: raw.shape[1]]
        return self._blocks(hidden, self.blocks[:cut])

    def upper(self, hidden: torch.Tensor, raw: torch.Tensor | None, cut: int) -> torch.Tensor:
        """Return the projected features of the end-of-text token."""
        owner = self._owner
        hidden = owner.ln_final(self._blocks(hidden, self.blocks[cut:]))
        pool = getattr(owner, "text_pool_type", getattr(owner, "pool_type", "argmax"))
        end = getattr(owner, "text_eos_id", getattr(owner, "eos_id", None))
        pooled = text_global_pool(hidden, raw, pool, eos_token_id=end)
        projection = nn.Identity() if owner.text_projection is None else owner.text_projection
        features: torch.Tensor = projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection
        return features

    def lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Return where each text ends: behind the last token that is not 0."""
        return used_lengths(ids != 0)

    def _blocks(self, hidden: torch.Tensor, blocks: list[nn.Module]) -> torch.Tensor:
        length = hidden.shape[1]
        mask = self._owner.attn_mask[:length, :length]
        for block in blocks:
            hidden = block(hidden, attn_mask=mask)
        return hidden


class BertText:
    """A BERT-like Hugging Face text tower, such as that of `lite`; padding is masked out, so it may be left away."""

    def __init__(self, text: HFTextEncoder) -> None:
        self._text: Any = text
        self.blocks = list(text.transformer.encoder.layer)

    def lower(self, raw: torch.Tensor, cut: int) -> torch.Tensor:
        """Return (n, tokens, width) hidden states."""
        return self._blocks(self._text.transformer.embeddings(input_ids=raw), raw, self.blocks[:cut])

    def upper(self, hidden: torch.Tensor, raw: torch.Tensor | None, cut: int) -> torch.Tensor:
        """Return the pooled and projected features."""
        if raw is None:
            raise TypeError("a text tower needs the token ids")
        output = _Output(self._blocks(hidden, raw, self.blocks[cut:]))
        features: torch.Tensor = self._text.proj(self._text.pooler(output, self._there(raw).long()))
        return features

    def lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Return where each text ends."""
        return used_lengths(self._there(ids))

    def _there(self, raw: torch.Tensor) -> torch.Tensor:
        there: torch.Tensor = raw != self._text.config.pad_token_id
        return there

    def _blocks(self, hidden: torch.Tensor, raw: torch.Tensor, blocks: list[nn.Module]) -> torch.Tensor:
        there = self._there(raw)
        # Without padding there is nothing to mask, and attention runs faster.
        mask = None if bool(there.all()) else there[:, None, None, :].expand(-1, 1, raw.shape[1], -1)
        for block in blocks:
            out: Any = block(hidden, mask)
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden


class _Output:
    """What a transformer returns, as far as open_clip's poolers read it."""

    def __init__(self, last_hidden_state: torch.Tensor) -> None:
        self.last_hidden_state = last_hidden_state


def image_tower(model: Any) -> Tower:
    """Return the image tower of an open_clip model."""
    visual = model.visual
    if isinstance(visual, VisionTransformer) and visual.transformer.batch_first and not visual.output_tokens:
        return ClipVit(visual)
    if isinstance(visual, TimmModel) and isinstance(visual.trunk, ConseTrunk):
        return ConseTower(visual)
    if isinstance(visual, TimmModel) and type(visual.trunk) is TimmVit:
        return TimmVitTower(visual)
    return WholeTower(model.encode_image)


def text_tower(model: Any) -> TextTower:
    """Return the text tower of an open_clip model."""
    if type(model) is CLIP and _is_causal(model, model.text_pool_type):
        return CausalText(model)
    text = getattr(model, "text", None)
    if isinstance(text, TextTransformer) and _is_plain(text):
        return CausalText(text)
    if isinstance(text, HFTextEncoder) and text.config.model_type in _BERTS and not text.output_tokens:
        return BertText(text)
    return WholeTower(model.encode_text)


def _is_plain(text: TextTransformer) -> bool:
    usual = text.cls_emb is None and not text.use_pad_mask and not text.output_tokens
    return usual and _is_causal(text, text.pool_type)


def _is_causal(owner: Any, pool: str) -> bool:
    # Pooling the last position needs the full length.
    return owner.attn_mask is not None and owner.transformer.batch_first and pool in ("argmax", "eos", "first")


def used_lengths(there: torch.Tensor) -> torch.Tensor:
    """Return for each row how many columns reach to its last True, at least 1."""
    columns = torch.arange(1, there.shape[1] + 1)
    return (there * columns).amax(1).clamp(min=1)


def _through(blocks: list[nn.Module], hidden: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        hidden = block(hidden)
    return hidden
