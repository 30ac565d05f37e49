"""Several GPUs, one encoder each: two encoders on the CPU stand for them."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from colour import ColourEncoder, paint, paint_folder
from tiny_clip import write_folder

from encoders import Encoder, EncoderError, load_encoder
from indexer import BuildError, build_index
from indexer.config import BuildConfig
from indexer.encode import build_encoder, several_devices
from indexer.encode.several_devices import EncoderTeam, other_devices
from indexer.progress import SilentProgress
from storage import IndexStore


class Recorder:
    """An encoder of numbers that waits until every device computes."""

    def __init__(self, device: str, together: threading.Barrier | None = None) -> None:
        self.device, self.batch_size, self.together = device, 4, together
        self.seen: list[int] = []

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.seen.append(int(pixels[0]))
        if self.together is not None:
            self.together.wait(10)
        return pixels * 2


def team_of(*encoders: Any) -> EncoderTeam:
    return EncoderTeam(encoders)


def test_every_device_computes_two_batches_at_once() -> None:
    together = threading.Barrier(4)
    devices = [Recorder(f"cuda:{number}", together) for number in range(2)]
    team = team_of(*devices)
    assert (team.threads, team.batch_size, team.on_cpu_alone) == (4, 4, False)
    threads = [threading.Thread(target=team.encode_pixels, args=(np.array([number]),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(devices[0].seen + devices[1].seen) == list(range(8))
    assert all(len(device.seen) >= 2 for device in devices)


def test_one_encoder_on_the_cpu_gets_one_batch_at_a_time_and_batches_are_dealt_in_turn() -> None:
    assert (team_of(Recorder("cpu")).threads, team_of(Recorder("cuda")).threads) == (1, 2)
    devices = [Recorder(f"cuda:{number}") for number in range(3)]
    team = team_of(*devices)
    for number in range(9):
        team.encode_pixels(np.array([number]))
    assert [device.seen for device in devices] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    devices[1].batch_size = 2
    assert team.batch_size == 2


def stored(index: Path) -> dict[str, np.ndarray]:
    with IndexStore.open(index).open_version() as version:
        tables = {name: version.vectors(name) for name in ("images", "texts")}
        return {name: np.asarray(table.gather(np.arange(table.rows))) for name, table in tables.items()}


def images_of(index: Path) -> np.ndarray:
    with IndexStore.open(index).open_version() as version:
        table = version.vectors("images")
        return np.asarray(table.gather(np.arange(table.rows)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"local-dir:{write_folder(tmp_path_factory.mktemp('several') / 'model')}"


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> list[Encoder]:
    """Makes `--gpus 2` take a second encoder on the CPU; the encoders that were loaded for it."""
    loaded = list[Encoder]()

    def load(*given: str) -> Encoder:
        loaded.append(load_encoder(*given))
        return loaded[-1]

    monkeypatch.setattr(several_devices, "load_encoder", load)
    monkeypatch.setattr(several_devices, "other_devices", lambda encoder, gpus: ("cpu",) * (gpus - 1))
    return loaded


def test_an_index_of_two_devices_is_that_of_one_to_the_last_bit(
    tmp_path: Path, model: str, two_devices: list[Encoder]
) -> None:
    corpus = paint_folder(tmp_path / "photos", count=30)
    settings: dict[str, Any] = {"encoder": model, "batch_size": 3, "shard_cost": 8, "decode_workers": 1}
    one = build_index(corpus, tmp_path / "one", **settings)
    two = build_index(corpus, tmp_path / "two", gpus=2, **settings)
    assert len(two_devices) == 1
    for name, vectors in stored(tmp_path / "one").items():
        np.testing.assert_array_equal(stored(tmp_path / "two")[name], vectors)
    assert two.manifest.build["encode"]["executor"] == {"name": "local", "devices": ["cpu", "cpu"]}
    assert "devices" not in one.manifest.build["encode"]["executor"]


def test_a_device_that_fails_ends_the_build_in_one_line_and_one_device_goes_on(
    tmp_path: Path, model: str, two_devices: list[Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = paint_folder(tmp_path / "photos", count=24)
    settings: dict[str, Any] = {"encoder": model, "batch_size": 2, "shard_cost": 8, "decode_workers": 1}
    taken = several_devices.load_encoder

    def failing(*given: str) -> Encoder:
        encoder: Any = taken(*given)
        encode, calls = encoder.encode_pixels, list[int]()

        def encode_pixels(pixels: np.ndarray) -> np.ndarray:
            calls.append(len(pixels))
            if len(calls) > 4:
                raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")
            vectors: np.ndarray = encode(pixels)
            return vectors

        encoder.encode_pixels, encoder.device = encode_pixels, "cuda:1"
        return encoder

    monkeypatch.setattr(several_devices, "load_encoder", failing)
    with pytest.raises(EncoderError, match=r"^device 'cuda:1' failed: CUDA error: an illegal memory .*d; run the same"):
        build_index(corpus, tmp_path / "index", gpus=2, **settings)
    report = build_index(corpus, tmp_path / "index", **settings)
    assert report.manifest.build["encode"]["resumed"] > 0
    build_index(corpus, tmp_path / "anew", **settings)
    for name, vectors in stored(tmp_path / "anew").items():
        np.testing.assert_array_equal(stored(tmp_path / "index")[name], vectors)


def test_another_model_under_the_same_name_is_refused(two_devices: list[Encoder], model: str) -> None:
    first: Any = SimpleNamespace(spec=model, device="cpu", precision="fp32", batch_size=4, fingerprint="f00")
    with pytest.raises(BuildError, match=r"was loaded again for cpu and is another than before .*not f00"):
        several_devices.team_of(first, BuildConfig(gpus=2), SilentProgress())


def test_an_update_loads_the_encoders_when_there_is_something_to_encode(
    tmp_path: Path, model: str, two_devices: list[Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = paint_folder(tmp_path / "photos", count=12, captions=False)
    settings: dict[str, Any] = {"batch_size": 2, "decode_workers": 1, "gpus": 2}
    build_index(corpus, tmp_path / "index", encoder=model, **settings)
    loads, load = list[str](), build_encoder.load_encoder
    monkeypatch.setattr(build_encoder, "load_encoder", lambda *given: loads.append(given[0]) or load(*given))
    two_devices.clear()
    removed = sorted(corpus.rglob("*.png"))[0]
    content = removed.read_bytes()
    removed.unlink()
    report = build_index(corpus, tmp_path / "index", update=True, **settings)
    assert (report.manifest.counts.images, loads, two_devices) == (11, [], [])
    for number in range(4):
        (corpus / f"new{number}.png").write_bytes(content)
        paint(corpus / f"other{number}.png", "green", noise=10 * number)
    build_index(corpus, tmp_path / "index", update=True, **settings)
    assert (loads, len(two_devices)) == ([model], 1)
    build_index(corpus, tmp_path / "anew", encoder=model, **settings)
    np.testing.assert_array_equal(images_of(tmp_path / "index"), images_of(tmp_path / "anew"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cpu"}, "--gpus 2 goes with --device cuda, not cpu"),
        ({"device": "cuda:1"}, "--gpus 2 goes with --device cuda, not cuda:1"),
        ({"gpus": 0}, "gpus is 0; give a number of at least 1"),
        ({"executor": "ray"}, "--gpus 2 is for this machine alone; with --executor ray say --workers"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message) as raised:
        BuildConfig(**{"gpus": 2, **settings})
    assert raised.value.exit_code == 2


def test_more_gpus_than_there_are_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match="--gpus 3 goes with an encoder on the first GPU, not on cpu"):
        other_devices(ColourEncoder(), 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    on_gpu: Any = SimpleNamespace(device="cuda")
    assert other_devices(on_gpu, 2) == ("cuda:1",)
    with pytest.raises(EncoderError, match="--gpus 3: torch sees 2 of them; give 2 at most"):
        other_devices(on_gpu, 3)
