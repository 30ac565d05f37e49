"""Two towers to a folder that `local-dir:PATH` opens again: how a fine-tuned encoder is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from open_clip.hf_model import HFTextEncoder
from safetensors.torch import save_file

from .errors import EncoderError
from .model import TwoTowers

WEIGHTS_FILE = "open_clip_model.safetensors"
CONFIG_FILE = "open_clip_config.json"
# open_clip's own writer leaves `fill_color` out, which the padding of `lite` needs.
_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")


def save_local_dir(towers: TwoTowers, folder: Path) -> None:
    """Write a model as an open_clip folder: weights, configuration, and the tokenizer where it has files of its own.

    Loading the folder gives a model with the same fingerprint. The configuration is written last: a folder without it
    is refused.

    Raises:
        EncoderError: Where the folder exists and is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise EncoderError(f"folder {str(folder)!r} is not empty; give a new one to save the encoder to")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in towers.model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    _save_text_files(towers, folder)
    preprocess = {key: towers.preprocess[key] for key in _PREPROCESS_KEYS}
    config = {"model_cfg": dict(towers.config), "preprocess_cfg": preprocess}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_text_files(towers: TwoTowers, folder: Path) -> None:
    text = getattr(towers.model, "text", None)
    if isinstance(text, HFTextEncoder):
        text.config.save_pretrained(folder)
    tokenizer: Any = towers.tokenizer
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
