from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import ann_recall, exact_top_k, hit_rate_at_k, recall_at_k

RANKED = np.array([[4, 1, 2], [0, 3, -1]])


def test_ann_recall_is_the_share_of_exact_hits_found() -> None:
    assert ann_recall(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[4, 3, 9, 9], [5, 6, 7, 8]])) == pytest.approx(
        (2 / 3 + 1) / 2
    )


def test_ann_recall_does_not_look_at_the_order() -> None:
    assert ann_recall(np.array([[3, 2, 1]]), np.array([[1, 2, 3]])) == 1


def test_padding_is_no_hit_and_is_not_missed() -> None:
    assert ann_recall(np.array([[1, -1], [-1, -1], [7, 8]]), np.array([[1, -1], [-1, -1], [9, -1]])) == 0.5


def test_a_hit_is_any_relevant_item_among_the_first_k() -> None:
    relevant = [[2, 9], [0]]
    assert [hit_rate_at_k(RANKED, relevant, k) for k in (1, 2, 3)] == [0.5, 0.5, 1]


def test_recall_counts_every_relevant_item() -> None:
    relevant = [[4, 2, 8, 9], [3]]
    assert [recall_at_k(RANKED, relevant, k) for k in (1, 2, 3)] == [0.125, 0.625, 0.75]


def test_queries_without_relevant_items_are_left_out() -> None:
    assert hit_rate_at_k(RANKED, [[], [0]], 1) == recall_at_k(RANKED, [[], [0]], 1) == 1


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.permutations(range(10)), st.integers(1, 10))
def test_with_one_relevant_item_the_two_are_the_same(items: list[int], order: list[int], k: int) -> None:
    ranked = np.tile(order, (len(items), 1))
    relevant = [[item] for item in items]
    assert hit_rate_at_k(ranked, relevant, k) == pytest.approx(recall_at_k(ranked, relevant, k))


@given(st.permutations(range(10)), st.sets(st.integers(0, 9), min_size=1))
def test_both_grow_with_k_up_to_one(order: list[int], relevant: set[int]) -> None:
    for metric in (hit_rate_at_k, recall_at_k):
        values = [metric(np.array([order]), [relevant], k) for k in range(1, 11)]
        assert values == sorted(values)
        assert values[-1] == 1


@pytest.mark.parametrize("metric", [hit_rate_at_k, recall_at_k])
@pytest.mark.parametrize(
    ("relevant", "k", "message"),
    [([[1], [2]], 0, "k is 0"), ([[1]], 1, "2 rankings and 1 lists"), ([[], []], 1, "nothing to measure")],
)
def test_what_cannot_be_measured_is_refused(metric: object, relevant: list[list[int]], k: int, message: str) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match=message):
        metric(RANKED, relevant, k)


def test_ann_recall_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="same shape"):
        ann_recall(np.zeros((2, 3), int), np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="nothing to measure"):
        ann_recall(np.full((1, 2), -1), np.full((1, 2), -1))


def test_real_vectors_give_the_figures_that_are_known_of_them(data: Path) -> None:
    folder = data / "clip_vit_b32"
    images, texts = np.load(folder / "flickr8k_images.npy"), np.load(folder / "flickr8k_captions.npy")
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    image_rows = [json.loads(line)["image_row"] for line in lines]
    captions_of = [[text for text, image in enumerate(image_rows) if image == row] for row in range(len(images))]
    t2i = exact_top_k(images, texts, 10)[0]
    i2t = exact_top_k(texts, images, 10)[0]
    assert [round(hit_rate_at_k(t2i, [[row] for row in image_rows], k), 3) for k in (1, 5, 10)] == [0.832, 0.99, 0.998]
    assert [round(hit_rate_at_k(i2t, captions_of, k), 3) for k in (1, 5, 10)] == [0.93, 1, 1]
