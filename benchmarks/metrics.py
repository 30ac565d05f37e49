"""A whole evaluation both ways beside the bare matrix product, and what memory it takes; strong and weak encoders."""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from clip_like import DIM, ClipLike
from numpy.typing import NDArray
from record import Figure, record

from evaluation import evaluate_embeddings, evaluate_within

IMAGES, LARGE_IMAGES, CAPTIONS, ROUNDS = 5_000, 30_000, 5, 5
BLOCK_VALUES = 1 << 22
NOTES = (
    "The bare product of both directions is texts @ images.T and images @ texts.T, float32, in blocks of 16 MiB that "
    "are thrown away: what one multiplies before any ranking, when each direction asks by itself. One product is the "
    "first of the two alone; the evaluation serves both directions from it. Ratios are medians over rounds in which "
    "products and evaluation take turns in one process. Memory is what the evaluation holds at most beyond the vectors."
)
Floats = NDArray[np.float32]


def main() -> None:
    figures: list[Figure] = []
    for name, make in KINDS.items():
        images, texts = make()
        figures += measure(name, images, texts)
    if "--large" in sys.argv:
        figures += [*large(), *within()]
    record("metrics", figures, NOTES)


def measure(name: str, images: Floats, texts: Floats) -> list[Figure]:
    pairs = five_each(len(images))
    work = (lambda: bare(texts, images), lambda: bare(images, texts), lambda: evaluate_embeddings(images, texts, pairs))
    rounds = [[seconds(one) for one in work] for _ in range(ROUNDS)]
    both = statistics.median(last / (one + other) for one, other, last in rounds)
    single = statistics.median(last / one for one, _, last in rounds)
    label = f"{len(texts):,} x {len(images):,} x {DIM}, {name}"
    return [
        Figure(f"{label}: time beside the bare product of both directions", both, "<= 1.5"),
        Figure(f"{label}: time beside one product", single),
        Figure(f"{label}: evaluation", statistics.median(line[2] for line in rounds), unit="s"),
        Figure(f"{label}: memory", peak_mib(work[2]), "< 1000", "MiB"),
        Figure(f"{label}: rsum", evaluate_embeddings(images, texts, pairs)["rsum"]),
    ]


def large() -> list[Figure]:
    """As many as all of Flickr30K."""
    images, texts = clip_like(LARGE_IMAGES)
    took: list[float] = []
    product = seconds(lambda: bare(texts, images)) + seconds(lambda: bare(images, texts))
    pairs = five_each(len(images))
    memory = peak_mib(lambda: took.append(seconds(lambda: evaluate_embeddings(images, texts, pairs))))
    label = f"{len(texts):,} x {len(images):,} x {DIM}"
    return [
        Figure(f"{label}: evaluation", took[0], unit="s"),
        Figure(f"{label}: time beside the bare product of both directions", took[0] / product),
        Figure(f"{label}: memory", memory, unit="MiB"),
    ]


def within() -> list[Figure]:
    """Captions that ask for the others of their image, as many as Flickr30K has for training, in 384 dimensions."""
    texts = unit(clip_like(29_000)[1][:, :384])
    took: list[float] = []
    memory = peak_mib(lambda: took.append(seconds(lambda: evaluate_within(texts, np.arange(len(texts)) // CAPTIONS))))
    label = f"{len(texts):,} x {len(texts):,} x 384, within"
    return [Figure(f"{label}: evaluation", took[0], unit="s"), Figure(f"{label}: memory", memory, "< 1500", "MiB")]


def clip_like(images: int = IMAGES) -> tuple[Floats, Floats]:
    """Vectors that behave like CLIP's."""
    world, rng = ClipLike(), np.random.default_rng(0)
    deviations = world.deviations(images, rng)
    return world.images(deviations), world.captions(np.repeat(deviations, CAPTIONS, axis=0), rng)


def random() -> tuple[Floats, Floats]:
    """An encoder that knows nothing: every order of scores is chance."""
    rng = np.random.default_rng(0)
    return unit(rng.standard_normal((IMAGES, DIM))), unit(rng.standard_normal((IMAGES * CAPTIONS, DIM)))


def collapsed() -> tuple[Floats, Floats]:
    """An encoder in a cone so narrow that all scores lie within a few thousandths."""
    rng = np.random.default_rng(0)
    cone = 20 * rng.standard_normal(DIM)
    images, texts = rng.standard_normal((IMAGES, DIM)), rng.standard_normal((IMAGES * CAPTIONS, DIM))
    return unit(images + cone), unit(texts + 0.3 * np.repeat(images, CAPTIONS, axis=0) + cone)


def equal() -> tuple[Floats, Floats]:
    """An encoder that gives one vector for everything."""
    return unit(np.ones((IMAGES, DIM))), unit(np.ones((IMAGES * CAPTIONS, DIM)))


KINDS = {"like CLIP": clip_like, "random": random, "collapsed to a cone": collapsed, "all equal": equal}


def unit(vectors: NDArray[Any]) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def five_each(images: int) -> NDArray[np.int64]:
    return np.stack([np.arange(images * CAPTIONS) // CAPTIONS, np.arange(images * CAPTIONS)], axis=1)


def bare(queries: Floats, base: Floats) -> None:
    step = max(1, BLOCK_VALUES // len(base))
    block = np.empty((step, len(base)), dtype=np.float32)
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        np.matmul(part, base.T, out=block[: len(part)])


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mib(work: Callable[[], Any]) -> float:
    """Return how much it holds at most beyond what was there before; numpy tells tracemalloc of its arrays."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


if __name__ == "__main__":
    main()
