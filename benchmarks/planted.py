"""Planted data: images made of latent concepts, captions that tell a few of them, frequencies as in real life.

A concept has a prototype (a direction among the region features) and words. An image shows some concepts, a region
each, with noise, and distractors that no caption tells. A caption names some of the image's concepts by one of their
words. Concepts come with the frequency of words: the k-th with weight 1 / k. In train some of the rare ones are hardly
seen, and dev and test ask for all alike. Concepts go together: each belongs to a topic, and an image takes most of
its concepts from one, so that what an instance does not tell, instances like it do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Planted:
    """How the data is made.

    Attributes:
        concepts: In all.
        topics: Into which they fall.
        shown: Concepts of an image.
        told: Concepts that a caption names.
        words: Words of a concept; a caption takes one.
        regions: Of an image; more than `shown` are distractors.
        noise: Deviation of a region's features, where a prototype has 1.
        shy: Every second concept is told so much more rarely in train than the others; 1 is as often. In dev and test
            all are told alike.
        wrong: Share of the training captions that belong to another image.
        images: Of train, dev and test.
    """

    concepts: int = 90
    topics: int = 6
    shown: int = 4
    told: int = 2
    words: int = 3
    regions: int = 8
    noise: float = 1.0
    shy: float = 1.0
    wrong: float = 0.0
    images: tuple[int, int, int] = (400, 300, 500)


CAPTIONS = 5
DIM = 64
FILLERS = ("a", "the", "with", "some", "and")


def write_planted(folder: Path, how: Planted, seed: int = 0) -> None:
    """Write a `_precomp` folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(how.concepts, DIM))
    for split, count in zip(("train", "dev", "test"), how.images, strict=True):
        zipf = 1 / np.arange(1, how.concepts + 1)
        weights = zipf if split == "train" else np.ones(how.concepts)
        images = [_concepts(rng, how, weights) for _ in range(count)]
        features = np.stack([_regions(rng, how, prototypes, concepts) for concepts in images])
        np.save(folder / f"{split}_ims.npy", features.astype(np.float32))
        shy = how.shy if split == "train" else 1.0
        told = [_caption(rng, how, concepts, shy) for concepts in images for _ in range(CAPTIONS)]
        if split == "train" and how.wrong:
            bad = np.flatnonzero(rng.random(len(told)) < how.wrong)
            moved = [told[row] for row in rng.permutation(bad)]
            for row, caption in zip(bad, moved, strict=True):
                told[row] = caption
        (folder / f"{split}_caps.txt").write_text("\n".join(told) + "\n", encoding="utf-8")


def _concepts(rng: np.random.Generator, how: Planted, weights: np.ndarray) -> np.ndarray:
    topic = rng.choice(how.concepts, p=weights / weights.sum()) % how.topics
    own = np.where(np.arange(how.concepts) % how.topics == topic, 1.0, 0.05) * weights
    return rng.choice(how.concepts, how.shown, replace=False, p=own / own.sum())


def _regions(rng: np.random.Generator, how: Planted, prototypes: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    distractors = rng.normal(size=(how.regions - how.shown, DIM))
    seen = np.concatenate([prototypes[concepts], distractors])
    return rng.permutation(seen + how.noise * rng.normal(size=seen.shape))


def _caption(rng: np.random.Generator, how: Planted, concepts: np.ndarray, shy: float) -> str:
    weights = np.where(concepts % 2, shy, 1.0)
    told = rng.choice(concepts, how.told, replace=False, p=weights / weights.sum())
    words = [f"w{concept}x{rng.integers(how.words)}" for concept in told]
    return " ".join(part for word in words for part in (FILLERS[rng.integers(len(FILLERS))], word))
