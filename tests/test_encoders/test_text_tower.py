"""Exported text towers give the vectors of the model itself, for every kind of text transformer, or are not used."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from transformers import BertConfig, MT5Config, RobertaConfig

from encoders import Encoder, EncoderError, load_encoder
from encoders.errors import TowerError
from encoders.lite import TwinlensMappedMeanPooler, load_lite, text_folder
from encoders.text_tower import TextTower, find_text_tower
from encoders.text_tower.export import compare, export_text_tower, keep_text_tower, sample_texts, text_side
from encoders.text_tower.tokenize import TextTokenizer
from encoders.text_tower.transformer import TextTransformer, gelu, gelu_tanh, quick_gelu
from encoders.tower_files import cache_folder, was_refused
from encoders.two_towers import TwoTowers
from storage.files import atomic

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 3}
VISION = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
SIGLIP = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6}}
# What open_clip's own architectures set, by one that sets it.
VARIANTS: dict[str, dict[str, Any]] = {
    "ViT-B-32": {},
    "ViT-B-32-quickgelu": {"quick_gelu": True},
    "MobileCLIP-S2": {"no_causal_mask": True, "custom": True},
    "ViT-B-16-SigLIP": {**SIGLIP, "custom": True, "context_length": 64},
    "ViT-B-16-SigLIP2": {**SIGLIP, "act_kwargs": {"approximate": "tanh"}, "custom": True, "context_length": 64},
    "ViT-H-14-worldwide": {"pool_type": "eos", "eos_id": 49407},
    "scaled layers": {"ls_init_value": 0.5},
    "no projection": {"proj_type": "none", "custom": True, "width": 24, "heads": 2},
    "the first token": {"pool_type": "first", "no_causal_mask": True, "custom": True},
}


def rough(module: torch.nn.Module) -> Any:
    """Make a module's weights large enough for a wrong formula to show."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def towers(model: Any, tokenizer: Any) -> TwoTowers:
    return TwoTowers(spec="test", model=model, config={}, preprocess={}, tokenizer=tokenizer)


def clip(variant: dict[str, Any]) -> TwoTowers:
    settings = dict(variant)
    custom, quick = settings.pop("custom", False), settings.pop("quick_gelu", False)
    text = {**TEXT, **settings}
    torch.manual_seed(0)
    made = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(24, VISION, text, quick_gelu=quick)
    return towers(rough(made), SimpleTokenizer(context_length=text["context_length"]))


def opened(model: TwoTowers, dim: int = 24) -> TextTower:
    info, weights, data = text_side(model, "0" * 64, dim)
    return TextTower(info, TextTransformer(info.architecture, weights), TextTokenizer(info.tokenizer, data))


@pytest.mark.parametrize("name", VARIANTS)
def test_text_transformers_of_open_clip_are_computed_alike(name: str) -> None:
    model = clip(VARIANTS[name])
    assert compare(opened(model), model, "cpu") > 0.999999


BERT = {"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 64}
BERTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (BertConfig(**BERT), {"pooler_type": "mean_pooler", "proj_type": "linear"}),
    "roberta": (
        RobertaConfig(**BERT, pad_token_id=0, vocab_size=30522),
        {"pooler_type": "mean_pooler", "proj_type": "mlp"},
    ),
    "the first token": (
        BertConfig(**BERT, hidden_act="gelu_new"),
        {"pooler_type": "cls_last_hidden_state_pooler", "proj_type": "linear"},
    ),
}


@pytest.mark.parametrize("name", BERTS)
def test_the_bert_family_is_computed_alike(name: str) -> None:
    config, settings = BERTS[name]
    torch.manual_seed(0)
    text = rough(HFTextEncoder("", 24, config=config, **settings))
    model = SimpleNamespace(text=text, encode_text=text)
    both = towers(model, HFTokenizer(str(text_folder()), context_length=64))
    assert compare(opened(both), both, "cpu") > 0.999999


def test_masked_tokens_that_a_text_names_keep_their_places() -> None:
    config, settings = BERTS["bert"]
    torch.manual_seed(0)
    text = rough(HFTextEncoder("", 24, config=config, **settings))
    both = towers(SimpleNamespace(text=text, encode_text=text), HFTokenizer(str(text_folder()), context_length=64))
    words = ["a dog [PAD] in the snow", "[PAD] [SEP] a"]
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(text(both.tokenizer(words)), dim=-1).numpy()
    assert np.abs(opened(both).encode_texts(words) - expected).max() < 1e-5


def test_lite_is_computed_to_the_seventh_digit(lite: Encoder) -> None:
    keep_text_tower(lite)
    tower = find_text_tower(lite.fingerprint, lite.dim)
    assert tower is not None
    texts = sample_texts()
    assert np.abs(tower.encode_texts(texts) - lite.encode_texts(texts)).max() < 5e-7
    assert (
        np.abs(tower.encode_texts(texts[:20]) - np.concatenate([tower.encode_texts([t]) for t in texts[:20]])).max()
        < 5e-7
    )
    assert tower.encode_texts([]).shape == (0, lite.dim)


def test_a_fine_tuned_map_is_computed_too() -> None:
    model = load_lite()
    pooler = TwinlensMappedMeanPooler()
    pooler.centre.copy_(model.model.text.pooler.centre)
    torch.manual_seed(0)
    torch.nn.init.normal_(pooler.map.weight, std=0.1)
    model.model.text.pooler = pooler.eval()
    assert compare(opened(model, 384), model, "cpu") > 0.999999


def test_a_tower_of_bf16_is_that_of_the_weights_as_they_were_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    exact = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    coarse = load_encoder(f"local-dir:{tiny_folder}", device="cpu", precision="bf16")
    export_text_tower(coarse, tmp_path / "tower")
    vectors = TextTower.open(tmp_path / "tower").encode_texts(["a dog", "snow"])
    assert np.abs(vectors - exact.encode_texts(["a dog", "snow"])).max() < 1e-6


def refused(model: TwoTowers, message: str) -> None:
    with pytest.raises(TowerError, match=message):
        text_side(model, "0" * 64, 24)


def test_other_kinds_are_left_to_torch() -> None:
    tokenizer = SimpleTokenizer()
    own_token = open_clip.CustomTextCLIP(24, VISION, {**TEXT, "embed_cls": True}).eval()
    refused(towers(own_token, tokenizer), "a token of its own")
    blocks = open_clip.CustomTextCLIP(24, VISION, {**TEXT, "qk_norm": True, "block_type": "custom"}).eval()
    refused(towers(blocks, tokenizer), "CustomResidualAttentionBlock")
    t5 = HFTextEncoder(
        "", 24, config=MT5Config(d_model=32, d_ff=32, num_layers=1, num_heads=2), pooler_type="mean_pooler"
    )
    refused(towers(SimpleNamespace(text=t5), tokenizer), "'mt5'")
    model = clip({})
    refused(dataclasses.replace(model, tokenizer=lambda texts: texts), "a tokenizer of the class function")
    refused(dataclasses.replace(model, tokenizer=SimpleTokenizer(reduction_mask="simple")), "variant")


def test_a_tower_whose_vectors_differ_is_not_used() -> None:
    model = clip({})
    other = copy.deepcopy(model)
    other.model.transformer.resblocks[1].mlp.c_fc.bias.data += 0.3
    with pytest.raises(TowerError, match=r"lowest cosine 0\.\d{5}, asked 0.9999"):
        compare(opened(model), other, "cpu")
    with pytest.raises(TowerError, match=r"the tokens of .* differ"):
        compare(opened(model), dataclasses.replace(model, tokenizer=SimpleTokenizer(clean="whitespace")), "cpu")


class TestTheCache:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TWINLENS_CACHE", str(tmp_path / "cache"))

    @pytest.fixture
    def kept(self, tiny: Encoder) -> Path:
        keep_text_tower(tiny)
        return cache_folder("text", tiny.fingerprint)

    def test_a_tower_is_found_by_its_fingerprint(self, kept: Path, tiny: Encoder, tmp_path: Path) -> None:
        assert kept.parent == tmp_path / "cache" / "text-towers"
        assert {path.name for path in kept.parent.iterdir()} == {tiny.fingerprint}
        tower = find_text_tower(tiny.fingerprint, tiny.dim)
        assert tower is not None
        assert np.abs(tower.encode_texts(["a dog"]) - tiny.encode_texts(["a dog"])).max() < 1e-6
        assert find_text_tower("0" * 64, tiny.dim) is None

    def test_a_name_that_leads_elsewhere_is_no_fingerprint(self) -> None:
        with pytest.raises(TowerError, match="no fingerprint"):
            cache_folder("text", "../" * 21 + "x")
        assert find_text_tower("../../etc", 24) is None

    @pytest.mark.parametrize("name", ["tower.json", "weights.safetensors", "tokenizer.json"])
    @pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
    def test_damage_is_found_before_anything_is_parsed(self, kept: Path, tiny: Encoder, name: str, damage: str) -> None:
        path = kept / name
        data = bytearray(path.read_bytes())
        if damage == "gone":
            path.unlink()
        else:
            data[len(data) // 2] ^= 1
            path.write_bytes(data if damage == "flipped" else data[: len(data) // 2])
        if (name, damage) == ("tower.json", "gone"):
            assert find_text_tower(tiny.fingerprint, tiny.dim) is None
        else:
            with pytest.raises(TowerError, match=r"text tower|tower\.json"):
                find_text_tower(tiny.fingerprint, tiny.dim)
        keep_text_tower(tiny)  # exports it again
        assert find_text_tower(tiny.fingerprint, tiny.dim) is not None

    def test_that_of_another_encoder_is_refused(self, kept: Path, tiny: Encoder) -> None:
        kept.rename(kept.with_name("1" * 64))
        with pytest.raises(TowerError, match=f"fingerprint {tiny.fingerprint}"):
            find_text_tower("1" * 64, tiny.dim)

    def test_an_export_that_is_stopped_leaves_nothing(self, tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(name: str) -> None:
            if name == "tokenizer.json.written":
                raise KeyboardInterrupt

        monkeypatch.setattr(atomic, "hook", stop)
        with pytest.raises(KeyboardInterrupt):
            keep_text_tower(tiny)
        assert [*cache_folder("text", tiny.fingerprint).parent.iterdir()] == []

    def test_a_tower_that_cannot_be_exported_is_remembered(
        self, tmp_path: Path, write_folder: Callable[..., Path], tiny_config: dict[str, Any]
    ) -> None:
        tiny_config["text_cfg"] |= {"embed_cls": True, "output_tokens": False}
        torch.manual_seed(0)
        model = open_clip.CustomTextCLIP(**tiny_config)
        folder = write_folder(tmp_path / "model")
        from safetensors.torch import save_file

        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        config = {"model_cfg": {**tiny_config, "custom_text": True}, "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        encoder = load_encoder(f"local-dir:{folder}", device="cpu")
        assert not was_refused("text", encoder.fingerprint)
        with pytest.raises(EncoderError, match="a token of its own"):
            keep_text_tower(encoder)
        assert was_refused("text", encoder.fingerprint)
        assert find_text_tower(encoder.fingerprint, encoder.dim) is None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (gelu, torch.nn.functional.gelu),
        (gelu_tanh, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        (quick_gelu, lambda x: x * torch.sigmoid(1.702 * x)),
    ],
)
def test_activations_are_those_of_torch(ours: Callable[..., Any], theirs: Callable[..., Any]) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [-1e4, -80, 80, 1e4]]).astype(np.float32)
    assert np.allclose(ours(x), theirs(torch.from_numpy(x)).numpy(), rtol=2e-6, atol=2e-6)


def test_weights_that_do_not_fit_are_refused() -> None:
    info, weights, _ = text_side(clip({}), "0" * 64, 24)
    for name in ("tokens", "1.qkv.weight", "final_norm.bias", "positions"):
        with pytest.raises(TowerError, match="weight"):
            TextTransformer(info.architecture, {key: value for key, value in weights.items() if key != name})
        with pytest.raises(TowerError):
            TextTransformer(info.architecture, {**weights, name: weights[name].T[:5].T})
    for wrong in ({"layers": 2**40}, {"heads": 0}, {"heads": 7}, {"dim": 25}, {"pooling": "centred_mean"}):
        with pytest.raises(TowerError):
            TextTransformer(dataclasses.replace(info.architecture, **wrong), weights)
    made = TextTransformer(info.architecture, weights)
    for ids in ([], [49408], [-1], [1] * 78):
        with pytest.raises(TowerError):
            made.encode([np.array(ids, dtype=np.int64)])
