"""One SHA-256 for everything that a model's vectors depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from .model import Tokenizer, TwoTowers

# Part of the digest: raise it when the digest itself changes.
_VERSION = 1
# Where a part was fetched from, not what it is: the same model in a folder and on the hub has one fingerprint.
_PLACES = frozenset(
    ["hf_model_name", "hf_tokenizer_name", "hf_model_pretrained", "timm_model_pretrained", "custom_text"]
)
# What a tokenizer does with these tells its cleaning, casing, truncation and special tokens.
_PROBES = (
    "",
    "A photo of two Dogs, playing.",
    "caf\u00e9 &amp; cr\u00e8me  br\u00fbl\u00e9e",
    "\u4e00\u53ea\u72d7 12345",
    "long " * 600,
)


def fingerprint(towers: TwoTowers, dim: int) -> str:
    """Return the model's fingerprint: 64 hex digits.

    It covers the weights, the architecture, the preprocessing, the tokenizer, `dim` and the normalisation. The model
    must still be as it was loaded (fp32, CPU), so that device and precision leave no trace.
    """
    digest = hashlib.sha256()
    _add_json(digest, {"version": _VERSION, "dim": dim, "normalisation": "unit"})
    _add_json(digest, _without_places(towers.config))
    _add_json(digest, dict(towers.preprocess))
    _add_tokenizer(digest, towers.tokenizer)
    _add_weights(digest, towers.model.state_dict())
    return digest.hexdigest()


def _add_json(digest: hashlib._Hash, value: Any) -> None:
    digest.update(json.dumps(value, sort_keys=True, separators=(",", ":"), default=list).encode())
    digest.update(b"\0")


def _without_places(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_places(item) for key, item in value.items() if key not in _PLACES}
    return value


def _add_tokenizer(digest: hashlib._Hash, tokenizer: Tokenizer) -> None:
    """Add what the tokenizer does and the words it knows; its files differ between versions of one tokenizer."""
    ids = tokenizer(list(_PROBES))
    _add_json(digest, ids.tolist())
    _add_json(digest, _vocabulary(tokenizer))


def _vocabulary(tokenizer: Any) -> Any:
    if hasattr(tokenizer, "encoder"):  # open_clip's SimpleTokenizer
        return tokenizer.encoder
    inner = getattr(tokenizer, "tokenizer", None)
    return inner.get_vocab() if inner is not None else {}


def _add_weights(digest: hashlib._Hash, weights: Mapping[str, torch.Tensor]) -> None:
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        _add_json(digest, [name, str(tensor.dtype), list(tensor.shape)])
        # reshape first: a scalar cannot be viewed as bytes.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
