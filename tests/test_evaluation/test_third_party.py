"""Every figure against the tools that others use: trec_eval's through ir-measures, torchmetrics, ECCV Caption's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from evaluation import evaluate_embeddings, evaluate_ranking, exact_top_k
from evaluation.evaluate import evaluate_folds

WHY = "{} is not installed; it is needed only to compare with"
IMAGES, TEXTS, K = 12, 40, (1, 3, 10)
SEEDS = range(50)
Gains = Mapping[int, Mapping[int, int]]


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors without ties; an image has 0 to 9 captions, a caption 0 to 3 images, and many have one."""
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal((IMAGES, 6)), rng.standard_normal((TEXTS, 6))
    first = np.stack([rng.integers(1, IMAGES, 30), np.arange(30)], axis=1)
    more = np.stack([rng.integers(1, IMAGES, 8), rng.integers(0, 36, 8)], axis=1)
    return images, texts, np.unique(np.concatenate([first, more]), axis=0)


def both_ways(seed: int, most: int = 1) -> list[tuple[str, np.ndarray, Gains]]:
    """For each direction full rankings, and the gains (1 to `most`) of what answers the queries that have an answer."""
    images, texts, pairs = problem(seed)
    gain = np.random.default_rng([seed, 1]).integers(1, most + 1, len(pairs)).tolist()
    ways = []
    for name, queries, base, query, item in (
        ("text_to_image", texts, images, pairs[:, 1], pairs[:, 0]),
        ("image_to_text", images, texts, pairs[:, 0], pairs[:, 1]),
    ):
        gains: dict[int, dict[int, int]] = {}
        for one, other, value in zip(query.tolist(), item.tolist(), gain, strict=True):
            gains.setdefault(one, {})[other] = value
        ways.append((name, exact_top_k(base, queries, len(base))[0], gains))
    return ways


def ours(seed: int, most: int = 1) -> dict[str, dict[str, float]]:
    """The figures of both directions; graded ones come from rankings, binary ones straight from the vectors."""
    if most == 1:
        return evaluate_embeddings(*problem(seed), K)
    return {
        name: evaluate_ranking(ranked, [gains.get(query, {}) for query in range(len(ranked))], K)
        for name, ranked, gains in both_ways(seed, most)
    }


def trec(ranked: np.ndarray, gains: Gains) -> dict[str, float]:
    ir = pytest.importorskip("ir_measures", reason=WHY.format("ir-measures"))
    qrels = {f"q{q}": {f"d{item}": gain for item, gain in own.items()} for q, own in gains.items()}
    run = {f"q{q}": {f"d{item}": -float(place) for place, item in enumerate(ranked[q].tolist())} for q in gains}
    names = {"precision": ir.P, "recall": ir.R, "mrr": ir.RR, "map": ir.AP, "graded_ndcg": ir.nDCG, "R": ir.Success}
    asked = {measure @ k: f"{name}@{k}" for name, measure in names.items() for k in K} | {ir.Rprec: "r_precision"}
    values: dict[str, list[float]] = {name: [] for name in asked.values()}
    for result in ir.iter_calc(list(asked), qrels, run):
        name, value, total = asked[result.measure], result.value, len(qrels[result.query_id])
        # trec_eval divides average precision by all relevant items, also where they cannot all be among the first k.
        values[name].append(value * total / min(int(name[4:]), total) if name.startswith("map@") else value)
    return {name: float(np.mean(line)) for name, line in values.items()}


def of_torchmetrics(ranked: np.ndarray, gains: Gains) -> dict[str, float]:
    torch = pytest.importorskip("torch", reason=WHY.format("torch"))
    metrics = pytest.importorskip("torchmetrics.functional.retrieval", reason=WHY.format("torchmetrics"))
    lines: list[dict[str, float]] = []
    for query, own in gains.items():
        target = torch.tensor([own.get(item, 0) for item in ranked[query].tolist()])
        scores = torch.linspace(1, 0.5, len(target))
        line = {"r_precision": metrics.retrieval_r_precision(scores, target > 0)}
        for k in K:
            line[f"precision@{k}"] = metrics.retrieval_precision(scores, target > 0, top_k=k)
            line[f"recall@{k}"] = metrics.retrieval_recall(scores, target > 0, top_k=k)
            line[f"mrr@{k}"] = metrics.retrieval_reciprocal_rank(scores, target > 0, top_k=k)
            line[f"R@{k}"] = metrics.retrieval_hit_rate(scores, target > 0, top_k=k)
            line[f"ndcg@{k}"] = metrics.retrieval_normalized_dcg(scores, (target > 0).long(), top_k=k)
            line[f"graded_ndcg@{k}"] = metrics.retrieval_normalized_dcg(scores, target, top_k=k)
        lines.append({name: float(value) for name, value in line.items()})
    return {name: float(np.mean([line[name] for line in lines])) for name in lines[0]}


def compare(measured: Mapping[str, float], expected: Mapping[str, float], least: int) -> None:
    shared = measured.keys() & expected.keys()
    assert len(shared) >= least
    assert {name: measured[name] for name in shared} == pytest.approx(
        {name: expected[name] for name in shared}, abs=1e-6
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_all_figures_are_those_of_trec_eval(seed: int) -> None:
    for name, ranked, gains in both_ways(seed, 3):
        compare(ours(seed, 3)[name], trec(ranked, gains), 19)
    for name, ranked, gains in both_ways(seed):
        expected = trec(ranked, gains)
        compare(ours(seed)[name], expected | {f"ndcg@{k}": expected[f"graded_ndcg@{k}"] for k in K}, 19)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_figures_are_those_of_torchmetrics(seed: int) -> None:
    for most in (1, 3):
        for name, ranked, gains in both_ways(seed, most):
            compare(ours(seed, most)[name], of_torchmetrics(ranked, gains), 16)


def test_average_precision_of_torchmetrics_is_ours_on_full_rankings_only() -> None:
    torch = pytest.importorskip("torch", reason=WHY.format("torch"))
    metrics = pytest.importorskip("torchmetrics.functional.retrieval", reason=WHY.format("torchmetrics"))
    scores, target = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 0, 1, 1])
    figures = evaluate_ranking(np.array([[0, 1, 2, 3]]), [[0, 2, 3]], (2, 4))
    assert figures["map@4"] == pytest.approx(float(metrics.retrieval_average_precision(scores, target)))
    # Among the first k it divides by the hits found there, so finding fewer costs nothing.
    assert float(metrics.retrieval_average_precision(scores, target, top_k=2)) == 1
    assert figures["map@2"] == 0.5


@pytest.fixture(scope="module")
def eccv() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("eccv_caption", reason=WHY.format("eccv-caption"))
    return package.Metrics()


def lists(ranked: np.ndarray, queries: Sequence[int] | Gains) -> dict[int, list[int]]:
    return {query: ranked[query].tolist() for query in queries}


@pytest.mark.parametrize("seed", SEEDS)
def test_all_figures_are_those_of_eccv_caption(seed: int, eccv: Any) -> None:
    (_, images, images_of), (_, texts, texts_of) = both_ways(seed)
    eccv.eccv_gts = {
        "i2t": {query: list(own) for query, own in texts_of.items()},
        "t2i": {query: list(own) for query, own in images_of.items()},
    }
    given = {"i2t": lists(texts, texts_of), "t2i": lists(images, images_of)}
    figures, theirs = ours(seed), eccv.eccv_metrics(given, "all")
    recalls = {k: eccv.eccv_recalls(given, "all", K=k) for k in K}
    for short, name in (("t2i", "text_to_image"), ("i2t", "image_to_text")):
        assert figures[name]["map@R"] == pytest.approx(theirs["eccv_map_at_r"][short], abs=1e-6)
        assert figures[name]["r_precision"] == pytest.approx(theirs["eccv_rprecision"][short], abs=1e-6)
        assert figures[name]["R@1"] == pytest.approx(theirs["eccv_r1"][short], abs=1e-6)
        assert all(figures[name][f"R@{k}"] == pytest.approx(recalls[k][short], abs=1e-6) for k in K)


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_those_of_eccv_captions_coco_1k(seed: int, eccv: Any) -> None:
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal((20, 5)), rng.standard_normal((60, 5))
    image_of = np.arange(60) // 3
    eccv.coco_gts = {
        "i2t": {image: [3 * image, 3 * image + 1, 3 * image + 2] for image in range(20)},
        "t2i": {text: [int(image_of[text])] for text in range(60)},
    }
    eccv.coco_ids = np.arange(60)
    given = {
        "i2t": lists(exact_top_k(texts, images, 60)[0], range(20)),
        "t2i": lists(exact_top_k(images, texts, 20)[0], range(60)),
    }
    figures = evaluate_folds(images, texts, np.stack([image_of, np.arange(60)], axis=1), (1, 4))
    for k in (1, 4):
        theirs = eccv.coco_1k_recalls(given, "all", K=k)
        assert figures["image_to_text"][f"R@{k}"] == pytest.approx(theirs["i2t"], abs=1e-6)
        assert figures["text_to_image"][f"R@{k}"] == pytest.approx(theirs["t2i"], abs=1e-6)
