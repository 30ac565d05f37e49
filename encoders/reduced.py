"""Encoders of fewer dimensions: both towers are cut to the directions in which a sample of their vectors lies.

A linear map after both towers changes no cosine more than what it leaves out. It is multiplied into the last layer of
each tower, so that what comes out is an ordinary model in a folder, which is exported and compiled like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .checkpoints import load_towers, write_local_dir
from .errors import EncoderError
from .lite import TRUNK, WIDE_TRUNK
from .two_towers import TwoTowers

Rows = NDArray[np.float32]
Weights = dict[str, torch.Tensor]
# Heads of timm's trunks that give the vectors themselves.
_TRUNK_HEADS = ("visual.trunk.head", "visual.trunk.head.fc", "visual.trunk.classifier", "visual.trunk.fc")


def principal_directions(images: Rows, texts: Rows, dim: int) -> Rows:
    """Return (full dim, dim) orthonormal columns: where most of the length of images and texts lies, both alike.

    They are the principal components without the mean taken away: with it cosines between the towers would be others.

    Args:
        images: (n, full dim) unit rows of a sample; of one collection alone give no rows here or there.
        texts: (m, full dim) unit rows.
        dim: How many to keep.

    Raises:
        ValueError: Fewer rows than `dim`, or fewer values in a row.
    """
    most = min(len(images) + len(texts), images.shape[1])
    if not 1 <= dim <= most:
        raise ValueError(f"{dim} directions of {len(images)} images and {len(texts)} texts of {images.shape[1]} values")
    moments = [rows.T.astype(np.float64) @ rows / len(rows) for rows in (images, texts) if len(rows)]
    directions = np.linalg.eigh(np.sum(moments, axis=0))[1][:, ::-1][:, :dim]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(dim)])
    return np.ascontiguousarray(directions * signs, dtype=np.float32)


def first_values(full: int, dim: int) -> Rows:
    """Return (full, dim) columns that keep the first values of a vector.

    These are a vector by themselves where an encoder was trained so (Matryoshka, Kusupati et al. 2022).
    """
    return np.eye(full, dim, dtype=np.float32)


def applied(vectors: Rows, directions: Rows) -> Rows:
    """Return (n, dim) unit rows: vectors along the directions that are kept."""
    kept = vectors @ directions
    return np.asarray(kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def save_reduced(spec: str, directions: Rows, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write an encoder whose vectors are those of `spec` along some directions.

    Args:
        spec: The encoder, as `load_encoder` takes it.
        directions: (full dim, dim) columns.
        folder: A new or empty folder.
        facts: JSON values that it tells of itself, as `details["reduced"]`.

    Raises:
        EncoderError: It cannot be loaded, its last layers are of a kind that no map can be multiplied into, or the
            folder is not empty.
    """
    towers = load_towers(spec)
    state, config = reduced(towers, torch.from_numpy(directions))
    details = {**towers.details, "source": "folder", "reduced": dict(facts)}
    write_local_dir(towers, state, config, folder, details)


def reduced(towers: TwoTowers, directions: torch.Tensor) -> tuple[Weights, dict[str, Any]]:
    """Return the weights and the configuration of a model with the directions (full dim, dim) in its last layers.

    Raises:
        EncoderError: They are of a kind that no map can be multiplied into.
    """
    config = {key: dict(part) if isinstance(part, Mapping) else part for key, part in towers.config.items()}
    state = {name: tensor.detach().cpu().float() for name, tensor in towers.model.state_dict().items()}
    known = isinstance(config.get("vision_cfg"), dict) and isinstance(config.get("text_cfg"), dict)
    if not known or "multimodal_cfg" in config or config.get("embed_dim") != len(directions):
        raise _cannot(towers, "it is no model of two towers alone")
    if not _cut_images(state, config["vision_cfg"], directions):
        raise _cannot(towers, "its image tower ends in a layer of another kind")
    if not _cut_texts(state, config["text_cfg"], directions):
        raise _cannot(towers, "its text tower ends in a layer of another kind")
    return state, {**config, "embed_dim": directions.shape[1]}


def _cannot(towers: TwoTowers, why: str) -> EncoderError:
    return EncoderError(f"the vectors of encoder {towers.spec!r} cannot be cut: {why}; leave --dim out")


def _cut_images(state: Weights, config: dict[str, Any], directions: torch.Tensor) -> bool:
    if config.get("timm_model_name") in (TRUNK, WIDE_TRUNK):
        # `timm_proj` null has the trunk give so many values itself.
        state["visual.trunk.class_vectors"] = state["visual.trunk.class_vectors"] @ directions
        config["timm_proj"] = None
        return _cut_layer(state, "visual.trunk.residual", directions)
    if "timm_model_name" not in config:
        return _cut_matrix(state, "visual.proj", directions) or _cut_layer(state, "visual.attnpool.c_proj", directions)
    projection = config.get("timm_proj", "linear")
    if projection == "linear":
        return _cut_layer(state, "visual.head.proj", directions)
    if projection == "none":
        if config.get("timm_pool") != "map":  # other pools are built with other layers where one follows
            return False
        config["timm_proj"] = "linear"
        state["visual.head.proj.weight"] = directions.T
        return True
    return not projection and any(_cut_layer(state, name, directions) for name in _TRUNK_HEADS)


def _cut_texts(state: Weights, config: dict[str, Any], directions: torch.Tensor) -> bool:
    if "hf_model_name" in config:
        if config.get("hf_proj_type") is None:
            config["hf_proj_type"] = "linear"
            state["text.proj.weight"] = directions.T
            return True
        return config["hf_proj_type"] == "linear" and _cut_layer(state, "text.proj", directions)
    for name in ("text_projection", "text.text_projection"):
        if _cut_matrix(state, name, directions) or _cut_layer(state, name, directions):
            return True
    if config.get("proj_type") != "none":
        return False
    config["proj_type"] = "linear"
    state["text_projection" if "token_embedding.weight" in state else "text.text_projection"] = directions
    return True


def _cut_matrix(state: Weights, name: str, directions: torch.Tensor) -> bool:
    """Cut a matrix (inputs, full dim); return whether there is one."""
    if name not in state or state[name].shape[-1] != len(directions):
        return False
    state[name] = state[name] @ directions
    return True


def _cut_layer(state: Weights, name: str, directions: torch.Tensor) -> bool:
    """Cut a linear layer, whose weight is (full dim, inputs); return whether there is one."""
    weight, bias = f"{name}.weight", f"{name}.bias"
    if weight not in state or state[weight].ndim != 2 or len(state[weight]) != len(directions):
        return False
    state[weight] = directions.T @ state[weight]
    if bias in state:
        state[bias] = state[bias] @ directions
    return True
