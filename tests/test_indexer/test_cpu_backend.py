"""How a build chooses what computes its encoder on a CPU, and what it keeps of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_cache import with_towers
from PIL import Image

from encoders import EncoderError, cpu_backends
from encoders.openvino_images import openvino_is_installed
from indexer import BuildConfig, BuildError, build_index
from indexer.encode import build_encoder
from storage import IndexStore


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLENS_CACHE", with_towers(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC).save(folder / f"{seed}.jpg")
    return folder


def vectors(index: Path) -> np.ndarray:
    with IndexStore(index).open_version() as version:
        return version.vectors("images").gather(np.arange(6)).astype(np.float32)


def test_a_small_corpus_is_encoded_by_torch_in_fp32(corpus: Path, tmp_path: Path) -> None:
    report = build_index(corpus, tmp_path / "index", encoder="lite")
    encoding = report.manifest.encoding
    assert (encoding.backend, encoding.precision, encoding.device) == ("torch", "fp32", "cpu")
    assert "backends" not in report.manifest.build["encode"]


def test_a_large_corpus_is_raced_for_and_the_choice_is_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = build_index(corpus, tmp_path / "exact", encoder="lite", precision="fp32")
    monkeypatch.setattr(build_encoder, "RACE_FROM", 1)
    report = build_index(corpus, tmp_path / "index", encoder="lite")
    race = report.manifest.build["encode"]["backends"]
    encoding = report.manifest.encoding
    assert [encoding.backend, encoding.precision] == race["chosen"]
    assert race["trials"][0]["backend"] == "torch"
    assert (vectors(report.path) * vectors(exact.path)).sum(1).min() > cpu_backends.GATE


def test_an_update_goes_on_as_the_version_before(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    first = build_index(corpus, tmp_path / "index", encoder="lite", backend="openvino")
    assert (first.manifest.encoding.backend, first.manifest.encoding.precision) == ("openvino", "fp32")
    Image.new("RGB", (50, 40), (200, 30, 30)).save(corpus / "new.jpg")
    second = build_index(corpus, tmp_path / "index", update=True)
    assert (second.manifest.encoding.backend, second.manifest.encoding.precision) == ("openvino", "fp32")

    # On a machine without it, the update says so and is torch's.
    monkeypatch.setattr(cpu_backends, "openvino_is_installed", lambda: False)
    Image.new("RGB", (50, 40), (30, 30, 200)).save(corpus / "newer.jpg")
    third = build_index(corpus, tmp_path / "index", update=True)
    assert third.manifest.encoding.backend == "torch"


def test_a_backend_that_is_not_installed_is_named_with_its_extra(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_backends, "openvino_is_installed", lambda: False)
    with pytest.raises(EncoderError, match=r"openvino fp32 cannot compute encoder 'lite': not installed; .*openvino"):
        build_index(corpus, tmp_path / "index", encoder="lite", backend="openvino")
    assert not (tmp_path / "index" / "CURRENT").exists()


@pytest.mark.skipif(not openvino_is_installed(), reason="openvino is not installed")
def test_a_backend_whose_vectors_are_others_is_refused_even_by_name(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"openvino bf16 cannot compute .*cosine to torch fp32 0\.99\d+ is below"):
        build_index(corpus, tmp_path / "index", encoder="lite", backend="openvino", precision="bf16")


@pytest.mark.parametrize(
    "settings",
    [{"backend": "abacus"}, {"backend": "openvino", "device": "cuda"}, {"backend": "openvino", "executor": "ray"}],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="backend"):
        BuildConfig(**settings)
