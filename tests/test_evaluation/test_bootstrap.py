from __future__ import annotations

import numpy as np
import pytest

from evaluation import Bootstrap, evaluate_embeddings, evaluate_ranking

Z95 = 1.959964


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


@pytest.mark.parametrize(("share", "n"), [(0.8, 1000), (0.5, 400), (0.05, 5000)])
def test_ends_on_independent_queries_are_those_of_the_binomial(share: float, n: int) -> None:
    low, high = Bootstrap(resamples=4000).intervals({"R@1": np.arange(n) < share * n})["R@1"]
    error = Z95 * (share * (1 - share) / n) ** 0.5
    assert [low, high] == pytest.approx([share - error, share + error], abs=0.12 * error + 0.5 / n)


def test_the_level_is_the_share_of_resamples_inside() -> None:
    values = {"R@1": np.arange(900) < 450}
    half, most = (width(Bootstrap(resamples=4000, level=level).intervals(values)["R@1"]) for level in (0.5, 0.95))
    assert half / most == pytest.approx(0.6745 / Z95, rel=0.08)


def test_five_queries_that_share_their_fate_count_as_one() -> None:
    fate = np.repeat(np.arange(200) % 2, 5)
    alone = width(Bootstrap().intervals({"R@1": fate})["R@1"])
    together = width(Bootstrap().intervals({"R@1": fate}, np.arange(1000) // 5)["R@1"])
    assert together == pytest.approx(2 * Z95 * (0.25 / 200) ** 0.5, rel=0.1)
    assert together / alone == pytest.approx(5**0.5, rel=0.1)


def test_clusters_of_independent_queries_change_little() -> None:
    values = np.random.default_rng(0).integers(0, 2, 2000)
    alone, together = (width(Bootstrap().intervals({"R@1": values}, c)["R@1"]) for c in (None, np.arange(2000) // 5))
    assert together == pytest.approx(alone, rel=0.15)


def test_clusters_of_one_are_no_clusters() -> None:
    values = {"R@1": np.random.default_rng(0).integers(0, 2, 50)}
    assert Bootstrap().intervals(values, np.arange(50)) == Bootstrap().intervals(values)


def test_clusters_need_not_be_equal_nor_in_order() -> None:
    values, labels = np.array([1.0, 0, 1, 1, 0, 1]), np.array([7, 3, 7, 3, 9, 7])
    order = np.argsort(labels)
    apart, sorted_ = (
        Bootstrap().intervals({"x": values}, labels),
        Bootstrap().intervals({"x": values[order]}, labels[order]),
    )
    assert apart == sorted_
    assert 0 <= apart["x"][0] <= values.mean() <= apart["x"][1] <= 1


def test_the_captions_of_one_image_are_drawn_together_from_vectors_too() -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((60, 8))
    # The five captions of an image are one: all found or none.
    texts = np.repeat(images + 1.5 * rng.standard_normal((60, 8)), 5, axis=0)
    pairs = np.stack([np.arange(300) // 5, np.arange(300)], axis=1)
    figures = evaluate_embeddings(images, texts, pairs, (1,), bootstrap=Bootstrap())["text_to_image"]
    ratio = width(figures["intervals"]["R@1"]) / (2 * Z95 * (figures["R@1"] * (1 - figures["R@1"]) / 300) ** 0.5)
    assert ratio == pytest.approx(5**0.5, rel=0.2)


def test_captions_of_two_images_count_as_independent() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((2, 40, 4))
    pairs = [*((row, row) for row in range(40)), (1, 0)]
    figures = evaluate_embeddings(images, texts, pairs, (5,), bootstrap=Bootstrap())["text_to_image"]
    error = Z95 * (figures["R@5"] * (1 - figures["R@5"]) / 40) ** 0.5
    assert width(figures["intervals"]["R@5"]) == pytest.approx(2 * error, rel=0.2)


def test_rankings_take_clusters_and_leave_those_without_an_answer_out() -> None:
    ranked, relevant = np.tile(np.arange(3), (6, 1)), [[0], [1], [], [0], [1], [0]]
    labels = np.array([0, 0, 1, 1, 2, 2])
    kept = [0, 1, 3, 4, 5]
    figures = evaluate_ranking(ranked, relevant, (1,), Bootstrap(), clusters=labels)
    expected = evaluate_ranking(ranked[kept], [relevant[i] for i in kept], (1,), Bootstrap(), clusters=labels[kept])
    assert figures["intervals"] == expected["intervals"]


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 cluster labels for 3 queries"):
        Bootstrap().intervals({"x": np.ones(3)}, np.zeros(2))
    with pytest.raises(ValueError, match=r"clusters of shape \(1,\) for 2 queries"):
        evaluate_ranking(np.zeros((2, 1), dtype=int), [[0], [0]], (1,), Bootstrap(), clusters=[0])
