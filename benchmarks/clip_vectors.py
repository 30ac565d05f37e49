"""Real CLIP ViT-B/32 vectors through `build-index` and `evaluate_index`: is any recall lost on the way?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from record import Figure, need_data, record

from evaluation import Bootstrap
from evaluation.protocol import Protocol
from indexer import EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from searcher import EvaluateOptions, evaluate_index

ASKED = {
    "text_to_image R@1/5/10": (0.832, 0.990, 0.998),
    "image_to_text R@1/5/10": (0.930, 1.0, 1.0),
    "text_to_image, 600 images, R@1/5/10": (0.822, 0.986, 0.996),
}
CUTOFFS = (1, 5, 10)
ANN_RECALL = 0.99


def main() -> None:
    folder = need_data() / "clip_vit_b32"
    figures, notes = [], ""
    with tempfile.TemporaryDirectory() as scratch:
        for ann in ("flat", "ivf-pq4", "ivf-rabitq", "ivf-flat", "hnsw", "ivf-pq"):
            # 8-bit PQ needs 256 images, so it is built on the 600 alone.
            small = None if ann == "ivf-pq" else scored(folder, Path(scratch) / f"{ann}-100", ann, distractors=False)
            large = scored(folder, Path(scratch) / f"{ann}-600", ann, distractors=True)
            if ann == "flat" and small:
                notes = " ".join(sentence(found) for found in (small, large))
                figures += exact_figures(small, large)
            figures += ann_figures(ann, small, large)
    record(
        "clip_vectors",
        figures,
        "500 captions and 100 photographs of Flickr8k, and 500 further images, as real CLIP ViT-B/32 vectors. Every "
        f"approximate kind is searched at ann_recall={ANN_RECALL}; 8-bit PQ needs 256 images, so it is built on the "
        f"600 alone. {notes}",
    )


def scored(folder: Path, out: Path, ann: Any, *, distractors: bool) -> dict[str, Any]:
    images = np.load(folder / "flickr8k_images.npy")
    if distractors:
        images = np.concatenate([images, np.load(folder / "distractor_images.npy")])
    np.save(out.with_suffix(".images.npy"), images)
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [f"{json.loads(line)['image_row']},{row}" for row, line in enumerate(lines)]
    pairs = out.with_suffix(".csv")
    pairs.write_text("\n".join(["image_row,text_row", *rows]) + "\n", encoding="utf-8")
    options = EmbeddingOptions(
        images=EmbeddingFiles(vectors=out.with_suffix(".images.npy")),
        texts=EmbeddingFiles(vectors=folder / "flickr8k_captions.npy"),
        pairs=pairs,
    )
    build_index(EmbeddingSource(options), out, ann=ann)
    return evaluate_index(out, EvaluateOptions(bootstrap=Bootstrap(), ann_recall=ANN_RECALL))


def sentence(found: Mapping[str, Any]) -> str:
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in found["protocol"].items()}
    return Protocol(**told).sentence()


def exact_figures(small: Mapping[str, Any], large: Mapping[str, Any]) -> list[Figure]:
    """Exact search, with the interval that so few queries leave."""
    directions = [small["text_to_image"], small["image_to_text"], large["text_to_image"]]
    rows = [figure("exact", name, found) for name, found in zip(ASKED, directions, strict=True)]
    for name, found in zip(ASKED, directions, strict=True):
        low, high = found["intervals"]["R@1"]
        rows.append(
            Figure(f"exact: {name.split(' R@')[0].rstrip(',')}, 95 % interval of R@1", f"{low:.3f} to {high:.3f}")
        )
    return [*rows, Figure("exact: rsum, 100 images and 500 captions", round(small["rsum"], 1))]


def ann_figures(ann: str, small: Mapping[str, Any] | None, large: Mapping[str, Any]) -> list[Figure]:
    names = list(ASKED)
    first = (
        []
        if small is None
        else [
            figure(ann, names[0], small["ann"]["text_to_image"]),
            figure(ann, names[1], small["ann"]["image_to_text"]),
        ]
    )
    return [*first, figure(ann, names[2], large["ann"]["text_to_image"])]


def figure(label: str, name: str, found: Mapping[str, Any]) -> Figure:
    rates = " / ".join(f"{found[f'R@{k}']:.3f}" for k in CUTOFFS)
    return Figure(f"{label}: {name}", rates, " / ".join(f"{value:.3f}" for value in ASKED[name]))


if __name__ == "__main__":
    main()
