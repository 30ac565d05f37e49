"""Vectors that behave like CLIP ViT-B/32's at any scale: photographs, captions, and captions that lie off them.

Measured on 600 real image and 500 real caption vectors, and imitated here: each modality is a mean and a deviation; the
means meet at cosine 0.28; an image's deviation has a variance of 0.45 that falls as 1 / axis; a caption carries 0.45 of
its image's deviation (less on the first five axes) and nearly flat noise of its own, 0.497 in all. Deviations come in
clusters: topics, concepts that blend two topics, individuals; concepts have Zipf-like sizes and unequal widths.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIM = 512
MEAN_COSINE = 0.28
IMAGE_VARIANCE, TEXT_VARIANCE = 0.45, 0.497
COUPLING, COUPLING_HEAD, HEAD_AXES = 0.45, 0.6, 5
TOPICS, CONCEPTS = 150, 20_000
TOPIC_SHARE, CONCEPT_SHARE = 0.72, 0.08
CHUNK = 50_000

Floats = NDArray[np.float32]


class ClipLike:
    """A seeded world of topics and concepts to draw images and captions from, of `dim` numbers each."""

    def __init__(self, seed: int = 0, dim: int = DIM) -> None:
        self.seed, self.dim = seed, dim
        random = np.random.default_rng([seed, 1])
        self.basis = np.linalg.qr(random.standard_normal((dim, dim)))[0].astype(np.float32)
        first, second = np.linalg.qr(random.standard_normal((dim, 2)))[0].T
        tilted = MEAN_COSINE * first + np.sqrt(1 - MEAN_COSINE**2) * second
        self.image_mean = (np.sqrt(1 - IMAGE_VARIANCE) * first).astype(np.float32)
        self.text_mean = (np.sqrt(1 - TEXT_VARIANCE) * tilted).astype(np.float32)
        self.spectrum = falling(1.0, dim)
        coupling = np.where(np.arange(dim) < HEAD_AXES, COUPLING_HEAD, 1.0) * COUPLING
        noise = (1 + np.arange(1, dim + 1) / 60.0) ** -0.45
        noise *= (TEXT_VARIANCE - float((coupling**2 * self.spectrum).sum())) / noise.sum()
        self.coupling, self.noise = coupling.astype(np.float32), np.sqrt(noise).astype(np.float32)
        self._concepts(random)

    def _concepts(self, random: np.random.Generator) -> None:
        topics = random.standard_normal((TOPICS, self.dim)) * np.sqrt(TOPIC_SHARE * falling(0.8, self.dim))
        blend = topics[random.integers(0, TOPICS, (CONCEPTS, 2))].sum(axis=1) / np.sqrt(2)
        own = random.standard_normal((CONCEPTS, self.dim)) * np.sqrt(CONCEPT_SHARE * self.spectrum)
        self.centres = (blend + own).astype(np.float32)
        sizes = (1.0 + np.arange(CONCEPTS)) ** -0.7
        self.shares = sizes / sizes.sum()
        width = np.exp(0.5 * random.standard_normal(CONCEPTS))
        width /= np.sqrt((self.shares * width**2).sum())
        self.width = (width * np.sqrt(1 - TOPIC_SHARE - CONCEPT_SHARE)).astype(np.float32)
        self.individual = np.sqrt(falling(1.2, self.dim)).astype(np.float32)

    def deviations(self, count: int, random: np.random.Generator) -> Floats:
        """Return what makes `count` images differ from the mean, (count, dim), on the principal axes."""
        concept = random.choice(CONCEPTS, count, p=self.shares)
        own = random.standard_normal((count, self.dim), dtype=np.float32) * self.individual
        return np.asarray(self.centres[concept] + own * self.width[concept, None], dtype=np.float32)

    def images(self, deviations: Floats) -> Floats:
        """Return the image vectors of these deviations, unit length."""
        return unit(deviations @ self.basis + self.image_mean)

    def captions(self, deviations: Floats, random: np.random.Generator) -> Floats:
        """Return one caption vector of each of these images, unit length."""
        own = random.standard_normal(deviations.shape, dtype=np.float32) * self.noise
        return unit((deviations * self.coupling + own) @ self.basis + self.text_mean)


def falling(power: float, dim: int) -> NDArray[np.float64]:
    """Return the image variance on each axis, falling as axis ** -power."""
    values = (np.arange(dim) + 2.0) ** -power
    return np.asarray(IMAGE_VARIANCE * values / values.sum())


def unit(vectors: Floats) -> Floats:
    """Return the vectors at unit length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def write_vectors(
    folder: Path, rows: int, *, texts: int = 2_000, queries: int = 1_000, seed: int = 0, dim: int = DIM
) -> None:
    """Write images.npy (float16), texts.npy, and text_queries.npy and image_queries.npy that are in neither."""
    world = ClipLike(seed, dim)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", "<f2", (rows, dim))
    for start in range(0, rows, CHUNK):
        random = np.random.default_rng([seed, 2, start])
        part = images[start : start + CHUNK]
        part[:] = world.images(world.deviations(len(part), random))
    images.flush()
    random = np.random.default_rng([seed, 3])
    np.save(folder / "texts.npy", world.captions(world.deviations(texts, random), random))
    deviations = world.deviations(queries, random)
    np.save(folder / "image_queries.npy", world.images(deviations))
    np.save(folder / "text_queries.npy", world.captions(deviations, random))
