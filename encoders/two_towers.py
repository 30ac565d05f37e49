"""A loaded two-tower model and its fingerprint, before it is moved to a device, and the file of its weights."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from storage.files.atomic import explained
from storage.schema import EncoderInfo

from .remembered import recall, remember

Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True, kw_only=True)
class TwoTowers:
    """An open_clip model with everything that its vectors depend on.

    Attributes:
        spec: The string that loads it again from any working directory.
        model: fp32, on the CPU, in eval mode; has `encode_image` and `encode_text`.
        config: open_clip's `model_cfg`.
        preprocess: open_clip's `preprocess_cfg`: size, mean, std, interpolation, resize_mode, fill_color.
        tokenizer: Texts to (n, context_length) token ids.
        details: For people and the manifest: its source, and what was assumed.
        files: Whatever all of this was read from; empty where that is not known. A file that may come to be is named
            too.
    """

    spec: str
    model: nn.Module
    config: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    tokenizer: Tokenizer
    details: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()


# Part of the digest: raise it when the computation of the digest changes.
_VERSION = 1
# These say where a part came from, not what it is: a model in a folder and on the hub has the same fingerprint.
_SOURCE_KEYS = frozenset(
    ["hf_model_name", "hf_tokenizer_name", "hf_model_pretrained", "timm_model_pretrained", "custom_text"]
)
# A tokenizer's output for these shows its cleaning, casing, truncation and special tokens.
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
    must still be as it was loaded (fp32, CPU), so that device and precision do not change it.
    """
    digest = _head(towers, dim)
    _add_weights(digest, towers.model.state_dict())
    return digest.hexdigest()


def remembered_fingerprint(towers: TwoTowers, dim: int, began_ns: int) -> str:
    """Return the fingerprint of a model that was just loaded, without hashing weights that were hashed before.

    Args:
        towers: As `load_towers` gave them; of a model that was changed since, only `fingerprint` tells the truth.
        dim: Length of its vectors.
        began_ns: When loading began, by `time.time_ns`.
    """
    head, known = _head(towers, dim).hexdigest(), recall(towers.spec)
    if known is not None and known.head == head and known.info.fingerprint is not None:
        return known.info.fingerprint
    value = fingerprint(towers, dim)
    info = EncoderInfo(spec=towers.spec, dim=dim, fingerprint=value, details=dict(towers.details))
    remember(info, head, towers.files, began_ns)
    return value


def _head(towers: TwoTowers, dim: int) -> hashlib._Hash:
    """Return the digest of everything but the weights, which come next."""
    digest = hashlib.sha256()
    _add_json(digest, {"version": _VERSION, "dim": dim, "normalisation": "unit"})
    _add_json(digest, _without_sources(towers.config))
    _add_json(digest, dict(towers.preprocess))
    _add_tokenizer(digest, towers.tokenizer)
    return digest


def _add_json(digest: hashlib._Hash, value: Any) -> None:
    digest.update(json.dumps(value, sort_keys=True, separators=(",", ":"), default=list).encode())
    digest.update(b"\0")


def _without_sources(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_sources(item) for key, item in value.items() if key not in _SOURCE_KEYS}
    return value


def _add_tokenizer(digest: hashlib._Hash, tokenizer: Tokenizer) -> None:
    """Add the tokenizer's output and vocabulary; its files differ between versions of the same tokenizer."""
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


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors to a file of safetensors.

    Raises:
        StorageError: The disk is full or failing.
    """
    with explained("write", path):
        try:
            save_file(dict(weights), path)
        except SafetensorError as error:  # what the system said stands in its text alone
            said = re.search(r"os error (\d+)", str(error))
            code = int(said[1]) if said else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error
