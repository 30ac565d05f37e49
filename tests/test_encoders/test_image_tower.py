"""Exported image towers give the vectors of the model itself, or are not used."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from encoders import Encoder, load_encoder
from encoders.errors import ImageError, TowerError
from encoders.image_tower import ImageTower, find_image_tower
from encoders.image_tower.conv_net import ConvArchitecture, ConvNet
from encoders.image_tower.export import export_image_tower, image_side, keep_image_tower
from encoders.lite import load_lite, widen
from encoders.tower_files import cache_folder, was_refused
from encoders.two_towers import TwoTowers

LITE = load_lite()


@pytest.fixture(scope="module")
def folder(lite: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported image tower of `lite`."""
    folder = tmp_path_factory.mktemp("towers") / "image"
    info = export_image_tower(lite, folder)
    assert info.lowest_cosine > 0.9999
    return folder


@pytest.mark.parametrize("size", [(640, 480), (80, 300), (224, 224), (5000, 20), (3000, 2000)])
def test_an_image_has_the_vector_of_the_encoder(
    folder: Path, lite: Encoder, make_picture: Callable[..., Image.Image], size: tuple[int, int]
) -> None:
    picture = make_picture(*size)
    vector = ImageTower.open(folder).encode_images([picture])
    assert (vector.dtype, vector.shape) == (np.float32, (1, 384))
    # Of noise, more than of photographs, a rounding of the resize is left in the vector.
    assert float(np.vecdot(vector, lite.encode_images([picture]))[0]) > 0.999


def test_photographs_have_the_vectors_of_the_encoder(
    folder: Path, lite: Encoder, photographs: list[tuple[Path, str]]
) -> None:
    paths = [path for path, _ in photographs[:10]]
    assert np.vecdot(ImageTower.open(folder).encode_images(paths), lite.encode_images(paths)).min() > 0.9999


def vector_by_torch(towers: TwoTowers, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        features = towers.model.visual(torch.from_numpy(pixels)[None])[0]  # type: ignore[operator, union-attr]
        unit: np.ndarray = torch.nn.functional.normalize(features, dim=-1).numpy()
    return unit


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("side", [64, 101, 224])
def test_fine_tuned_heads_are_computed_alike(wide: bool, side: int) -> None:
    towers = load_lite()
    visual = towers.model.visual
    generator = torch.Generator().manual_seed(0)
    if wide:
        visual.trunk = widen(visual.trunk).eval()  # type: ignore[union-attr, arg-type]
        visual.trunk.fit_standardization(torch.rand((8, 2304), generator=generator))  # type: ignore[union-attr]
    with torch.no_grad():
        residual = visual.trunk.residual.weight  # type: ignore[union-attr]
        residual.copy_(torch.randn(residual.shape, generator=generator) * 0.01)
    info, weights = image_side(towers, "0" * 64, 384)
    assert ("seen.mean" in weights, len(info.architecture.taps)) == ((True, 2) if wide else (False, 0))
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, side, side)).astype(np.float32)
    assert float(ConvNet(info.architecture, weights).encode(pixels) @ vector_by_torch(towers, pixels)) > 0.99999


def test_what_is_not_lites_stays_with_torch() -> None:
    text = {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
    towers = dataclasses.replace(LITE, model=open_clip.CLIP(24, vision, text))
    with pytest.raises(TowerError, match="class VisionTransformer is computed by torch alone"):
        image_side(towers, "0" * 64, 24)


class TestKept:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TWINLENS_CACHE", str(tmp_path / "cache"))

    def test_it_is_exported_once_and_found_by_the_fingerprint(
        self, lite: Encoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert find_image_tower(lite.fingerprint, 384) is None
        info = keep_image_tower(lite)
        found = find_image_tower(lite.fingerprint, 384)
        assert found is not None
        assert found.info == info
        monkeypatch.setattr("encoders.image_tower.export.image_side", None)  # not computed again
        assert keep_image_tower(lite) == info

    def test_one_that_differs_is_not_kept_and_that_is_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder = load_encoder("lite", device="cpu")
        side = image_side

        def wrong(towers: TwoTowers, fingerprint: str, dim: int) -> object:
            info, weights = side(towers, fingerprint, dim)
            return info, weights | {"head.bias": weights["head.bias"] + 1}

        monkeypatch.setattr("encoders.image_tower.export.image_side", wrong)
        with pytest.raises(TowerError, match="lowest cosine"):
            keep_image_tower(encoder)
        assert was_refused("image", encoder.fingerprint)
        assert not was_refused("text", encoder.fingerprint)
        assert [path.suffix for path in cache_folder("image", encoder.fingerprint).parent.iterdir()] == [".refused"]


def small(**changes: object) -> tuple[ConvArchitecture, dict[str, np.ndarray]]:
    made = ConvArchitecture(dim=5, strides=(1, 2), taps=(1,), temperature=1.5)
    shapes = {"stem": (27, 4), "0.project": (4, 4), "1.expand": (4, 8), "1.project": (8, 6), "head": (6, 7)}
    shapes["classifier"] = (7, 9)
    random = np.random.default_rng(0)
    weights = {f"{name}.weight": random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": np.zeros(shape[1], dtype=np.float32) for name, shape in shapes.items()}
    for block, width in ((0, 4), (1, 8)):
        weights[f"{block}.depthwise.weight"] = random.standard_normal((3, 3, width), dtype=np.float32)
        weights[f"{block}.depthwise.bias"] = np.zeros(width, dtype=np.float32)
    weights |= {"class_vectors": random.standard_normal((9, 5), dtype=np.float32)}
    weights |= {"residual.weight": random.standard_normal((7 + 2 * 6, 5), dtype=np.float32)}
    return dataclasses.replace(made, **changes), weights  # type: ignore[arg-type]


class TestWeightsThatDoNotFit:
    def test_those_that_fit_give_a_unit_vector(self) -> None:
        vector = ConvNet(*small()).encode(np.ones((3, 17, 20), dtype=np.float32))
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)

    @pytest.mark.parametrize("name", sorted(small()[1]))
    def test_one_that_is_missing_or_of_another_shape_is_refused(self, name: str) -> None:
        made, weights = small()
        for changed in (weights[name][:-1], weights[name].reshape(-1)[:0]):
            with pytest.raises(TowerError, match="image tower"):
                ConvNet(made, weights | {name: changed})
        if name != "residual.weight":  # which may be left out
            with pytest.raises(TowerError, match="image tower"):
                ConvNet(made, {key: value for key, value in weights.items() if key != name})

    @pytest.mark.parametrize(
        "changes", [{"dim": 6}, {"strides": (1,)}, {"strides": (1, 0)}, {"taps": ()}, {"temperature": 0.0}]
    )
    def test_an_architecture_that_is_not_theirs_is_refused(self, changes: dict[str, object]) -> None:
        with pytest.raises(TowerError, match="image tower"):
            ConvNet(*small(**changes))


def test_damage_is_refused_and_the_file_named(folder: Path, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "tower.json"):
        copy = tmp_path / name
        copy.mkdir()
        for file in folder.iterdir():
            data = bytearray(file.read_bytes())
            if file.name == name:
                data[len(data) // 2] ^= 1
            (copy / file.name).write_bytes(data)
        with pytest.raises(TowerError, match=name):
            ImageTower.open(copy)


def test_sizes_that_no_image_has_are_refused(folder: Path, tmp_path: Path) -> None:
    tower = ImageTower.open(folder)
    for size in ((0, 224), (224,), (1 << 12, 1 << 12)):
        (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
        config = dataclasses.replace(tower.info.preprocess, size=size)
        (tmp_path / "tower.json").write_bytes(dataclasses.replace(tower.info, preprocess=config).to_json())
        with pytest.raises(TowerError, match="prepares images of"):
            ImageTower.open(tmp_path)


def test_an_image_that_cannot_be_decoded_is_refused(folder: Path) -> None:
    with pytest.raises(ImageError, match="not_an_image"):
        ImageTower.open(folder).encode_images([b"no image"])


def test_the_description_is_json_that_says_what_is_computed(folder: Path) -> None:
    plain = json.loads((folder / "tower.json").read_bytes())
    assert len(plain["architecture"]["strides"]) == 16
    assert plain["preprocess"]["resize_mode"] == "longest"
