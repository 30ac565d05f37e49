"""Systems on the same queries: the figures are those of each alone, and differences are paired."""

from __future__ import annotations

import numpy as np
import pytest
from paired_index import captioned, unit

from evaluation import Bootstrap, evaluate_embeddings
from evaluation.paired import FirstRanks, compare_systems

K = (1, 5, 10)


def systems(*noises: float) -> list[tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]]:
    """The same 60 images with three captions each, seen through ever more noise."""
    images, texts, pairs = captioned(60, 3)
    rng = np.random.default_rng(1)
    blur = rng.standard_normal(texts.shape)
    return [(images, unit(texts + noise * blur), pairs) for noise in noises]


def test_figures_and_intervals_are_those_of_each_system_by_itself() -> None:
    given = systems(0.0, 0.1)
    found = compare_systems([FirstRanks.of(*one) for one in given], K)
    for one, figures in zip(given, found["systems"], strict=True):
        alone = evaluate_embeddings(*one, K, bootstrap=Bootstrap())
        assert figures["rsum"] == pytest.approx(alone["rsum"])
        for direction in ("text_to_image", "image_to_text"):
            for name in ("R@1", "R@5", "R@10"):
                assert figures[direction][name] == pytest.approx(alone[direction][name])
                assert figures[direction]["intervals"][name] == pytest.approx(alone[direction]["intervals"][name])


def test_the_best_is_named_and_a_clear_difference_excludes_a_tie_while_none_does_not() -> None:
    ranks = [FirstRanks.of(*one) for one in systems(0.4, 0.0, 0.0)]
    found = compare_systems(ranks, K)
    assert found["best"] == 1
    assert found["differences"][1] is None
    worse, equal = found["differences"][0], found["differences"][2]
    assert (worse["above"]["system"], equal["above"]["system"]) == (2, 1)
    assert worse["above"]["rsum"] == worse["rsum"]  # system 2 is the same as the best
    assert worse["rsum"]["tie_excluded"]
    assert worse["rsum"]["interval"][1] < 0 < -worse["rsum"]["difference"]
    assert equal["rsum"] == {"difference": 0.0, "interval": (0.0, 0.0), "tie_excluded": False}


def test_a_difference_too_small_for_overlapping_intervals_is_told_by_pairing() -> None:
    """One system answers 8 of 200 queries more than the other: each interval is wider than that."""
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.5
    lost = np.flatnonzero(right)[:8]
    first = np.where(right, 1.0, 20.0)
    second = first.copy()
    second[lost] = 20.0
    rows = {name: np.arange(200) for name in ("text_to_image", "image_to_text")}
    better, worse = (
        FirstRanks(
            ranks=dict.fromkeys(rows, one), query_rows=rows, clusters=dict(rows), left_out=dict.fromkeys(rows, 0)
        )
        for one in (first, second)
    )
    found = compare_systems([worse, better], (1,))
    low, high = [one["text_to_image"]["intervals"]["R@1"] for one in found["systems"]]
    assert low[1] > high[0]
    assert found["differences"][0]["text_to_image"]["R@1"]["tie_excluded"]
    assert found["differences"][0]["text_to_image"]["R@1"]["difference"] == pytest.approx(-0.04)


def test_rsum_draws_the_images_of_both_directions_together() -> None:
    """Where each direction has the same ranks, rsum varies as twice one of them does."""
    rng = np.random.default_rng(2)
    ranks = np.where(rng.random(100) < 0.4, 1.0, 50.0)
    rows = {name: np.arange(100) for name in ("text_to_image", "image_to_text")}
    one = FirstRanks(
        ranks=dict.fromkeys(rows, ranks), query_rows=rows, clusters=dict(rows), left_out=dict.fromkeys(rows, 0)
    )
    figures = compare_systems([one], (1,))["systems"][0]
    assert figures["rsum_interval"] == pytest.approx(
        [600 * end for end in figures["text_to_image"]["intervals"]["R@1"]]
    )


def test_texts_of_two_images_are_resampled_each_by_itself() -> None:
    images, texts, pairs = captioned(30, 2)
    ranks = FirstRanks.of(images, texts, [*pairs, (0, 5)])
    assert ranks.clusters == {"text_to_image": None, "image_to_text": None}
    assert not ranks.drawn_together
    assert compare_systems([ranks], (1,))["systems"][0]["rsum_interval"][0] > 0


def test_systems_that_were_asked_other_queries_are_refused() -> None:
    images, texts, pairs = captioned(30, 2)
    ranks = [FirstRanks.of(images, texts, pairs), FirstRanks.of(images, texts, pairs[2:])]
    with pytest.raises(ValueError, match="system 1 was not asked the same queries"):
        compare_systems(ranks, (1,))
    with pytest.raises(ValueError, match="no system"):
        compare_systems([], (1,))
