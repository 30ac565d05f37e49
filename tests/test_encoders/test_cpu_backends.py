"""What computes an encoder on a CPU: the fastest of what is installed, and never one whose vectors are others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encoders import cpu_backends, load_encoder
from encoders.cpu_backends import GATE, Race, Trial, fastest, golden_images
from encoders.errors import EncoderError
from encoders.open_clip_encoder import ClipEncoder
from encoders.remembered import user_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TWINLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fresh(folder: Path) -> ClipEncoder:
    encoder = load_encoder(f"local-dir:{folder}", device="cpu", precision="fp32")
    assert isinstance(encoder, ClipEncoder)
    return encoder


@pytest.mark.parametrize(("backend", "precision"), [("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16")])
def test_each_backend_gives_the_vectors_of_torch(backend: str, precision: str, tiny_folder: Path) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    exact, images = fresh(tiny_folder), golden_images()[:5]
    other = exact.on_backend(backend, precision)
    assert (other.backend, other.precision, other.fingerprint) == (backend, precision, exact.fingerprint)
    nearest = 0.999999 if precision == "fp32" else 0.999
    assert (other.encode_images(images) * exact.encode_images(images)).sum(1).min() > nearest
    assert (other.encode_texts(["a dog", ""]) * exact.encode_texts(["a dog", ""])).sum(1).min() > nearest
    # A batch of one, and pixels as floats.
    floats = np.stack([other.preprocess(images[0])])
    assert np.abs(other.encode_pixels(floats) - other.encode_images(images[:1])).max() < 0.02
    assert exact.encode_images(images[:1]).shape == (1, exact.dim)


def test_lite_is_the_same_to_rounding_in_openvino() -> None:
    pytest.importorskip("openvino")
    exact = load_encoder("lite", device="cpu", precision="fp32")
    assert isinstance(exact, ClipEncoder)
    images = golden_images()
    assert np.abs(exact.on_backend("openvino", "fp32").encode_images(images) - exact.encode_images(images)).max() < 1e-4


def test_the_race_takes_the_fastest_that_passes_and_says_so(tiny_folder: Path) -> None:
    encoder, race = fastest(fresh(tiny_folder))
    assert [(trial.backend, trial.precision) for trial in race.trials][:2] == [("torch", "fp32"), ("torch", "bf16")]
    assert (encoder.backend, encoder.precision) == race.chosen
    plain = race.trials[0].images_per_core_second or 0
    passed = [trial for trial in race.trials[1:] if not trial.refused]
    assert all((trial.cosine or 0) >= GATE for trial in passed)
    rates = {trial.name: trial.images_per_core_second or 0 for trial in passed}
    expected = max(rates.values(), default=0.0)
    assert race.winner.images_per_core_second == (expected if expected > 1.1 * plain else plain)
    assert race.sentence().startswith(f"images are encoded by {race.winner.name}")


def test_a_backend_that_is_wrong_is_refused_however_fast(tiny_folder: Path) -> None:
    class Wrong(ClipEncoder):
        def on_backend(self, backend: str, precision: str) -> ClipEncoder:
            if backend == "torch":
                raise RuntimeError("no such instruction\nin this processor")
            other = copy.copy(self)
            other.encode_pixels = lambda pixels: np.roll(np.eye(len(pixels), self.dim, dtype=np.float32), 1, 1)
            return other

    encoder = fresh(tiny_folder)
    encoder.__class__ = Wrong
    chosen, race = fastest(encoder)
    assert chosen is encoder
    assert race.chosen == ("torch", "fp32")
    reasons = [trial.refused or "" for trial in race.trials]
    assert reasons[1] == "RuntimeError: no such instruction"
    assert "cosine to torch fp32" in reasons[2] or reasons[2] == "not installed"
    assert "not torch bf16: RuntimeError: no such instruction" in race.sentence()


def test_the_outcome_is_remembered_for_this_model_and_machine(
    tiny_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, race = fastest(fresh(tiny_folder))
    assert user_cache() == cache
    assert len(list((cache / "backends").iterdir())) == 1

    def raced_again(_: ClipEncoder) -> None:
        raise AssertionError("the race was run again")

    monkeypatch.setattr(cpu_backends, "_race", raced_again)
    second, again = fastest(fresh(tiny_folder))
    assert again == race
    assert (second.backend, second.precision) == (first.backend, first.precision)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"chosen": ["abacus", "fp32"], "trials": []}', b"\xff"])
def test_a_damaged_cache_costs_a_race_and_no_more(content: bytes, tiny_folder: Path, cache: Path) -> None:
    fastest(fresh(tiny_folder))
    (kept,) = (cache / "backends").iterdir()
    kept.write_bytes(content)
    encoder, race = fastest(fresh(tiny_folder))
    assert (encoder.backend, encoder.precision) == race.chosen
    assert kept.read_bytes() != content


def test_a_cache_that_cannot_be_written_is_none(tiny_folder: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    _, race = fastest(fresh(tiny_folder))
    assert race.trials[0].name == "torch fp32"


def test_only_an_encoder_in_fp32_on_the_cpu_is_computed_otherwise(tiny_folder: Path) -> None:
    coarse = fresh(tiny_folder).on_backend("torch", "bf16")
    with pytest.raises(EncoderError, match="no longer in fp32"):
        coarse.on_backend("torch", "bf16")
    with pytest.raises(EncoderError, match="no backend 'abacus'"):
        fresh(tiny_folder).on_backend("abacus", "fp32")


def test_a_race_survives_json() -> None:
    race = Race(
        trials=(
            Trial(backend="torch", precision="fp32", images_per_core_second=14.5, cosine=1.0),
            Trial(backend="openvino", precision="bf16", refused="not installed"),
        ),
        chosen=("torch", "fp32"),
    )
    assert Race.from_json(race.to_json()) == race
