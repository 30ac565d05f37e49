"""A preset stands for a model with an open licence, is loaded as that model, and leaves only its name behind."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hub_presets import tiny_hub
from PIL import Image

from encoders import EncoderError, load_encoder
from encoders.catalogue import PRESETS, load_entries, resolve_preset
from encoders.catalogue.presets import named
from encoders.text_tower.export import keep_text_tower
from indexer import build_index
from matcher import Matcher
from storage import IndexStore
from training import fit_encoder
from training.config import FitConfig
from training.examples import CaptionedImages
from twinlens.compare.comparison import compare_encoders
from twinlens.compare.errors import CompareError

SPECS = sorted({resolve_preset(preset, device) for preset in PRESETS for device in ("cpu", "cuda:1")})
XLM = "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k"


@pytest.mark.parametrize("spec", SPECS)
def test_the_model_of_a_preset_is_loaded_from_the_cache_of_the_hub(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_hub(monkeypatch, tmp_path, spec)
    encoder = load_encoder(spec, device="cpu")
    texts, images = encoder.encode_texts(["a cat", "a dog"]), encoder.encode_images([Image.new("RGB", (40, 30), "red")])
    assert encoder.spec == spec
    assert (texts.shape, images.shape) == ((2, 24), (1, 24))
    assert np.allclose(np.linalg.norm(np.concatenate([texts, images]), axis=1), 1)
    assert not np.allclose(texts[0], texts[1])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_encoder_that_it_stands_for(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve_preset(preset, "cpu")
    tiny_hub(monkeypatch, tmp_path, spec)
    assert load_encoder(preset, device="cpu").spec == Matcher(encoder=preset, device="cpu").spec == spec


def test_an_index_holds_the_encoder_and_not_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resolve_preset("balanced", "cpu")
    tiny_hub(monkeypatch, tmp_path / "hub", spec)
    (tmp_path / "photos").mkdir()
    for color in ("red", "green"):
        Image.new("RGB", (40, 30), color).save(tmp_path / "photos" / f"{color}.png")
    build_index(tmp_path / "photos", tmp_path / "photos.index", encoder="balanced", device="cpu")
    manifest = IndexStore.open(tmp_path / "photos.index").manifest()
    assert manifest.encoder is not None
    assert manifest.encoder.spec == manifest.build["config"]["encoder"] == spec


def test_what_is_fitted_remembers_the_encoder_that_it_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_hub(monkeypatch, tmp_path / "hub", resolve_preset("fast"))
    images = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue", "white")]
    examples = CaptionedImages(
        images=images, captions=[[f"a {word} wall"] for word in ("red", "green", "blue", "white")]
    )
    report = fit_encoder("fast", examples, examples, tmp_path / "fitted", FitConfig(time_limit=0, device="cpu"))
    assert report.base == resolve_preset("fast")


def test_a_comparison_is_of_the_encoders_that_presets_stand_for(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match=f"the encoder '{resolve_preset('balanced')}' is given twice"):
        compare_encoders(tmp_path, ["balanced", resolve_preset("balanced")])


@pytest.mark.parametrize("spec", [resolve_preset("balanced"), XLM])
def test_texts_of_a_preset_need_no_torch_once_it_was_exported(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINLENS_CACHE", str(tmp_path / "towers"))
    tiny_hub(monkeypatch, tmp_path / "hub", spec)
    assert keep_text_tower(load_encoder(spec, device="cpu")).lowest_cosine > 0.9999


def test_no_preset_stands_for_what_may_not_be_used() -> None:
    terms = {entry.spec: entry.terms for entry in load_entries()}
    assert {terms[spec] for spec in SPECS} == {"open"}


def test_a_preset_may_depend_on_the_device_and_other_specs_stay_as_they_are() -> None:
    assert resolve_preset("best", "cpu") != resolve_preset("best", "cuda:0") == resolve_preset("best", "cuda")
    assert resolve_preset("balanced", "auto") == resolve_preset("balanced", "cpu")
    assert [resolve_preset(spec) for spec in ("lite", "ViT-B-32/openai", "local-dir:best")] == [
        "lite",
        "ViT-B-32/openai",
        "local-dir:best",
    ]


def test_a_sentence_names_the_encoder_beside_the_preset() -> None:
    assert named("balanced") == "ViT-B-32-SigLIP2-256/webli (balanced)"
    assert named("best", "cuda") == f"{resolve_preset('best', 'cuda')} (best)"
    assert named("best") == f"best ({resolve_preset('best', 'cpu')}, on a GPU {resolve_preset('best', 'cuda')})"
    assert named("lite") == "lite"


@pytest.mark.parametrize(
    ("typed", "meant"), [("bset", "best"), ("Balanced", "balanced"), ("multi-lingual", "multilingual")]
)
def test_a_misspelt_preset_is_told_at_once_and_leaves_no_index(typed: str, meant: str, tmp_path: Path) -> None:
    begin = time.process_time()
    with pytest.raises(
        EncoderError, match=f"there is no encoder '{typed}'; did you mean {meant}.*a spec is lite, fast"
    ):
        build_index(tmp_path, tmp_path / "photos.index", encoder=typed)
    assert time.process_time() - begin < 1
    assert not (tmp_path / "photos.index").exists()
