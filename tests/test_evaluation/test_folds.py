from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation import Bootstrap, evaluate_embeddings
from evaluation.evaluate import evaluate_folds

DIRECTIONS = ("text_to_image", "image_to_text")


def unequal(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eleven images with one to four captions each, in no order, and two captions of nothing."""
    rng = np.random.default_rng(seed)
    image_of = rng.permutation(np.repeat(np.arange(11), [1, 2, 3, 4, 2, 1, 3, 2, 4, 1, 2]))
    pairs = np.stack([image_of, np.arange(len(image_of)) + 2], axis=1)
    return rng.standard_normal((11, 4)), rng.standard_normal((len(image_of) + 2, 4)), pairs


def by_hand(images: np.ndarray, texts: np.ndarray, pairs: np.ndarray, members: np.ndarray) -> dict[str, Any]:
    own = [(int(np.flatnonzero(members == image)[0]), text) for image, text in pairs.tolist() if image in members]
    rows = sorted({text for _, text in own})
    return evaluate_embeddings(images[members], texts[rows], [(image, rows.index(text)) for image, text in own], (1, 2))


def test_every_figure_is_the_mean_over_contiguous_folds() -> None:
    images, texts, pairs = unequal()
    parts = [by_hand(images, texts, pairs, members) for members in (np.arange(4), np.arange(4, 8), np.arange(8, 11))]
    figures = evaluate_folds(images, texts, pairs, (1, 2), folds=3)
    for direction in DIRECTIONS:
        for name in ("R@1", "R@2", "recall@1", "map@R", "ndcg@2", "mrr@2", "medR", "meanR"):
            assert figures[direction][name] == pytest.approx(np.mean([part[direction][name] for part in parts]))
    assert figures["rsum"] == pytest.approx(np.mean([part["rsum"] for part in parts]))
    assert figures["folds"] == 3


def test_queries_add_up_over_folds_and_captions_of_nothing_are_in_none() -> None:
    figures = evaluate_folds(*unequal(), (1,), folds=3)
    assert [figures[name]["queries"] for name in DIRECTIONS] == [25, 11]
    assert [figures[name]["left_out"] for name in DIRECTIONS] == [0, 0]


def test_one_fold_is_the_whole() -> None:
    images, texts, pairs = unequal()
    texts, pairs = texts[2:], pairs - [0, 2]
    whole = evaluate_embeddings(images, texts, pairs, (1, 5))
    assert evaluate_folds(images, texts, pairs, (1, 5), folds=1) == whole | {"folds": 1}


def test_a_caption_of_images_in_two_folds_is_asked_in_both() -> None:
    figures = evaluate_folds(np.eye(4), np.eye(4), [(0, 0), (1, 1), (2, 2), (3, 3), (3, 0)], (1,), folds=2)
    assert figures["text_to_image"]["queries"] == 5


def test_folds_are_easier_than_the_whole() -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((100, 16))
    texts = np.repeat(images, 5, axis=0) + 2 * rng.standard_normal((500, 16))
    pairs = np.stack([np.arange(500) // 5, np.arange(500)], axis=1)
    assert evaluate_folds(images, texts, pairs)["rsum"] > evaluate_embeddings(images, texts, pairs)["rsum"] + 50


def test_intervals_of_folds_hold_the_averages_and_are_about_as_wide_as_those_of_all_queries() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((2, 500, 4))
    pairs = np.stack([np.arange(500)] * 2, axis=1)
    figures = evaluate_folds(images, texts, pairs, (10,), bootstrap=Bootstrap())["text_to_image"]
    low, high = figures["intervals"]["R@10"]
    assert low < figures["R@10"] < high
    spread = (figures["R@10"] * (1 - figures["R@10"]) / 500) ** 0.5
    assert (high - low) / (2 * 1.96) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 0}, "folds=0 does not lie between 1 and the 4 images"),
        ({"folds": 5}, "folds=5"),
        ({"folds": 2, "k": (3,)}, "k=3 does not lie between 1 and the 2 images of fold 0"),
        ({"folds": 2, "pairs": [(0, 0), (1, 1)], "k": (1,)}, "fold 1 of 2 images has no pair"),
        ({"folds": 2, "pairs": [(0, 0), (2, 2), (3, 3)], "k": (2,)}, "the 1 texts of fold 0"),
        ({"pairs": []}, "no pairs"),
    ],
)
def test_folds_that_cannot_be_measured_are_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"pairs": [(row, row) for row in range(4)], "k": (1,)} | change
    with pytest.raises(ValueError, match=message):
        evaluate_folds(np.eye(4), np.eye(4), **arguments)
