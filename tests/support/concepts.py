"""Pictures made of concepts: each region shows one, with noise; each caption names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

WORDS = ("red", "dog", "boat", "tree", "lamp", "king", "snow", "fish", "road", "bell", "milk", "wolf")
REGIONS, DIM, CAPTIONS = 5, 24, 2


def write_concepts(folder: Path, counts: Mapping[str, int], rng: np.random.Generator, *, ids: bool = True) -> None:
    """Write a `_precomp` folder with so many pictures a split, each of three concepts in five regions."""
    folder.mkdir(parents=True, exist_ok=True)
    looks = np.random.default_rng(7).normal(size=(len(WORDS), DIM)).astype(np.float32)
    number = 0
    for split, count in counts.items():
        features = np.empty((count, REGIONS, DIM), dtype=np.float32)
        captions, keys = [], []
        for picture in range(count):
            concepts = rng.choice(len(WORDS), 3, replace=False)
            shown = concepts[rng.integers(3, size=REGIONS)]
            shown[:3] = concepts
            features[picture] = looks[shown] + 0.2 * rng.normal(size=(REGIONS, DIM))
            captions += [" ".join(WORDS[one] for one in rng.permutation(concepts)) for _ in range(CAPTIONS)]
            keys += [str(number)] * CAPTIONS
            number += 1
        np.save(folder / f"{split}_ims.npy", features)
        (folder / f"{split}_caps.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
        if ids:
            (folder / f"{split}_ids.txt").write_text("\n".join(keys) + "\n", encoding="utf-8")
