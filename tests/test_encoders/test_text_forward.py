"""Text towers computed on the tokens that are there give the vectors of open_clip's own forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from encoders import Encoder, load_encoder
from encoders.checkpoints import load_towers
from encoders.text_forward import CausalForward, PaddedForward, WholeForward, text_forward

TEXTS = ["", "a dog", "Ein Café am Ufer", "一只狗", "a man on a horse " * 3, "long " * 600, "Two Dogs &amp; a cat"]


def variant(config: dict, custom: bool = False, **text: object) -> dict:
    other = copy.deepcopy(config)
    other["text_cfg"].update(text)
    if custom:
        other["custom_text"] = True
    return other


CASES = {
    "CLIP": ({}, CausalForward),
    "custom text": ({"custom": True}, CausalForward),
    "custom text with a biased projection": ({"custom": True, "proj_bias": True}, CausalForward),
    "pooled at the id of the end": ({"custom": True, "pool_type": "eos", "eos_id": 49407}, CausalForward),
    "no causal mask": ({"custom": True, "no_causal_mask": True}, WholeForward),
    "a class token at the end": ({"custom": True, "embed_cls": True}, WholeForward),
    "pooled at the last position": ({"custom": True, "pool_type": "last"}, WholeForward),
}


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_the_whole_length(
    name: str, tiny_config: dict, write_folder: Callable[..., Path], tmp_path: Path
) -> None:
    changes, kind = CASES[name]
    folder = write_folder(tmp_path / "model", config=variant(tiny_config, **changes))
    towers = load_towers(f"local-dir:{folder}")
    assert type(text_forward(towers.model)) is kind
    with torch.inference_mode():
        whole = functional.normalize(towers.model.encode_text(towers.tokenizer(TEXTS)).float(), dim=-1).numpy()
    encoder = load_encoder(f"local-dir:{folder}", device="cpu")
    assert np.abs(encoder.encode_texts(TEXTS) - whole).max() < 2e-6
    for position, text in enumerate(TEXTS):
        assert np.abs(encoder.encode_texts([text])[0] - whole[position]).max() < 2e-6, text


def test_a_causal_tower_says_how_many_tokens_count(tiny_folder: Path) -> None:
    towers = load_towers(f"local-dir:{tiny_folder}")
    forward = text_forward(towers.model)
    ids = towers.tokenizer(["", "a dog", "long " * 600])
    # Start, end; start, two words, end; as many as fit.
    assert forward.lengths(ids).tolist() == [2, 4, ids.shape[1]]


def test_the_tower_of_lite_leaves_padding_out(lite: Encoder) -> None:
    forward = text_forward(load_towers("lite").model)
    assert isinstance(forward, PaddedForward)
    ids = torch.tensor([[101, 7, 102, forward.pad, forward.pad], [forward.pad] * 5])
    assert forward.lengths(ids).tolist() == [3, 1]
