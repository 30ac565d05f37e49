"""A large test set measured in parts, as COCO 1K is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap
from .checks import Pairs, check_k, check_sides, pair_rows
from .evaluate import BothWays
from .figures import columns_of

_DIRECTIONS = ("text_to_image", "image_to_text")
_COUNTS = ("queries", "left_out")


def evaluate_folds(
    image_vectors: NDArray[Any],
    text_vectors: NDArray[Any],
    pairs: Pairs,
    k: Sequence[int] = (1, 5, 10),
    *,
    folds: int = 5,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """Return every metric of exact search in both directions, each fold by itself, averaged over folds.

    COCO 1K (VSE++, Faghri et al. 2018) takes five folds of 1,000 images, in their order, with their 5,000 captions. A
    fold is a smaller collection, so its figures are higher than those of the whole: never set the two side by side.
    Images that do not divide evenly give folds that differ by one. A text without an image is in no fold; one whose
    images lie in two folds is in both.

    Args:
        image_vectors: (n, dim), unit rows.
        text_vectors: (m, dim), unit rows.
        pairs: (p, 2) rows (image, text) that belong together; any number for an image or a text.
        k: How deep to look; each at most the images and the texts of the smallest fold.
        folds: How many contiguous parts the images are cut into.
        bootstrap: Give one to get intervals of the averages; queries are resampled within their fold.

    Returns:
        What `evaluate_embeddings` returns, and `folds`. Every figure is the mean over folds, medR too, so it may lie
        between two ranks; a figure that some fold lacks is left out; `queries` and `left_out` are sums.

    Raises:
        ValueError: As for `evaluate_embeddings`, folds is below 1 or above n, or a fold has no pair.
    """
    images, texts = np.asarray(image_vectors), np.asarray(text_vectors)
    check_sides(images, texts)
    rows = pair_rows(pairs, len(images), len(texts))
    if not 1 <= folds <= len(images):
        raise ValueError(f"folds={folds!r} does not lie between 1 and the {len(images)} images; 5 is usual")
    parts = [_measured(part, k, place) for place, part in enumerate(_cut(images, texts, rows, folds))]
    figures = [part.figures(k) for part in parts]
    result: dict[str, Any] = {name: _average([fold[name] for fold in figures]) for name in _DIRECTIONS}
    if bootstrap is not None:
        for name in _DIRECTIONS:
            result[name]["intervals"] = _intervals(parts, name, k, bootstrap)
    return result | {"rsum": float(np.mean([fold["rsum"] for fold in figures])), "folds": folds}


def _cut(
    images: NDArray[Any], texts: NDArray[Any], rows: NDArray[np.int64], folds: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
    """Yield the images, texts and pairs of each fold, all numbered within it."""
    for members in np.array_split(np.arange(len(images)), folds):
        start, stop = int(members[0]), int(members[-1]) + 1
        own = rows[(rows[:, 0] >= start) & (rows[:, 0] < stop)]
        asked, text = np.unique(own[:, 1], return_inverse=True)
        yield images[start:stop], texts[asked], np.stack([own[:, 0] - start, text], axis=1)


def _measured(part: tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]], k: Sequence[int], place: int) -> BothWays:
    images, texts, rows = part
    if not len(rows):
        raise ValueError(f"fold {place} of {len(images)} images has no pair; take fewer folds")
    check_k(k, len(images), f"images of fold {place}")
    check_k(k, len(texts), f"texts of fold {place}")
    return BothWays.of(images, texts, rows, {})


def _average(folds: list[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name in folds[0] if all(name in fold for fold in folds)]
    return {
        name: sum(fold[name] for fold in folds) if name in _COUNTS else float(np.mean([fold[name] for fold in folds]))
        for name in names
    }


def _intervals(
    parts: Sequence[BothWays], direction: str, k: Sequence[int], bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    columns = [columns_of(getattr(part, direction), k) for part in parts]
    names = [name for name in columns[0] if all(name in fold for fold in columns)]
    labels = [
        part.images[part.text_to_image.asked] if part.images is not None and direction == "text_to_image" else None
        for part in parts
    ]
    means = [
        bootstrap.means({name: fold[name] for name in names}, clusters, stream)
        for stream, (clusters, fold) in enumerate(zip(labels, columns, strict=True))
    ]
    return bootstrap.ends(names, np.mean(means, axis=0))
