"""The worked examples that tell other tools apart: which of their figures are ours, and which are not copied."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import evaluate_embeddings, evaluate_ranking, exact_top_k

# Images A and B against captions a1 a2 b1 b2; with unit axes for images, scores are what stands here.
SCORES = np.array([[0.30, 0.20, 0.28, 0.10], [0.26, 0.29, 0.31, 0.25]])
PAIRS = [(0, 0), (0, 1), (1, 2), (1, 3)]
SIDES = {
    "image_to_text": (exact_top_k(SCORES.T, np.eye(2), 4), [[0, 1], [2, 3]]),
    "text_to_image": (exact_top_k(np.eye(2), SCORES.T, 2), [[0], [0], [1], [1]]),
}
# What AutoMM prints: precision, recall, mrr, its own map, ndcg.
AUTOMM = {
    ("image_to_text", 1): (1.0, 0.5, 1.0, 0.305, 1.0),
    ("image_to_text", 2): (0.5, 0.5, 1.0, 0.1525, 0.61315),
    ("image_to_text", 3): (0.5, 0.75, 1.0, 0.18583, 0.76643),
    ("text_to_image", 1): (0.75, 0.75, 0.75, 0.215, 0.75),
    ("text_to_image", 2): (0.5, 1.0, 0.875, 0.24, 0.90773),
}
TEXTBOOK_MAP = {
    ("image_to_text", 1): 1.0,
    ("image_to_text", 2): 0.5,
    ("image_to_text", 3): 2 / 3,
    ("text_to_image", 1): 0.75,
    ("text_to_image", 2): 0.875,
}


def figures(direction: str, k: int) -> dict[str, float]:
    (ranked, _), relevant = SIDES[direction]
    return evaluate_ranking(ranked, relevant, (k,))


def weighted_map(direction: str, k: int) -> float:
    """AutoMM's map: each precision times the raw score of the item that was hit."""
    (ranked, scores), relevant = SIDES[direction]
    values = []
    for line, own_scores, own in zip(ranked[:, :k].tolist(), scores.tolist(), relevant, strict=True):
        hits = [place for place, item in enumerate(line) if item in own]
        precisions = [own_scores[place] * (i + 1) / (place + 1) for i, place in enumerate(hits)]
        values.append(sum(precisions) / min(k, len(own)))
    return statistics.fmean(values)


def test_the_rankings_of_the_toy_are_those_of_the_table() -> None:
    assert SIDES["image_to_text"][0][0].tolist() == [[0, 2, 1, 3], [2, 1, 0, 3]]
    assert SIDES["text_to_image"][0][0].tolist() == [[0, 1], [1, 0], [1, 0], [1, 0]]


@pytest.mark.parametrize(("direction", "k"), AUTOMM)
def test_precision_recall_and_ndcg_are_those_of_automm(direction: str, k: int) -> None:
    precision, recall, _, _, ndcg = AUTOMM[direction, k]
    ours = figures(direction, k)
    assert [ours[f"{name}@{k}"] for name in ("precision", "recall", "ndcg")] == pytest.approx(
        [precision, recall, ndcg], abs=5e-6
    )


@pytest.mark.parametrize(("direction", "k"), AUTOMM)
def test_the_map_that_automm_weights_by_raw_scores_is_not_copied(direction: str, k: int) -> None:
    assert weighted_map(direction, k) == pytest.approx(AUTOMM[direction, k][3], abs=5e-6)
    assert figures(direction, k)[f"map@{k}"] == pytest.approx(TEXTBOOK_MAP[direction, k])
    assert figures(direction, k)[f"map@{k}"] > 2 * AUTOMM[direction, k][3]


@pytest.mark.parametrize(("direction", "k"), AUTOMM)
def test_mrr_that_automm_computes_and_never_returns_is_among_the_figures(direction: str, k: int) -> None:
    assert figures(direction, k)[f"mrr@{k}"] == pytest.approx(AUTOMM[direction, k][2])


def test_a_single_query_on_which_automm_crashes_has_figures() -> None:
    alone = evaluate_embeddings(np.eye(2)[:1], SCORES.T, [(0, 0), (0, 1)], (1,))
    assert alone["image_to_text"]["recall@1"] == 0.5
    assert evaluate_ranking(np.array([[0, 2, 1, 3]]), [[0, 1]], (3,))["map@3"] == pytest.approx(5 / 6)


def test_from_vectors_the_toy_has_the_same_figures_both_ways() -> None:
    both = evaluate_embeddings(np.eye(2), SCORES.T, PAIRS, (1, 2))
    for (direction, k), (precision, recall, mrr, _, ndcg) in AUTOMM.items():
        if k < 3:
            names = [f"{name}@{k}" for name in ("precision", "recall", "mrr", "ndcg")]
            assert [both[direction][name] for name in names] == pytest.approx([precision, recall, mrr, ndcg], abs=5e-6)


def test_ranks_from_zero_of_vse_are_ours_less_one() -> None:
    both = evaluate_embeddings(np.eye(2), SCORES.T, PAIRS, (1,))
    for direction, ranks in (("image_to_text", [0, 0]), ("text_to_image", [0, 1, 0, 0])):
        assert both[direction]["R@1"] == statistics.fmean(rank < 1 for rank in ranks)
        assert both[direction]["medR"] == np.floor(np.median(ranks)) + 1
        assert both[direction]["meanR"] == np.mean(ranks) + 1


@pytest.mark.parametrize(("k", "t2i", "i2t", "true_i2t"), [(1, 0.75, 1.0, 0.5), (2, 1.0, 1.0, 0.5)])
def test_recall_of_clip_benchmark_is_true_recall_made_zero_or_one(
    k: int, t2i: float, i2t: float, true_i2t: float
) -> None:
    both = evaluate_embeddings(np.eye(2), SCORES.T, PAIRS, (k,))
    assert both["text_to_image"][f"R@{k}"] == t2i
    assert both["image_to_text"][f"R@{k}"] == i2t
    assert both["image_to_text"][f"recall@{k}"] == true_i2t


@given(st.integers(0, 2**32 - 1))
def test_with_five_captions_an_image_the_three_recalls_at_one_differ_by_a_factor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal((6, 3)), rng.standard_normal((30, 3))
    i2t = evaluate_embeddings(images, texts, [(text // 5, text) for text in range(30)], (1, 5))["image_to_text"]
    assert i2t["recall@1"] <= 0.2
    assert i2t["R@1"] == pytest.approx(5 * i2t["recall@1"])
    assert i2t["R@1"] == i2t["precision@1"]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=8), st.data())
def test_ties_rank_as_in_the_validation_of_open_clip(scores: list[int], data: st.DataObject) -> None:
    own = data.draw(st.integers(0, len(scores) - 1))
    before = sum(s > scores[own] for s in scores) + sum(s == scores[own] for s in scores[:own])
    base, query = np.array(scores, dtype=np.float32)[:, None], np.ones((1, 1), dtype=np.float32)
    assert evaluate_embeddings(query, base, [(0, own)], (1,))["image_to_text"]["meanR"] == before + 1


@pytest.mark.parametrize(
    ("ranking", "map_at_r"), [([10, 99, 11, 98, 12], 5 / 9), ([99, 10, 11, 12, 98], (1 / 2 + 2 / 3) / 3)]
)
def test_no_credit_is_given_past_the_number_of_relevant_items(ranking: list[int], map_at_r: float) -> None:
    ours = evaluate_ranking(np.array([ranking]), [{10, 11, 12}], (1, 2, 3, 5))
    assert ours["map@R"] == pytest.approx(map_at_r) == ours["map@3"]
    assert ours["map@5"] > ours["map@R"]
    assert ours["r_precision"] == pytest.approx(2 / 3)
    assert ours["R@1"] == ours["precision@1"] == float(ranking[0] == 10)


@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5), min_size=1))
def test_a_query_without_an_answer_never_divides_by_zero(empty: set[int], some: set[int]) -> None:
    figures = evaluate_ranking(np.tile(np.arange(6), (3, 1)), [[], some, dict.fromkeys(empty, 0.0)], (1, 6))
    assert (figures["queries"], figures["left_out"]) == (1, 2)
    assert all(0 <= figures[name] <= 1 for name in figures if "@" in name or name == "r_precision")
