from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import HubCorrection, evaluate_embeddings, evaluate_ranking, exact_top_k


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def crowded(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images, two sets of captions for them, and pairs; image 0 leans towards where all captions lie."""
    rng = np.random.default_rng(seed)
    middle = unit(rng.standard_normal((1, 32)))
    images = unit(rng.standard_normal((80, 32)))
    captions = [unit(unit(images + 0.12 * rng.standard_normal((80, 32))) + middle) for _ in range(2)]
    images[0] = unit(middle + 0.3 * images[:1])[0]
    return images, captions[0], captions[1], np.stack([np.arange(80)] * 2, axis=1)


def test_the_bias_of_a_toy_is_the_share_of_its_nearest_queries() -> None:
    base, reference = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    fitted = HubCorrection.fit(base, reference, k=2, alpha=0.5)
    assert fitted.bias == pytest.approx([0.5 * 0.7, 0.5 * 0.9])
    assert fitted.bias.dtype == np.float32
    assert fitted.settings == {"k": 2, "alpha": 0.5}
    assert HubCorrection.fit(base, reference, k=3, alpha=1).bias == pytest.approx([1.4 / 3, 2.4 / 3])


def test_a_hub_loses_its_pull() -> None:
    images, captions, others, pairs = crowded()
    hubs = HubCorrection.fit(images, others, k=8, alpha=0.75)
    nearest = exact_top_k(images, captions, 1)[0][:, 0]
    corrected = exact_top_k(hubs.extend_base(images), hubs.extend_queries(captions), 1)[0][:, 0]
    assert np.count_nonzero(nearest == 0) > 40
    assert np.count_nonzero(corrected == 0) <= 2
    plain = evaluate_embeddings(images, captions, pairs)["text_to_image"]["R@1"]
    assert evaluate_embeddings(images, captions, pairs, image_hubs=hubs)["text_to_image"]["R@1"] > plain + 0.4


def test_an_alpha_of_zero_changes_nothing() -> None:
    images, captions, others, pairs = crowded()
    nothing = HubCorrection.fit(images, others, k=4, alpha=0)
    corrected = evaluate_embeddings(images, captions, pairs, image_hubs=nothing)
    assert corrected.pop("hub_correction") == {"images": {"k": 4, "alpha": 0}}
    assert corrected == evaluate_embeddings(images, captions, pairs)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_the_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = (unit(rng.standard_normal((n, 6))).astype(np.float32) for n in (20, 50))
    others = unit(rng.standard_normal((30, 6)))
    image_hubs = HubCorrection.fit(images, others, k=5, alpha=0.8)
    text_hubs = HubCorrection.fit(texts, others, k=3, alpha=0.4)
    pairs = np.stack([np.arange(50) % 20, np.arange(50)], axis=1)
    figures = evaluate_embeddings(images, texts, pairs, (1, 5), image_hubs=image_hubs, text_hubs=text_hubs)
    scores = texts.astype(np.float64) @ images.T.astype(np.float64)
    ranked = np.argsort(-(scores - image_hubs.bias), axis=1, kind="stable")
    assert figures["text_to_image"] == evaluate_ranking(ranked, [[text % 20] for text in range(50)], (1, 5))
    ranked = np.argsort(-(scores.T - text_hubs.bias), axis=1, kind="stable")
    texts_of = [list(range(image, 50, 20)) for image in range(20)]
    assert figures["image_to_text"] == evaluate_ranking(ranked, texts_of, (1, 5))
    assert set(figures["hub_correction"]) == {"images", "texts"}


def test_settings_are_chosen_on_the_reference_split_alone() -> None:
    images, captions, _, pairs = crowded(0)
    other_images, other_captions, _, _ = crowded(0)
    fitted = HubCorrection.fit_best(images, other_captions, other_images, pairs)
    again = HubCorrection.fit_best(images[::-1], other_captions, other_images, pairs)
    assert fitted.settings == again.settings
    assert fitted.alpha > 0
    plain = evaluate_embeddings(images, captions, pairs)["text_to_image"]["R@1"]
    assert evaluate_embeddings(images, captions, pairs, image_hubs=fitted)["text_to_image"]["R@1"] > plain


def test_where_it_does_not_help_nothing_is_corrected() -> None:
    fitted = HubCorrection.fit_best(np.eye(8), np.eye(8), np.eye(8), [(row, row) for row in range(8)])
    assert fitted.alpha == 0
    assert not fitted.bias.any()


def test_settings_that_are_not_surely_better_correct_nothing() -> None:
    rng = np.random.default_rng(0)
    images, captions = unit(rng.standard_normal((30, 8))), unit(rng.standard_normal((30, 8)))
    assert HubCorrection.fit_best(images, captions, images, [(row, row) for row in range(30)]).alpha == 0


def test_captions_are_corrected_for_images_that_share_them_in_one_half() -> None:
    images, _, _, _ = crowded()
    captions = np.repeat(images, 5, axis=0)
    fitted = HubCorrection.fit_best(captions, images, captions, [(row, row // 5) for row in range(400)])
    assert fitted.bias.shape == (400,)


@pytest.fixture(scope="module")
def real(data: Path) -> dict[str, Any]:
    """Real vectors in two halves that share no picture: one is measured, the other is the reference."""
    folder = data / "clip_vit_b32"
    images, texts = np.load(folder / "flickr8k_images.npy"), np.load(folder / "flickr8k_captions.npy")
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    image_of = np.array([json.loads(line)["image_row"] for line in lines])
    sides = {"measured": image_of < 50, "reference": image_of >= 50}
    pairs = {name: np.stack([image_of[own] % 50, np.arange(own.sum())], axis=1) for name, own in sides.items()}
    return {
        "images": images[:50],
        "texts": texts[sides["measured"]],
        "pairs": pairs["measured"],
        "reference": (texts[sides["reference"]], images[50:], pairs["reference"]),
        "distractors": np.load(folder / "distractor_images.npy"),
    }


def test_real_vectors_gain_a_little(real: dict[str, Any]) -> None:
    fitted = HubCorrection.fit_best(real["images"], *real["reference"])
    plain = evaluate_embeddings(real["images"], real["texts"], real["pairs"])["text_to_image"]
    figures = evaluate_embeddings(real["images"], real["texts"], real["pairs"], image_hubs=fitted)["text_to_image"]
    assert [round(one["R@1"], 3) for one in (plain, figures)] == [0.936, 0.94]


def test_captions_of_some_pictures_push_these_down_among_others(real: dict[str, Any]) -> None:
    base, (reference, _, _) = np.concatenate([real["images"], real["distractors"]]), real["reference"]
    hubs = HubCorrection.fit(base, reference, k=1, alpha=1)
    plain = evaluate_embeddings(base, real["texts"], real["pairs"])["text_to_image"]["R@1"]
    figures = evaluate_embeddings(base, real["texts"], real["pairs"], image_hubs=hubs)
    assert figures["text_to_image"]["R@1"] < plain - 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k=0 does not lie between 1 and the 3 reference queries"),
        ({"k": 4}, "k=4"),
        ({"alpha": -0.5}, "alpha is -0.5"),
        ({"reference_queries": np.ones((3, 5))}, r"collection vectors \(3, 3\) and reference query vectors \(3, 5\)"),
        ({"base": np.full((2, 3), np.nan)}, "collection vector 0 holds NaN"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"base": np.eye(3), "reference_queries": np.eye(3), "k": 1, "alpha": 0.5} | change
    with pytest.raises(ValueError, match=message):
        HubCorrection.fit(**arguments)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 0), (2, 1)], "too few queries to choose"),
        ([(0, 9)], "pair 0 is reference item 0 and query vector 9; there are 3 reference items and 3 query vectors"),
        ([], "no pairs"),
    ],
)
def test_a_reference_split_that_cannot_be_halved_is_refused(pairs: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HubCorrection.fit_best(np.eye(3), np.eye(3), np.eye(3), pairs)


def test_a_bias_of_another_collection_is_refused() -> None:
    hubs = HubCorrection.fit(np.eye(3), np.eye(3), k=1)
    with pytest.raises(ValueError, match="a bias of 3 items does not fit a collection of 4"):
        evaluate_embeddings(np.eye(4), np.eye(4), [(0, 0)], (1,), image_hubs=hubs)
