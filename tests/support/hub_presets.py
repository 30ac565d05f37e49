"""The models behind the presets, made tiny, with random weights and tokenizers, in a cache of the hub."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import open_clip
import pytest
from huggingface_hub import constants
from open_clip.pretrained import get_pretrained_cfg
from safetensors.torch import save_file
from tiny_clip import TINY
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

COMMIT = "c0ffee" + "0" * 34
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]


def tiny_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, spec: str) -> None:
    """Let no hub answer, and put a tiny model into its cache under the name of a pretrained one.

    What is kept of it: how its weights, its preprocessing, its text tower and its tokenizer are found and put together.
    """
    architecture, tag = spec.split("/")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    config = _tiny(open_clip.get_model_config(architecture))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, config)
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        folder = snapshot(cache, text["hf_tokenizer_name"])
        _tokenizer().save_pretrained(folder)
        if "hf_model_name" in text:
            assert text["hf_model_name"] == text["hf_tokenizer_name"]
            _text_config().save_pretrained(folder)
        else:
            # The hub has none there; a cache keeps that as a mark, without which transformers asks again.
            mark = folder.parents[1] / ".no_exist" / COMMIT / "config.json"
            mark.parent.mkdir(parents=True)
            mark.touch()
    weights = snapshot(cache, get_pretrained_cfg(architecture, tag)["hf_hub"].strip("/"))
    model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        weights / "open_clip_model.safetensors",
    )


def snapshot(cache: Path, repository: str) -> Path:
    """Return the folder of a repository's files in a cache of the hub."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    folder = home / "snapshots" / COMMIT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _tiny(config: dict[str, Any]) -> dict[str, Any]:
    small = {**copy.deepcopy(config), "embed_dim": 24, "vision_cfg": TINY["vision_cfg"]}
    if "hf_model_name" not in small["text_cfg"]:
        vocabulary = len(VOCABULARY) if "hf_tokenizer_name" in small["text_cfg"] else 49408
        small["text_cfg"] |= {"width": 32, "heads": 2, "layers": 2, "vocab_size": vocabulary}
    return small


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(word, VOCABULARY.index(word)) for word in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def _text_config() -> XLMRobertaConfig:
    return XLMRobertaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=90,
    )
