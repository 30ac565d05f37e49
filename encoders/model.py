"""A model as it comes from disk or hub, before it is placed on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

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
        details: For people and the manifest: where it came from, what was assumed.
    """

    spec: str
    model: nn.Module
    config: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    tokenizer: Tokenizer
    details: Mapping[str, Any] = field(default_factory=dict)
