from __future__ import annotations

import importlib.util
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import evaluation.exact_ranks
import evaluation.ranks
from evaluation import Bootstrap, evaluate_embeddings, evaluate_ranking, exact_top_k

_spec = importlib.util.spec_from_file_location("metric_oracle", Path(__file__).with_name("oracle.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
oracle = _module.oracle

# Images A and B (0, 1) against captions a1 a2 b1 b2 (0 to 3). With unit axes for images, scores are what stands here.
TOY = np.array([[0.30, 0.20, 0.28, 0.10], [0.26, 0.29, 0.31, 0.25]])
TOY_PAIRS = [(0, 0), (0, 1), (1, 2), (1, 3)]
COUNTS = ("queries", "left_out", "medR", "meanR")


def toy(k: tuple[int, ...]) -> dict[str, Any]:
    return evaluate_embeddings(np.eye(2), TOY.T, TOY_PAIRS, k)


def problem(seed: int) -> tuple[np.ndarray, list[dict[int, float]]]:
    """Rankings of 12 items, some cut short by padding, and 0 to 7 graded relevant items a query."""
    rng = np.random.default_rng(seed)
    ranked = np.array([rng.permutation(12)[:9] for _ in range(15)])
    for line in ranked[::4]:
        line[rng.integers(1, 9) :] = -1
    sizes = [0, 1, *rng.integers(0, 8, 13).tolist()]
    return ranked, [{int(i): float(rng.integers(1, 4)) for i in rng.permutation(12)[:size]} for size in sizes]


def means(ranked: np.ndarray, relevant: list[dict[int, float]], k: tuple[int, ...]) -> dict[str, float]:
    lines = [
        {name: value for depth in k for name, value in oracle(line.tolist(), gains, depth).items()}
        for line, gains in zip(ranked, relevant, strict=True)
        if gains
    ]
    return {name: statistics.fmean(line[name] for line in lines) for name in lines[0]}


def test_the_toy_has_the_figures_of_vse_and_of_clip_benchmark() -> None:
    t2i, i2t = toy((1, 2))["text_to_image"], toy((1, 2))["image_to_text"]
    assert [t2i[name] for name in ("R@1", "R@2", "medR", "meanR")] == [0.75, 1, 1, 1.25]
    assert [i2t[name] for name in ("R@1", "R@2", "medR", "meanR", "recall@1")] == [1, 1, 1, 1, 0.5]
    assert toy((1,))["rsum"] == 575


def test_both_ways_from_embeddings_equal_the_rankings() -> None:
    t2i = exact_top_k(np.eye(2), TOY.T, 2)[0]
    assert toy((1, 2))["text_to_image"] == evaluate_ranking(t2i, [[0], [0], [1], [1]], (1, 2))


def test_five_captions_an_image_bound_recall_and_precision() -> None:
    figures = evaluate_ranking(np.arange(10)[None], [range(5)])
    assert [figures[name] for name in ("R@1", "recall@1", "recall@5", "precision@10")] == [1, 0.2, 1, 0.5]


@pytest.mark.parametrize("seed", range(50))
def test_random_rankings_equal_a_second_opinion(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation.ranks, "_BLOCK_VALUES", 36)
    ranked, relevant = problem(seed)
    figures = evaluate_ranking(ranked, relevant, (1, 3, 9))
    expected = means(ranked, relevant, (1, 3, 9))
    assert figures["left_out"] == sum(not gains for gains in relevant)
    assert {name: value for name, value in figures.items() if name not in COUNTS} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(50))
def test_random_embeddings_equal_a_second_opinion_both_ways(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal((11, 4)), rng.standard_normal((17, 4))
    pairs = np.stack([rng.integers(0, 11, 20), rng.integers(0, 17, 20)], axis=1)
    figures = evaluate_embeddings(images, texts, pairs, (1, 5))
    sides = {"text_to_image": (texts, images, pairs[:, ::-1]), "image_to_text": (images, texts, pairs)}
    for direction, (queries, base, own) in sides.items():
        ranked = np.array([sorted(range(len(base)), key=lambda row: -float(query @ base[row])) for query in queries])
        relevant = [{int(item): 1.0 for asked, item in own if asked == query} for query in range(len(queries))]
        best = [min(line.tolist().index(i) for i in own) for line, own in zip(ranked, relevant, strict=True) if own]
        expected = {name: value for name, value in means(ranked, relevant, (1, 5)).items() if "graded" not in name}
        expected |= {"medR": int(statistics.median(best)) + 1, "meanR": statistics.fmean(best) + 1}
        expected |= {"queries": len(best), "left_out": len(queries) - len(best)}
        assert figures[direction] == pytest.approx(expected, abs=1e-12)


def test_graded_ndcg_rewards_the_better_item_first() -> None:
    better, worse = (evaluate_ranking(np.array([line]), [{0: 3, 1: 1, 2: 0}], (2,)) for line in ([0, 1], [1, 0]))
    assert better["graded_ndcg@2"] == 1
    assert worse["graded_ndcg@2"] == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))
    assert worse["ndcg@2"] == worse["recall@2"] == 1


@given(
    images=arrays(np.float32, (6, 3), elements=st.integers(-1, 1).map(float)),
    texts=arrays(np.float32, (9, 3), elements=st.integers(-1, 1).map(float)),
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=1),
    block=st.sampled_from([1, 20, 1000]),
)
def test_ties_go_to_the_lower_row(images: Any, texts: Any, pairs: list[tuple[int, int]], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation.exact_ranks, "_BLOCK_VALUES", block)
        patch.setattr(evaluation.exact_ranks, "_BLOCK_COLUMNS", 4)
        patch.setattr(evaluation.exact_ranks, "_STRIP_VALUES", 7)
        figures = evaluate_embeddings(images, texts, pairs, (1, 5))
    images_of = [[image for image, other in pairs if other == text] for text in range(9)]
    texts_of = [[text for other, text in pairs if other == image] for image in range(6)]
    t2i = evaluate_ranking(exact_top_k(images, texts, 6)[0], images_of, (1, 5))
    i2t = evaluate_ranking(exact_top_k(texts, images, 9)[0], texts_of, (1, 5))
    assert (figures["text_to_image"], figures["image_to_text"]) == (t2i, i2t)


@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=6).filter(any), st.integers(1, 10))
def test_queries_without_relevant_items_change_nothing_but_their_count(relevant: list[set[int]], k: int) -> None:
    ranked = np.tile(np.arange(10), (len(relevant), 1))
    some = [items for items in relevant if items]
    figures, without = evaluate_ranking(ranked, relevant, (k,)), evaluate_ranking(ranked[: len(some)], some, (k,))
    assert figures == without | {"left_out": len(relevant) - len(some)}


def test_scores_that_float32_cannot_tell_apart_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    base = np.repeat(rng.standard_normal((1, 64)), 6, axis=0)
    base[:, 0] += np.array([0, 3, 1, 5, 4, 2]) * 1e-10
    query = np.abs(rng.standard_normal((1, 64)))
    figures = [evaluate_embeddings(query, base, [(0, text)], (1,))["image_to_text"]["meanR"] for text in range(6)]
    assert figures == [6, 3, 5, 1, 2, 4]


def test_equal_vectors_give_no_credit_for_nothing() -> None:
    figures = evaluate_embeddings(np.ones((5, 4)), np.ones((5, 4)), [(row, row) for row in range(5)], (1, 5))
    assert figures["text_to_image"]["R@1"] == 0.2
    assert figures["image_to_text"]["meanR"] == 3


def test_half_precision_vectors_and_pairs_given_twice_are_fine() -> None:
    images = np.eye(4, dtype=np.float16)
    pairs = np.array([(row, row) for row in range(4)] * 2)
    assert evaluate_embeddings(images, images, pairs, (1,))["rsum"] == 600


def test_an_item_that_comes_twice_counts_at_its_first_place() -> None:
    figures = evaluate_ranking(np.array([[7, 3, 3]]), [[3]], (2, 3))
    assert [figures[name] for name in ("map@2", "map@3", "recall@3", "precision@3")] == [0.5, 0.5, 1, 1 / 3]


def test_what_short_rankings_cannot_tell_is_left_out() -> None:
    figures = evaluate_ranking(np.array([[1], [1], [1]]), [[1], [1], [2, 3]], (1,))
    assert figures["medR"] == 1
    assert not {"meanR", "map@R", "r_precision"} & set(figures)
    assert "medR" not in evaluate_ranking(np.array([[1], [1]]), [[1], [2]], (1,))


def test_intervals_hold_their_mean_and_depend_on_the_seed_alone() -> None:
    ranked, relevant = problem(3)
    first, again, other = (evaluate_ranking(ranked, relevant, (3,), Bootstrap(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first["intervals"] != other["intervals"]
    assert all(low <= first[name] <= high for name, (low, high) in first["intervals"].items())
    assert json.loads(json.dumps(first))["R@3"] == first["R@3"]


@pytest.mark.parametrize(
    ("ranked", "relevant", "k", "message"),
    [
        ([[1, 2]], [[1]], (5,), "k=5 does not lie between 1 and the 2 ranks given"),
        ([[1, 2]], [[1]], (), "k is empty"),
        ([[1, 2]], [[1], [2]], (1,), "1 rankings and 2 lists"),
        ([1, 2], [[1], [2]], (1,), r"rankings of shape \(2,\)"),
        ([[0.5]], [[1]], (1,), "dtype float64"),
        ([[1]], [[]], (1,), "nothing to measure"),
        ([[1]], [[-1]], (1,), "item -1 of query 0 is negative"),
        ([[1]], [{1: float("nan")}], (1,), "gain nan of item 1 for query 0"),
    ],
)
def test_rankings_that_cannot_be_measured_are_refused(ranked: Any, relevant: Any, k: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(np.array(ranked), relevant, k)


@pytest.mark.parametrize(
    ("texts", "pairs", "k", "message"),
    [
        (np.eye(3), [(0, 0)], (5,), "k=5 does not lie between 1 and the 3 images"),
        (np.eye(3)[:2], [(0, 0)], (3,), "the 2 texts"),
        (np.eye(2), [(0, 0)], (1,), r"\(3, 3\) and text vectors \(2, 2\)"),
        (np.eye(3) * [[1], [np.nan], [1]], [(0, 0)], (1,), "text vector 1 holds NaN"),
        (np.eye(3), [], (1,), "no pairs"),
        (np.eye(3), [(0, 0), (1, 7)], (1,), "pair 1 is image 1 and text 7; there are 3 images and 3 texts"),
        (np.eye(3), [(0.5, 0)], (1,), "must be .* integers"),
    ],
)
def test_embeddings_that_cannot_be_measured_are_refused(texts: Any, pairs: Any, k: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_embeddings(np.eye(3), texts, pairs, k)


@pytest.mark.parametrize(("options", "message"), [({"resamples": 0}, "resamples is 0"), ({"level": 95}, "level is 95")])
def test_a_bootstrap_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bootstrap(**options)


def test_real_vectors_give_the_known_figures_both_ways(data: Path) -> None:
    folder = data / "clip_vit_b32"
    images, texts = np.load(folder / "flickr8k_images.npy"), np.load(folder / "flickr8k_captions.npy")
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [(json.loads(line)["image_row"], text) for text, line in enumerate(lines)]
    figures = evaluate_embeddings(images, texts, pairs)
    assert [round(figures["text_to_image"][f"R@{k}"], 3) for k in (1, 5, 10)] == [0.832, 0.99, 0.998]
    assert [round(figures["image_to_text"][f"R@{k}"], 3) for k in (1, 5, 10)] == [0.93, 1, 1]
    assert figures["rsum"] == pytest.approx(575)
