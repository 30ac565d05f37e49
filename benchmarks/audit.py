"""Audit: of captions that were swapped at random, how many are among the most suspicious pairs.

    python benchmarks/audit.py

1 % of the captions of Flickr8k (15,000 pairs in 3,000 photographs) change places with one another, five times at
random; the 2 % most suspicious pairs are looked at. The weight of the score was chosen on the split `train`, so `dev`
is measured by itself too. The same with real CLIP vectors, and for images of which all captions were exchanged.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from record import Figure, need_data, record

from encoders import load_encoder
from indexer import EmbeddingSource, SourceOptions, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from searcher.audit import audit_index
from searcher.audit.suspicious import JudgedPairs, judge_pairs
from storage import IndexStore

SWAPPED, LOOKED_AT, ROUNDS = 0.01, 0.02, 5
PER_IMAGE = 5


class Vectors(NamedTuple):
    """Images (n, dim) and five texts an image (5 n, dim), in order."""

    images: NDArray[Any]
    texts: NDArray[Any]


def main() -> None:
    lines = [json.loads(line) for line in (need_data() / "flickr8k" / "captions.jsonl").read_text("utf-8").splitlines()]
    splits = np.array([line["split"] for line in lines])
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lite, index = of_flickr8k(folder)
        dev = Vectors(lite.images[splits == "dev"], lite.texts[np.repeat(splits == "dev", PER_IMAGE)])
        for name, vectors in (("lite, all", lite), ("lite, dev", dev), ("CLIP ViT-B/32", of_clip())):
            figures += swapped(folder, name, vectors, rounds=6 * ROUNDS if len(vectors.texts) < 1000 else ROUNDS)
        started = time.perf_counter()
        audit_index(index)
        figures.append(
            Figure("audit of 3,000 images and 15,000 texts", round(time.perf_counter() - started, 1), "", "s")
        )
    notes = (
        f"{SWAPPED:.0%} of the captions swapped at random, mean of {ROUNDS} rounds ({6 * ROUNDS} with CLIP, 5 of "
        f"500 each); the share of them among the {LOOKED_AT:.0%} most suspicious pairs. Chance is {LOOKED_AT:g}."
    )
    record("audit", figures, notes)


def of_flickr8k(folder: Path) -> tuple[Vectors, Path]:
    """The vectors of all photographs and captions of Flickr8k by `lite`, as an index holds them, and the index."""
    table, index = need_data() / "flickr8k" / "captions.jsonl", folder / "flickr8k.index"
    options = SourceOptions(image="image", text="captions", id="image")
    build_index(table, index, encoder=load_encoder("lite"), options=options)
    with IndexStore.open(index).open_version() as version:
        pairs = np.stack(
            [np.asarray(version.catalog.table("pairs").column(f"{name}_row")) for name in ("image", "text")]
        )
        assert np.array_equal(pairs, [np.arange(pairs.shape[1]) // PER_IMAGE, np.arange(pairs.shape[1])])
        tables = (version.vectors("images"), version.vectors("texts"))
        return Vectors(*(table.gather(np.arange(table.rows)).astype(np.float32) for table in tables)), index


def of_clip() -> Vectors:
    folder = need_data() / "clip_vit_b32"
    return Vectors(np.load(folder / "flickr8k_images.npy"), np.load(folder / "flickr8k_captions.npy"))


def swapped(folder: Path, name: str, vectors: Vectors, rounds: int) -> list[Figure]:
    single, fit, whole, chance = [], [], [], []
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        owner = np.arange(len(vectors.texts)) // PER_IMAGE
        moved = exchanged(rng, owner)
        judged = judged_of(folder / f"{name.split(',')[0].split()[0]}-{len(owner)}-{seed}", vectors, moved)
        wrong = judged.images != judged.texts // PER_IMAGE
        single.append(among_worst(judged.scores, wrong))
        fit.append(among_worst(judged.fit, wrong))
        chance.append(among_worst(rng.permutation(len(wrong)), wrong))
        images = exchanged(rng, np.arange(len(vectors.images)))
        judged = judged_of(
            folder / f"{name.split(',')[0].split()[0]}-{len(owner)}-{seed}-whole", vectors, images[owner]
        )
        rows, means = judged.images_by_fit()
        whole.append(among_worst(means, images[rows] != rows))
    return [
        Figure(f"{name}: swapped captions among the 2 % most suspicious", float(np.mean(single)), "stated"),
        Figure(f"{name}: by fit alone, as with one caption an image", float(np.mean(fit)), "stated"),
        Figure(f"{name}: by chance", float(np.mean(chance)), "0.02"),
        Figure(
            f"{name}: images with all captions swapped among the 2 % that fit least", float(np.mean(whole)), "stated"
        ),
    ]


def exchanged(rng: np.random.Generator, owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """The owners where 1 % of them, two at least, have gone round to another."""
    moved, chosen = owner.copy(), rng.permutation(len(owner))[: max(2, round(SWAPPED * len(owner)))]
    while (owner[chosen] == owner[np.roll(chosen, 1)]).any():
        chosen = rng.permutation(chosen)
    moved[chosen] = owner[np.roll(chosen, 1)]
    return moved


def judged_of(out: Path, vectors: Vectors, owner: NDArray[np.int64]) -> JudgedPairs:
    files = {}
    for side, values in vectors._asdict().items():
        np.save(out.with_suffix(f".{side}.npy"), values)
        files[side] = EmbeddingFiles(vectors=out.with_suffix(f".{side}.npy"))
    rows = "".join(f"{image},{text}\n" for text, image in enumerate(owner))
    out.with_suffix(".csv").write_text(f"image_row,text_row\n{rows}", "utf-8")
    build_index(EmbeddingSource(EmbeddingOptions(**files, pairs=out.with_suffix(".csv"))), out, ann="flat")
    with IndexStore.open(out).open_version() as version:
        judged = judge_pairs(version)
    assert judged is not None
    return judged


def among_worst(scores: NDArray[Any], wrong: NDArray[np.bool_]) -> float:
    """The share of what is wrong among the 2 % with the lowest scores."""
    worst = np.argsort(scores, kind="stable")[: round(LOOKED_AT * len(scores))]
    return float(wrong[worst].sum() / wrong.sum())


if __name__ == "__main__":
    main()
