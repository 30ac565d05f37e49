"""Encoders of fewer dimensions: their vectors are those of the encoder along the directions, whatever its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_clip import TINY, write_folder

from encoders import EncoderError, load_encoder
from encoders.reduced import applied, first_values, principal_directions, save_reduced

DIM = 12
TEXTS = ["a dog", "two cats on a sofa", "a red bus in the rain", "nothing", "", "a man on a horse by the sea"]
SMALL = {"timm_model_name": "test_vit", "image_size": 160}
TEXT = TINY["text_cfg"]


def config(embed_dim: int = 24, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    made = {"embed_dim": embed_dim, "vision_cfg": vision or TINY["vision_cfg"], "text_cfg": {**TEXT, **text}}
    return {**made, "custom_text": True} if text or vision else made


ENDS = {
    "two matrices": config(),
    "an attention pool, and a layer with a bias": config(
        vision={"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 64}, proj_bias=True
    ),
    "a layer behind a trunk": config(vision={**SMALL, "timm_pool": "avg", "timm_proj": "linear"}),
    "a trunk without a layer": config(
        96, vision={**SMALL, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"}
    ),
    "a classifier of a trunk, and texts without a layer": config(
        32, vision={**SMALL, "timm_pool": "avg", "timm_proj": None}, proj_type="none"
    ),
}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(2)
    return [Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize((96, 64)) for _ in range(10)]


@pytest.mark.parametrize("end", list(ENDS))
def test_vectors_are_those_of_the_encoder_along_the_directions(
    end: str, images: list[Image.Image], tmp_path: Path
) -> None:
    spec = f"local-dir:{write_folder(tmp_path / 'full', config=ENDS[end])}"
    full = load_encoder(spec, "cpu", "fp32")
    pictured, said = full.encode_images(images), full.encode_texts(TEXTS)
    directions = principal_directions(pictured, said, DIM)
    save_reduced(spec, directions, tmp_path / "cut", {"of": spec})
    cut = load_encoder(f"local-dir:{tmp_path / 'cut'}", "cpu", "fp32")
    assert cut.dim == DIM
    assert cut.fingerprint != full.fingerprint
    assert cut.info.details["reduced"] == {"of": spec}
    np.testing.assert_allclose(cut.encode_images(images), applied(pictured, directions), atol=2e-5)
    np.testing.assert_allclose(cut.encode_texts(TEXTS), applied(said, directions), atol=2e-5)


@pytest.mark.parametrize(("dim", "projection"), [(24, "mlp"), (64, "none")])
def test_a_layer_that_changes_with_the_dimension_is_refused(dim: int, projection: str, tmp_path: Path) -> None:
    vision = {**SMALL, "timm_pool": "avg", "timm_proj": projection}
    folder = write_folder(tmp_path / "full", config=config(dim, vision=vision))
    with pytest.raises(
        EncoderError, match=r"cannot be cut: its image tower ends in a layer of another kind; leave --dim"
    ):
        save_reduced(f"local-dir:{folder}", first_values(dim, 8), tmp_path / "cut", {})
    assert not (tmp_path / "cut").exists()


def test_principal_directions_keep_what_images_and_texts_differ_in_and_the_gap_between_them() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((32, 32)))[0].astype(np.float32)
    topics = basis[:6]
    gap = 0.5 * basis[6]

    def rows(count: int, sign: float) -> np.ndarray:
        made = rng.standard_normal((count, 6)) @ topics + sign * gap + 0.01 * rng.standard_normal((count, 32))
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)

    left, right = rows(300, 1.0), rows(200, -1.0)
    directions = principal_directions(left, right, 7)
    np.testing.assert_allclose(directions.T @ directions, np.eye(7), atol=1e-5)
    np.testing.assert_allclose(applied(left, directions) @ applied(right, directions).T, left @ right.T, atol=0.01)


def test_one_collection_alone_has_directions_and_too_many_are_refused() -> None:
    rows = np.eye(5, 8, dtype=np.float32)
    nothing = np.zeros((0, 8), np.float32)
    assert principal_directions(rows, nothing, 5).shape == (8, 5)
    assert principal_directions(nothing, rows, 2).shape == (8, 2)
    for dim in (0, 6, 9):
        with pytest.raises(ValueError, match="directions of 5 images"):
            principal_directions(rows, nothing, dim)
