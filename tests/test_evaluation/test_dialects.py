"""The keys, scales and definitions of other tools, on worked examples and against their own formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import evaluate_embeddings, evaluate_ranking
from evaluation.protocol import Protocol, check_dialect, in_dialect, needed_depths

# Images A and B against captions a1 a2 b1 b2; with unit axes for images, scores are what stands here.
TOY = np.array([[0.30, 0.20, 0.28, 0.10], [0.26, 0.29, 0.31, 0.25]])
TOY_PAIRS = [(0, 0), (0, 1), (1, 2), (1, 3)]


def five_captions(seed: int, images: int = 20) -> tuple[np.ndarray, dict[str, Any]]:
    """Scores (images, 5 * images), in the strict order that VSE++ takes, and our figures of them."""
    rng = np.random.default_rng(seed)
    texts = rng.standard_normal((5 * images, 8))
    pictures = texts.reshape(images, 5, 8).mean(axis=1) + 0.6 * rng.standard_normal((images, 8))
    pairs = [(image, 5 * image + number) for image in range(images) for number in range(5)]
    return pictures @ texts.T, evaluate_embeddings(pictures, texts, pairs, (1, 5, 10))


def vse_formulas(scores: np.ndarray) -> dict[str, float]:
    """Ranks as VSE++ defines them: the best of an image's own five captions, and the image of caption j at j // 5."""
    images = len(scores)
    i2t = np.array([min(np.flatnonzero(np.argsort(-scores[i]) // 5 == i)) for i in range(images)])
    t2i = np.array([np.flatnonzero(np.argsort(-scores[:, j]) == j // 5)[0] for j in range(5 * images)])
    found = {}
    for ranks, end in ((i2t, ""), (t2i, "i")):
        found |= {f"r{k}{end}": 100 * float(np.mean(ranks < k)) for k in (1, 5, 10)}
        found |= {f"medr{end}": float(np.floor(np.median(ranks)) + 1), f"meanr{end}": float(ranks.mean() + 1)}
    found["ar"] = (found["r1"] + found["r5"] + found["r10"]) / 3
    found["ari"] = (found["r1i"] + found["r5i"] + found["r10i"]) / 3
    return found | {"rsum": 3 * (found["ar"] + found["ari"])}


@pytest.mark.parametrize(
    ("direction", "k", "expected"),
    [
        ("image_to_text", 1, {"ndcg": 1.0, "map": 1.0, "recall": 0.5, "precision": 1.0, "mrr": 1.0}),
        ("image_to_text", 2, {"ndcg": 0.61315, "map": 0.5, "recall": 0.5, "precision": 0.5, "mrr": 1.0}),
        ("text_to_image", 1, {"ndcg": 0.75, "map": 0.75, "recall": 0.75, "precision": 0.75, "mrr": 0.75}),
        ("text_to_image", 2, {"ndcg": 0.90773, "map": 0.875, "recall": 1.0, "precision": 0.5, "mrr": 0.875}),
    ],
)
def test_automm_has_its_keys_and_values_on_the_toy(direction: str, k: int, expected: dict[str, float]) -> None:
    found = in_dialect("automm", evaluate_embeddings(np.eye(2), TOY.T, TOY_PAIRS, (1, 2)))[direction]
    assert {name: found[f"{name}@{k}"] for name in expected} == expected


def test_automm_goes_cutoff_by_cutoff_and_rounds_to_five_places() -> None:
    found = in_dialect("automm", five_captions(3)[1])["image_to_text"]
    metrics = ("ndcg", "map", "recall", "precision", "mrr")
    assert list(found) == [f"{metric}@{k}" for k in (1, 5, 10) for metric in metrics]
    assert all(value == round(value, 5) for value in found.values())
    assert found["recall@1"] <= 0.2


def test_automm_scores_a_single_query_too() -> None:
    figures = evaluate_ranking(np.array([[2, 0, 1]]), [{2}], (1, 2))
    found = in_dialect("automm", {"text_to_image": figures, "image_to_text": figures})
    assert found["text_to_image"]["mrr@1"] == found["text_to_image"]["map@2"] == 1.0


def test_clip_benchmark_asks_for_any_hit() -> None:
    found = in_dialect("clip-benchmark", evaluate_embeddings(np.eye(2), TOY.T, TOY_PAIRS, (1, 2)))
    assert found == {
        "image_retrieval_recall@1": 0.75,
        "image_retrieval_recall@2": 1.0,
        "text_retrieval_recall@1": 1.0,
        "text_retrieval_recall@2": 1.0,
    }


@pytest.mark.parametrize("seed", range(10))
def test_vse_agrees_with_its_formulas(seed: int) -> None:
    scores, figures = five_captions(seed)
    expected = vse_formulas(scores)
    found = in_dialect("vse", figures)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected)
    assert found["rsum"] == pytest.approx(figures["rsum"])


def test_vse_leaves_out_the_ranks_that_a_short_ranking_cannot_know() -> None:
    ranked = np.tile(np.arange(10), (3, 1))
    figures = evaluate_ranking(ranked, [{0}, {50}, {60}], (1, 5, 10))
    found = in_dialect("vse", {"text_to_image": figures, "image_to_text": figures})
    assert "medr" not in found
    assert "meanri" not in found
    assert found["r1"] == pytest.approx(100 / 3)


def test_eccv_agrees_with_the_package(tmp_path: Any) -> None:
    package = pytest.importorskip("eccv_caption._metrics", reason="the package eccv-caption is the oracle")
    scores, figures = five_captions(5)
    i2t = {image: np.argsort(-line).tolist() for image, line in enumerate(scores)}
    t2i = {text: np.argsort(-line).tolist() for text, line in enumerate(scores.T)}
    captions = {image: list(range(5 * image, 5 * image + 5)) for image in i2t}
    images = {text: [text // 5] for text in t2i}
    theirs = {"i2t": package.compute_eccv_metrics(i2t, captions), "t2i": package.compute_eccv_metrics(t2i, images)}
    found = in_dialect("eccv", figures)
    for name in ("eccv_map_at_r", "eccv_rprecision", "eccv_r1"):
        assert found[name] == pytest.approx({side: theirs[side][name] for side in ("i2t", "t2i")})
    assert found["coco_5k_r5"]["i2t"] == pytest.approx(package.compute_r_at_k(i2t, captions, 5))
    assert not any(name.startswith("coco_1k") for name in found)


def test_eccv_prints_folds_beside_the_whole() -> None:
    whole, folds = five_captions(1)[1], five_captions(2)[1]
    found = in_dialect("eccv", whole, folds)
    assert found["coco_1k_r1"] == {"i2t": folds["image_to_text"]["R@1"], "t2i": folds["text_to_image"]["R@1"]}
    assert found["coco_5k_r1"] == {"i2t": whole["image_to_text"]["R@1"], "t2i": whole["text_to_image"]["R@1"]}


def test_eccv_leaves_out_what_a_short_ranking_cannot_know() -> None:
    figures = evaluate_ranking(np.array([[0, 1]]), [{0, 1, 2}], (1, 2))
    full = figures | {"R@5": 1.0, "R@10": 1.0}
    assert "eccv_map_at_r" not in in_dialect("eccv", {"text_to_image": full, "image_to_text": full})


def test_our_own_protocol_changes_nothing() -> None:
    figures = five_captions(0)[1]
    assert in_dialect("twinlens", figures) == figures


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(ValueError, match="protocol 'trec' is unknown; choose one of twinlens"):
        in_dialect("trec", {})


@given(st.sets(st.integers(1, 100), min_size=1).map(lambda k: tuple(sorted(k))))
def test_tools_with_fixed_depths_get_them(k: tuple[int, ...]) -> None:
    assert set(needed_depths("vse", k)) == {*k, 1, 5, 10}
    assert needed_depths("automm", k) == k


@pytest.mark.parametrize(
    ("pairs", "images", "texts", "found"),
    [
        ([(0, 0), (0, 1), (1, 2)], 2, 3, "they have 1 to 2"),
        ([(0, 0), (1, 1)], 3, 2, "1 images have none"),
        ([(0, 0), (1, 1)], 2, 4, "2 texts have no image"),
        ([(0, 0), (1, 0)], 2, 1, "some texts belong to several images"),
    ],
)
def test_vse_says_why_a_collection_does_not_fit_it(pairs: Any, images: int, texts: int, found: str) -> None:
    protocol = Protocol.of_pairs(np.array(pairs), images, texts, name="vse")
    with pytest.raises(ValueError, match=f"here {found}; use clip-benchmark, which gives the same R@k"):
        check_dialect(protocol)


def test_other_tools_take_any_number_of_captions() -> None:
    for name in ("twinlens", "automm", "clip-benchmark", "eccv"):
        check_dialect(Protocol.of_pairs(np.array([(0, 0), (0, 1), (1, 2)]), 3, 5, name=name))
    check_dialect(Protocol.of_pairs(np.array([(0, 1), (1, 0)]), 2, 2, name="vse"))
