"""Shorter and narrower vectors: what fewer dimensions, and one byte a value, cost of recall.

    python benchmarks/fewer_dimensions.py

With `lite` on Flickr8k the directions are those of the split `train` and the figures those of `dev`. With the real CLIP
vectors they are those of 500 further images and of the captions of one half of the photographs; the figures are those
of the other half among all images, and then the halves change places.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from record import Figure, need_data, record

from encoders import load_encoder
from encoders.reduced import applied, principal_directions
from evaluation import ann_recall, evaluate_embeddings, exact_top_k
from indexer import SourceOptions, build_index
from storage import IndexStore

DIMS = {"lite": (32, 48, 64, 96, 128, 192, 256), "CLIP ViT-B/32": (32, 64, 96, 128, 192, 256, 384)}
DEPTH = 10
LEVELS = 127


class Measured(NamedTuple):
    """Vectors to fit to, and others to judge by: images (n, dim), texts (m, dim), and the image of each text (m,)."""

    fit_images: NDArray[Any]
    fit_texts: NDArray[Any]
    images: NDArray[Any]
    texts: NDArray[Any]
    owners: NDArray[Any]


def main() -> None:
    figures = []
    for name, parts in (("lite", [of_lite()]), ("CLIP ViT-B/32", list(of_clip()))):
        figures += compared(name, "all values in float16", parts, lambda _, rows: rows)
        for dim in DIMS[name]:
            figures += compared(name, f"{dim} dimensions", parts, lambda part, rows, dim=dim: cut(part, rows, dim))
        figures += compared(name, "one byte a value", parts, lambda _, rows: in_bytes(rows))
        rows = parts[0].images
        error = np.abs(in_bytes(rows) @ in_bytes(parts[0].texts).T - rows @ parts[0].texts.T).max()
        figures.append(Figure(f"{name}, one byte a value: largest error of a score", round(float(error), 5)))
    notes = (
        "Exact search. Of the ten nearest: share of the exact ten nearest by all values, text to image. One byte a "
        "value: 254 levels between the largest values of a row, both sides, of which queries need not be so."
    )
    record("fewer_dimensions", figures, notes)


def compared(name: str, what: str, parts: list[Measured], made: Any) -> list[Figure]:
    hits: dict[str, list[float]] = {"text_to_image": [], "image_to_text": []}
    nearest = []
    for part in parts:
        images, texts = made(part, part.images), made(part, part.texts)
        pairs = np.stack([part.owners, np.arange(len(part.texts))], axis=1)
        found = evaluate_embeddings(images, texts, pairs, (1,))
        for way, values in hits.items():
            values.append(found[way]["R@1"])
        exact = exact_top_k(part.images, part.texts, DEPTH)[0]
        nearest.append(ann_recall(exact_top_k(images, texts, DEPTH)[0], exact))
    said = {way: f"{np.mean(values):.4f}" for way, values in hits.items()}
    return [
        Figure(f"{name}, {what}: R@1 text to image, image to text", ", ".join(said.values())),
        Figure(f"{name}, {what}: of the ten nearest", round(float(np.mean(nearest)), 4)),
    ]


def cut(part: Measured, rows: NDArray[Any], dim: int) -> NDArray[Any]:
    shorter = applied(rows, principal_directions(part.fit_images, part.fit_texts, dim))
    return shorter.astype(np.float16).astype(np.float32)


def in_bytes(rows: NDArray[Any]) -> NDArray[Any]:
    steps = np.abs(rows).max(axis=1, keepdims=True) / LEVELS
    return np.asarray(np.rint(rows / steps) * steps, dtype=np.float32)


def of_lite() -> Measured:
    table = need_data() / "flickr8k" / "captions.jsonl"
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "flickr8k.index"
        options = SourceOptions(image="image", text="captions", id="image")
        build_index(table, index, encoder=load_encoder("lite"), options=options)
        with IndexStore.open(index).open_version() as version:
            pairs = version.catalog.table("pairs")
            owners = np.empty(version.vectors("texts").rows, np.int64)
            owners[np.asarray(pairs.column("text_row"))] = np.asarray(pairs.column("image_row"))
            images, texts = (
                table.gather(np.arange(table.rows)).astype(np.float32)
                for table in (version.vectors("images"), version.vectors("texts"))
            )
            splits = np.array(version.catalog.table("images", ["split"]).column("split").to_pylist())
    train, dev = splits == "train", splits == "dev"
    position = np.cumsum(dev) - 1
    of_dev = dev[owners]
    return Measured(images[train], texts[train[owners]], images[dev], texts[of_dev], position[owners[of_dev]])


def of_clip() -> Iterator[Measured]:
    folder = need_data() / "clip_vit_b32"
    images, further, texts = (
        np.load(folder / f"{name}.npy").astype(np.float32)
        for name in ("flickr8k_images", "distractor_images", "flickr8k_captions")
    )
    lines = (folder / "flickr8k_captions.jsonl").read_text("utf-8").splitlines()
    owners = np.array([json.loads(line)["image_row"] for line in lines])
    for half in (0, 1):
        judged = owners % 2 == half
        yield Measured(further, texts[~judged], np.concatenate([images, further]), texts[judged], owners[judged])


if __name__ == "__main__":
    main()
