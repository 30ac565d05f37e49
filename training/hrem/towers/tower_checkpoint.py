"""A folder that holds two trained towers, and all that is needed to open them elsewhere.

f8k/
  hrem.json              the shape of the towers; written last: a folder without it is refused
  towers.safetensors     all weights, those of BERT included
  text/                  configuration and tokenizer of BERT, or the vocabulary
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from encoders.errors import EncoderError

from .bert import empty_bert
from .region_towers import BertStates, RegionTowers, TowersConfig
from .tokens import load_vocabulary

CONFIG_FILE, WEIGHTS_FILE, TEXT_FOLDER = "hrem.json", "towers.safetensors", "text"
FORMAT = 1
_FAILURES = (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, SafetensorError)


def save_towers(towers: RegionTowers, folder: Path) -> None:
    """Write towers into an existing, empty folder.

    Raises:
        EncoderError: There is something in the folder.
    """
    if any(folder.iterdir()):
        raise EncoderError(f"folder {str(folder)!r} is not empty; give a new one to save the towers to")
    text = folder / TEXT_FOLDER
    text.mkdir()
    if isinstance(towers.text.words, BertStates):
        towers.text.words.bert.config.save_pretrained(text)
    towers.tokenizer.save(text)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in towers.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    value = {"format": FORMAT, "towers": asdict(towers.config)}
    (folder / CONFIG_FILE).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def load_towers(folder: Path) -> RegionTowers:
    """Return the towers of a folder, fp32, on the CPU, in eval mode.

    Raises:
        EncoderError: The folder is no checkpoint, is damaged, or its weights have other shapes than it says.
    """
    config = _config(folder)
    try:
        if config.words == "bert":
            towers = RegionTowers(config, empty_bert(folder / TEXT_FOLDER, config.max_tokens))
        else:
            towers = RegionTowers(config, load_vocabulary(folder / TEXT_FOLDER, config.max_tokens))
        towers.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except _FAILURES as error:
        words = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"checkpoint {str(folder)!r} cannot be loaded: {words}; its files do not belong together, train it again"
        ) from error
    return towers.eval()


def _config(folder: Path) -> TowersConfig:
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = f"holds no {CONFIG_FILE}" if folder.is_dir() else "is not a folder"
        raise EncoderError(
            f"HREM checkpoint {str(folder)!r} {what}; give hrem:PATH of a folder made by twinlens fit-hrem"
        )
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r} is not {FORMAT}")
        return TowersConfig(**value["towers"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EncoderError(f"{str(path)!r} is damaged or of another version: {error}; train it again") from error
