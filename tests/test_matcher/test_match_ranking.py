"""Evaluation: relevance tables, true pairs, labelled pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from colour import ColourEncoder
from matching import Painted

from evaluation import evaluate_embeddings
from matcher import DataError, Matcher, MatcherError

# The worked example: images A and B, captions a1, a2, b1, b2, and these cosines.
COSINES = np.array([[0.30, 0.20, 0.28, 0.10], [0.26, 0.29, 0.31, 0.25]])
TEXTS, IMAGES = ["a1", "a2", "b1", "b2"], ["A", "B"]


class Toy:
    """An encoder of texts whose dot products are the worked example: captions are axes, images their cosines."""

    spec, dim, fingerprint, device, precision, batch_size = "toy", 5, "t" * 64, "cpu", "fp32", 8

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        rows = []
        for text in texts:
            if text in TEXTS:
                rows.append(np.eye(5)[TEXTS.index(text)])
            else:
                cosines = COSINES[IMAGES.index(text)]
                rows.append(np.append(cosines, np.sqrt(1 - (cosines**2).sum())))
        return np.array(rows, dtype=np.float32)


TRUTH = {"image": ["A", "A", "B", "B"], "caption": TEXTS}


def toy(query: str, response: str, **options: Any) -> Matcher:
    return Matcher(query, response, Toy(), query_type="text", response_type="text", **options)  # type: ignore[arg-type]


def test_image_to_text_figures_are_those_of_the_worked_example() -> None:
    found = toy("image", "caption").evaluate(TRUTH, IMAGES, TEXTS, cutoffs=[1, 2, 3])
    wanted = {
        "precision@1": 1,
        "recall@1": 0.5,
        "mrr@1": 1,
        "ndcg@1": 1,
        "map@1": 1,
        "R@1": 1,
        "precision@2": 0.5,
        "recall@2": 0.5,
        "mrr@2": 1,
        "ndcg@2": 0.61315,
        "precision@3": 0.5,
        "recall@3": 0.75,
        "ndcg@3": 0.76643,
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=5e-6)


def test_text_to_image_figures_are_those_of_the_worked_example() -> None:
    found = toy("caption", "image").evaluate(TRUTH, TEXTS, IMAGES, cutoffs=[1, 2])
    wanted = {
        "precision@1": 0.75,
        "recall@1": 0.75,
        "mrr@1": 0.75,
        "ndcg@1": 0.75,
        "precision@2": 0.5,
        "recall@2": 1,
        "mrr@2": 0.875,
        "ndcg@2": 0.90773,
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=5e-6)


def test_keys_are_metric_at_cutoff_with_the_cutoff_outermost() -> None:
    found = toy("caption", "image").evaluate(TRUTH, TEXTS, IMAGES, metrics=["ndcg", "hit_rate"], cutoffs=[1, 2])
    assert list(found) == ["ndcg@1", "hit_rate@1", "ndcg@2", "hit_rate@2", "queries", "left_out"]


def test_true_pairs_alone_are_ranked_over_distinct_items() -> None:
    matcher = toy("caption", "image")
    assert matcher.evaluate(TRUTH) == matcher.evaluate(TRUTH, TEXTS, IMAGES)


def test_deep_cutoffs_and_one_query_alone_work() -> None:
    found = toy("image", "caption").evaluate({"image": ["A"], "caption": ["a1"]}, ["A"], TEXTS, cutoffs=[10])
    assert found["recall@10"] == 1
    assert found["precision@10"] == 0.1
    assert found["queries"] == 1


def test_queries_without_a_relevant_response_are_counted_and_left_out() -> None:
    truth = {"image": ["A", "B"], "caption": ["a1", "b1"], "relevance": [1, 0]}
    found = toy("image", "caption", label="relevance").evaluate(truth, IMAGES, TEXTS)
    assert (found["queries"], found["left_out"], found["recall@1"]) == (1, 1, 1)


def test_graded_labels_give_graded_figures_too() -> None:
    truth = {"image": ["A", "A", "B"], "caption": ["a1", "b1", "b1"], "relevance": ["1", 3, 1.0]}
    found = toy("image", "caption", label="relevance").evaluate(
        truth, IMAGES, TEXTS, metrics=["ndcg", "graded_ndcg"], cutoffs=[2]
    )
    ideal, got = 3 + 1 / np.log2(3), 1 + 3 / np.log2(3)
    assert found["ndcg@2"] == 1
    assert found["graded_ndcg@2"] == pytest.approx((got / ideal + 1) / 2)


def test_both_directions_equal_evaluation_of_the_embeddings(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder)
    images, texts = matcher.embed_images(painted.images), matcher.embed_texts(painted.captions)
    wanted = evaluate_embeddings(images, texts, [(row, row) for row in range(24)])
    both = matcher.evaluate(painted.pairs, directions="both")
    assert list(both) == ["text_to_image", "image_to_text"]
    for direction, found in both.items():
        assert {name: found[name] for name in found if "@" in name} == pytest.approx(
            {name: wanted[direction][name] for name in found if "@" in name}
        )
    back = Matcher("image", "caption", encoder, query_type="image", response_type="text")
    assert back.evaluate(painted.pairs) == both["image_to_text"]


def test_tables_choose_the_direction_by_the_columns_that_they_hold(painted: Painted, matcher: Matcher) -> None:
    both = matcher.evaluate(painted.pairs, directions="both")
    queries, responses = {"caption": painted.captions}, {"image": painted.images}
    for sides, direction in (
        ((queries, responses), "text_to_image"),
        ((responses, queries), "image_to_text"),
        ((responses, painted.captions), "image_to_text"),
        ((None, queries), "image_to_text"),
        ((painted.captions, painted.images), "text_to_image"),
        ((painted.pairs, painted.pairs), "text_to_image"),
    ):
        assert matcher.evaluate(painted.pairs, *sides) == both[direction]
    assert matcher.evaluate(painted.pairs, responses, queries, directions="both") == both
    with pytest.raises(DataError, match="the data has no column 'caption'; it has 'image'"):
        matcher.evaluate(painted.pairs, responses, responses)


def test_of_one_kind_the_columns_name_the_directions() -> None:
    both = toy("image", "caption").evaluate(TRUTH, directions="both")
    assert list(both) == ["image_to_caption", "caption_to_image"]
    assert both["caption_to_image"] == toy("caption", "image").evaluate(TRUTH)
    with pytest.raises(MatcherError, match="directions is 'back'; choose one of one, both"):
        toy("image", "caption").evaluate(TRUTH, directions="back")  # type: ignore[arg-type]


def test_a_list_of_captions_is_as_many_pairs(painted: Painted, matcher: Matcher) -> None:
    nested = {"image": painted.images, "caption": [[text, f"{text}!"] for text in painted.captions]}
    assert matcher.evaluate(nested)["queries"] == 48


def test_labelled_pairs_are_judged_by_probability(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder, label="match")
    wrong = painted.images[12:] + painted.images[:12]
    pairs = {"caption": painted.captions * 2, "image": painted.images + wrong, "match": [1] * 24 + [0] * 24}
    matcher.calibrate(pairs)
    found = matcher.evaluate(pairs)
    assert {"roc_auc", "accuracy", "f1", "average_precision", "ece"} <= set(found)
    assert found["roc_auc"] > 0.8
    assert matcher.evaluate(pairs, metrics=["f1"]) == {"f1": found["f1"]}
    with pytest.raises(MatcherError, match="labelled pairs are judged one by one and have no direction"):
        matcher.evaluate(pairs, directions="both")
    with pytest.raises(MatcherError, match="pair metric 'ndcg' is unknown; give some of roc_auc"):
        matcher.evaluate(pairs, metrics=["ndcg"])


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"image": ["A", "C"], "caption": ["a1", "a2"]}, "row 1 of the relevance table names 'C', which is not in"),
        ({"image": ["A"], "caption": ["zz"]}, "row 0 of the relevance table names 'zz', which is not in response_data"),
        ({"image": ["A"], "caption": ["a1"], "relevance": [0]}, "no query has a relevant item"),
        ({"image": ["A"], "caption": ["a1"], "relevance": [-1]}, "row 0, column 'relevance': -1 is no relevance"),
        ({"image": ["A"], "caption": ["a1"], "relevance": ["much"]}, "'much' is no relevance; give numbers from 0 on"),
        ({"image": ["A"], "text": ["a1"]}, "the data has no column 'caption'; it has 'image', 'text'"),
    ],
)
def test_relevance_tables_that_do_not_fit(truth: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        toy("image", "caption", label="relevance").evaluate(truth, IMAGES, TEXTS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["bleu"]}, "ranking metric 'bleu' is unknown"),
        ({"metrics": "ndcg"}, "is one name; give a list"),
        ({"metrics": []}, "is unknown"),
        ({"cutoffs": [0]}, "must be whole numbers from 1 on"),
        ({"cutoffs": []}, "must be whole numbers from 1 on"),
    ],
)
def test_figures_that_are_no_figures_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MatcherError, match=message):
        toy("image", "caption").evaluate(TRUTH, IMAGES, TEXTS, **options)
