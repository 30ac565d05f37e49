"""The weights of open_clip's text towers by the names that `TextTransformer` knows them by, as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from open_clip import hf_model
from open_clip.transformer import LayerScale, QuickGELU, ResidualAttentionBlock
from torch import nn

from ..errors import TowerError
from ..lite import TwinlensCentredMeanPooler, TwinlensMappedMeanPooler
from .transformer import Activation, Architecture, Pooling, Rows

Weights = dict[str, Rows]
# Model types of transformers that are BERT but for their tokenizers and where positions start.
_BERTS = ("bert", "roberta", "xlm-roberta", "camembert")
_BERT_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
_CLIP_POOLINGS: dict[str, Pooling] = {"first": "first", "last": "last", "argmax": "highest", "eos": "token"}


def clip_weights(text: Any, dim: int) -> tuple[Architecture, Weights]:
    """Return what open_clip's own text transformer computes, and its weights.

    Args:
        text: A `TextTransformer`, or a `CLIP`, which has its parts and calls two of them otherwise.
        dim: Length of the vectors.

    Raises:
        TowerError: It has blocks or a pooling that are computed by torch alone.
    """
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    blocks = list(text.transformer.resblocks)
    own_token = getattr(text, "cls_emb", None) is not None
    if own_token or getattr(text, "use_pad_mask", False) or pool not in _CLIP_POOLINGS:
        raise TowerError(f"a text tower with a token of its own for the text, or pooling {pool!r}, needs torch")
    if any(type(block) is not ResidualAttentionBlock for block in blocks):
        raise TowerError(f"a text tower of blocks {type(blocks[0]).__name__} is computed by torch alone")
    eos = getattr(text, "text_eos_id", None) if hasattr(text, "text_pool_type") else text.eos_id
    made = Architecture(
        layers=len(blocks),
        heads=blocks[0].attn.num_heads,
        dim=dim,
        norm="before",
        activation=_clip_activation(blocks[0].mlp.gelu),
        epsilon=text.ln_final.eps,
        causal=text.attn_mask is not None,
        pooling=_CLIP_POOLINGS[pool],
        pool_token=eos if pool == "eos" else None,
    )
    weights = {"tokens": _array(text.token_embedding.weight), "positions": _array(text.positional_embedding)}
    for number, block in enumerate(blocks):
        weights |= _named(f"{number}.norm1", block.ln_1) | _named(f"{number}.norm2", block.ln_2)
        for part in ("weight", "bias"):
            weights[f"{number}.qkv.{part}"] = _array(getattr(block.attn, f"in_proj_{part}"))
        weights |= _scaled(f"{number}.out", block.attn.out_proj, block.ls_1)
        weights |= _named(f"{number}.up", block.mlp.c_fc) | _scaled(f"{number}.down", block.mlp.c_proj, block.ls_2)
    weights |= _named("final_norm", text.ln_final)
    projection = text.text_projection
    if isinstance(projection, nn.Linear):
        weights |= _named("projection", projection)
    elif projection is not None:
        weights["projection.weight"] = _array(projection.T)
    return made, weights


def hugging_face_weights(text: Any, dim: int) -> tuple[Architecture, Weights]:
    """Return what a text tower of the BERT family computes, and its weights.

    Raises:
        TowerError: It is of another family, or is pooled or projected in a way that is computed by torch alone.
    """
    config, bert = text.config, text.transformer
    if config.model_type not in _BERTS or config.hidden_act not in _BERT_ACTIVATIONS:
        raise TowerError(f"a text tower of the type {config.model_type!r} is computed by torch alone")
    made = Architecture(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        dim=dim,
        norm="after",
        activation=_BERT_ACTIVATIONS[config.hidden_act],
        epsilon=config.layer_norm_eps,
        causal=False,
        pooling=_bert_pooling(text.pooler),
        pad=config.pad_token_id,
        counted=config.model_type != "bert",
    )
    embeddings = bert.embeddings
    # RoBERTa's first positions stand for padding; each token of a single text is of the first type.
    first = config.pad_token_id + 1 if made.counted else 0
    positions = embeddings.position_embeddings.weight[first:] + embeddings.token_type_embeddings.weight[0]
    weights = {"tokens": _array(embeddings.word_embeddings.weight), "positions": _array(positions)}
    weights |= _named("embedding_norm", embeddings.LayerNorm)
    for number, block in enumerate(bert.encoder.layer):
        weights |= _bert_block(number, block)
    if isinstance(text.pooler, TwinlensCentredMeanPooler):
        weights["centroid"] = _array(text.pooler.centre)
    if isinstance(text.pooler, TwinlensMappedMeanPooler):
        weights["map.weight"] = _array(text.pooler.map.weight)
    return made, weights | _bert_projection(text.proj)


def _bert_block(number: int, block: Any) -> Weights:
    attention = block.attention
    inputs = [attention.self.query, attention.self.key, attention.self.value]
    weights = {
        f"{number}.qkv.weight": _array(torch.cat([layer.weight for layer in inputs])),
        f"{number}.qkv.bias": _array(torch.cat([layer.bias for layer in inputs])),
    }
    weights |= _named(f"{number}.out", attention.output.dense) | _named(f"{number}.norm1", attention.output.LayerNorm)
    weights |= _named(f"{number}.up", block.intermediate.dense) | _named(f"{number}.down", block.output.dense)
    return weights | _named(f"{number}.norm2", block.output.LayerNorm)


def _bert_pooling(pooler: Any) -> Pooling:
    if isinstance(pooler, TwinlensCentredMeanPooler):
        return "centred_mean"
    if isinstance(pooler, hf_model.MeanPooler):
        return "mean"
    if isinstance(pooler, hf_model.ClsLastHiddenStatePooler):
        return "first"
    raise TowerError(f"texts pooled by {type(pooler).__name__} are computed by torch alone")


def _bert_projection(projection: Any) -> Weights:
    if isinstance(projection, nn.Identity):
        return {}
    if isinstance(projection, nn.Linear):
        return _named("projection", projection)
    first, activation, second = projection
    if not isinstance(activation, nn.GELU) or activation.approximate != "none":
        raise TowerError(f"a projection with {type(activation).__name__} is computed by torch alone")
    return _named("hidden_projection", first) | _named("projection", second)


def _clip_activation(layer: Any) -> Activation:
    if isinstance(layer, QuickGELU):
        return "quick_gelu"
    if isinstance(layer, nn.GELU):
        return "gelu_tanh" if layer.approximate == "tanh" else "gelu"
    raise TowerError(f"a text tower with {type(layer).__name__} is computed by torch alone")


def _scaled(name: str, layer: Any, scale: Any) -> Weights:
    """Return a layer whose outputs are scaled after it, with the scale in its weights."""
    if not isinstance(scale, LayerScale):
        return _named(name, layer)
    gamma = _array(scale.gamma)
    return {key: np.ascontiguousarray((value.T * gamma).T) for key, value in _named(name, layer).items()}


def _named(name: str, layer: Any) -> Weights:
    parts = {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    return {key: _array(value) for key, value in parts.items() if value is not None}


def _array(tensor: torch.Tensor) -> Rows:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
