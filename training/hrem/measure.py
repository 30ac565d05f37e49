"""The figure that training is steered by: recall of exact search over the dev split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation import evaluate_embeddings

from .feed import Feed
from .learner import Learner

CUTOFFS = (1, 5, 10)
BATCH = 256
DIRECTIONS = ("text_to_image", "image_to_text")


def measure(learner: Learner, feed: Feed) -> dict[str, Any]:
    """Return R@k of both directions in [0, 1], and rsum."""
    images, texts = embed_split(learner, feed)
    depths = tuple(k for k in CUTOFFS if k <= min(len(images), len(texts)))
    found = evaluate_embeddings(images, texts, feed.split.pairs, depths)
    sides = {name: {f"R@{k}": found[name][f"R@{k}"] for k in depths} for name in DIRECTIONS}
    return {**sides, "rsum": found["rsum"]}


def embed_split(learner: Learner, feed: Feed) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit rows of all pictures and all captions of a split, nothing augmented."""
    learner.training_mode(False)
    device = learner.placement.device
    images, texts = [], np.empty((len(feed.tokens), learner.config.dim), dtype=np.float32)
    with torch.inference_mode():
        for rows in _parts(np.arange(len(feed.split))):
            regions = torch.from_numpy(feed.split.regions(rows)).to(device)
            mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=device)
            images.append(learner.towers.image(regions, mask).unit.float().cpu().numpy())
        # Neighbours of like length share a batch.
        for rows in _parts(np.argsort([len(one.ids) for one in feed.tokens], kind="stable")):
            texts[rows] = learner.embed_words(*feed.plain_words(rows)).unit.float().cpu().numpy()
    return np.concatenate(images), texts


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
