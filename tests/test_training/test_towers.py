"""Cut anywhere, a tower gives what the open_clip model gives; frozen parts are exactly those below the cut."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from tiny_clip import TINY

from encoders.lite import load_lite
from training.fit import widened_lite
from training.learner import choose, depths, groups
from training.tower_split import (
    BertText,
    CausalText,
    ClipVit,
    ConseTower,
    TimmVitTower,
    WholeTower,
    image_tower,
    text_tower,
)

TEXTS = ["a dog", "a much longer caption of two dogs that play in the snow", "!"]
SIGLIP_LIKE = {
    "embed_dim": 48,
    "vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "timm_proj": "linear", "timm_pool": ""},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def make(name: str) -> tuple[Any, Any]:
    """Return (model, tokenizer)."""
    torch.manual_seed(0)
    if name in ("lite", "wide lite"):
        towers = load_lite() if name == "lite" else widened_lite(load_lite())
        return towers.model, towers.tokenizer
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    if name == "resnet":
        vision = {**TINY["vision_cfg"], "layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
        return open_clip.CLIP(**{**TINY, "vision_cfg": vision}).eval(), tokenizer
    kinds = {"clip": (open_clip.CLIP, TINY), "custom": (open_clip.CustomTextCLIP, TINY)}
    kind, config = kinds.get(name, (open_clip.CustomTextCLIP, SIGLIP_LIKE))
    return kind(**config).eval(), tokenizer


@pytest.mark.parametrize(
    ("name", "image_type", "text_type"),
    [
        ("clip", ClipVit, CausalText),
        ("custom", ClipVit, CausalText),
        ("timm", TimmVitTower, CausalText),
        ("lite", ConseTower, BertText),
        ("wide lite", ConseTower, BertText),
        ("resnet", WholeTower, CausalText),
    ],
)
def test_a_cut_tower_equals_the_whole_model(name: str, image_type: type, text_type: type) -> None:
    model, tokenizer = make(name)
    image, text = image_tower(model), text_tower(model)
    assert (type(image), type(text)) == (image_type, text_type)
    size = {"lite": 224, "wide lite": 224, "timm": 224, "resnet": 64}.get(name, 32)
    pixels, ids = torch.randn(3, 3, size, size), tokenizer(TEXTS)
    trimmed = ids[:, : int(text.lengths(ids).max())]
    assert trimmed.shape[1] < 20
    with torch.no_grad():
        whole_image, whole_text = model.encode_image(pixels), model.encode_text(ids)
        for cut in range(len(image.blocks) + 1):
            found = image.upper(image.lower(pixels, cut), None, cut)
            assert torch.allclose(found, whole_image, atol=1e-4)
        for cut in range(len(text.blocks) + 1):
            found = text.upper(text.lower(trimmed, cut), trimmed, cut)
            assert torch.allclose(found, whole_text, atol=1e-4)


@pytest.mark.parametrize("name", ["clip", "lite", "wide lite", "timm"])
def test_a_gradient_reaches_what_is_trained_and_nothing_below_the_cut(name: str) -> None:
    model, tokenizer = make(name)
    trained = choose(model, 1, 1)
    image, text = image_tower(model), text_tower(model)
    cuts = len(image.blocks) - 1, len(text.blocks) - 1
    size, ids = (32 if name == "clip" else 224), tokenizer(TEXTS)
    with torch.no_grad():
        hidden = image.lower(torch.randn(3, 3, size, size), cuts[0]), text.lower(ids, cuts[1])
    vectors = image.upper(hidden[0], None, cuts[0]), text.upper(hidden[1], ids, cuts[1])
    ((vectors[0] @ vectors[1].T) * model.logit_scale.exp() * torch.randn(3, 3)).sum().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == set(trained)


def test_depth_counts_from_the_heads_down_to_the_embeddings() -> None:
    found = depths(make("clip")[0])
    assert found["visual.proj"] == found["text_projection"] == found["logit_scale"] == 0
    assert found["visual.transformer.resblocks.1.mlp.c_fc.weight"] == 1
    assert found["transformer.resblocks.0.ln_1.weight"] == 2
    assert found["visual.conv1.weight"] == found["token_embedding.weight"] == found["positional_embedding"] == 3


def test_only_heads_are_trained_without_blocks() -> None:
    trained = choose(make("clip")[0], 0, 0)
    assert set(trained) == {
        "visual.ln_post.weight",
        "visual.ln_post.bias",
        "visual.proj",
        "ln_final.weight",
        "ln_final.bias",
        "text_projection",
        "logit_scale",
    }


def test_lower_layers_learn_slower_and_norms_do_not_decay() -> None:
    model, _ = make("clip")
    trained = choose(model, None, None)
    table = groups(model, trained, (1e-3, 1e-4, 0.5), 0.1)
    by_parameter = {id(member): (group["peak"], group["weight_decay"]) for group in table for member in group["params"]}
    named = dict(model.named_parameters())
    assert len(by_parameter) == len(named)
    assert by_parameter[id(named["visual.proj"])] == (1e-3, 0.1)
    assert by_parameter[id(named["transformer.resblocks.1.mlp.c_fc.weight"])] == (1e-4, 0.1)
    assert by_parameter[id(named["transformer.resblocks.0.mlp.c_fc.weight"])] == (5e-5, 0.1)
    assert by_parameter[id(named["token_embedding.weight"])] == (2.5e-5, 0.1)
    for name in ("transformer.resblocks.1.mlp.c_fc.bias", "ln_final.weight", "positional_embedding", "logit_scale"):
        assert by_parameter[id(named[name])][1] == 0


def test_the_wide_head_begins_with_the_vectors_of_lite_whatever_its_scales() -> None:
    (plain, _), (wide, _) = make("lite"), make("wide lite")
    pixels = torch.randn(4, 3, 224, 224)
    with torch.no_grad():
        tower = image_tower(wide)
        tower.standardise(tower.lower(pixels, 7), 7)
        assert torch.allclose(plain.encode_image(pixels), wide.encode_image(pixels), atol=1e-6)
        features = wide.visual.trunk.residual_input(tower.lower(pixels, 7))
    assert features.mean(0).abs().max() < 1e-3
    assert 0.09 < features.std(0).median() < 0.11


def test_a_head_that_was_trained_is_not_widened_again() -> None:
    towers = widened_lite(load_lite())
    assert widened_lite(towers) is towers
