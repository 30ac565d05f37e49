"""Signals of hits are those of plain loops, and the curves that weigh them are of maximum likelihood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vector_tables import unit_rows, write_table

from storage.hit_calibration import HitCalibration, HitCurve, Judged
from storage.logistic import fit_logistic, sigmoid
from storage.partners import Partners

IMAGES, TEXTS = 6, 9
# Image 0 has two texts, 1 one, 2 three, the others none.
PAIRS = np.array([(0, 0), (0, 4), (1, 2), (2, 1), (2, 3), (2, 8)])
CALIBRATION = HitCalibration(
    queries=9,
    plain=HitCurve(weights=(1.0, 2.0), intercept=-0.5),
    with_partners=HitCurve(weights=(1.0, 0.0, 3.0, -1.0, 0.5), intercept=0.1),
    with_words=HitCurve(weights=(0.0, 0.0, 0.0, 0.0, 0.0, 4.0), intercept=-2.0),
)


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray]:
    """Images and texts as they are stored."""
    return tuple(unit_rows(rows, 8, seed=rows).astype(np.float16) for rows in (IMAGES, TEXTS))  # type: ignore[return-value]


@pytest.fixture
def judged(vectors: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Judged:
    images, texts = vectors
    partners = Partners(PAIRS[:, 0], PAIRS[:, 1], IMAGES)
    return Judged(write_table(tmp_path / "images", images), write_table(tmp_path / "texts", texts), partners)


@pytest.mark.parametrize("own", [-1, 4, 2])
def test_signals_are_those_of_plain_loops(vectors: tuple[np.ndarray, np.ndarray], judged: Judged, own: int) -> None:
    images, texts = (half.astype(np.float64) for half in vectors)
    query, rows = unit_rows(1, 8, seed=77)[0], np.array([2, 5, 0, 1])
    scores = (images[rows] @ query).astype(np.float32)
    found = judged.signals(query, rows, scores, judged.background(), own)
    for line, row in enumerate(rows):
        mine = [text for image, text in PAIRS if image == row and text != own]
        standing = (scores[line] - (images @ query).mean()) / (images @ query).std()
        assert found[line, :2] == pytest.approx([scores[line], standing], abs=1e-4)
        if not mine:
            assert np.isnan(found[line, 2:]).all()
            continue
        lead = scores[line] - (texts[mine] @ images[row]).mean()
        nearest = (texts[mine] @ query).max()
        beside = (nearest - (texts @ query).mean()) / (texts @ query).std()
        assert found[line, 2:] == pytest.approx([lead, nearest, beside], abs=1e-4)


def test_hits_without_pairs_have_the_plain_signals_alone(judged: Judged) -> None:
    alone = Judged(judged.hits, None, None)
    rows = np.arange(3)
    found = alone.signals(unit_rows(1, 8)[0], rows, np.zeros(3, dtype=np.float32), alone.background())
    assert np.isfinite(found[:, :2]).all()
    assert np.isnan(found[:, 2:]).all()
    lonely = judged.signals(unit_rows(1, 8)[0], np.array([4]), np.zeros(1, dtype=np.float32), judged.background())
    assert np.isnan(lonely[0, 2:]).all()


def test_each_hit_is_judged_by_the_curve_of_what_is_known_of_it() -> None:
    signals = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, np.nan, np.nan, np.nan]], dtype=np.float32)
    plain = 1 / (1 + np.exp(-(0.1 + 0.4 - 0.5)))
    partners = 1 / (1 + np.exp(-(0.1 + 0.9 - 0.4 + 0.25 + 0.1)))
    assert CALIBRATION.probability(signals) == pytest.approx([partners, plain])
    words = CALIBRATION.probability(signals, coverage=np.array([1.0, 1.0], dtype=np.float32))
    assert words == pytest.approx([1 / (1 + np.exp(-2.0)), plain])
    bare = HitCalibration(queries=9, plain=CALIBRATION.plain, with_partners=None, with_words=None)
    assert bare.probability(signals, coverage=np.ones(2, dtype=np.float32)) == pytest.approx([plain, plain])


@pytest.mark.parametrize("ridge", [0.0, 0.01])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_a_fitted_curve_is_of_maximum_likelihood(ridge: float, scale: float) -> None:
    rng = np.random.default_rng(5)
    features = rng.standard_normal((400, 3)) * (scale, 1.0, 20.0)
    truth = features @ np.array([2.0 / scale, -1.0, 0.05]) + 0.3
    targets = (rng.random(400) < sigmoid(truth)).astype(np.float64)
    weights = rng.random(400)
    slopes, intercept = fit_logistic(features, targets, weights, ridge=ridge)

    def loss(values: np.ndarray) -> float:
        logits = features @ values[:-1] + values[-1]
        spread = features.std(axis=0)
        cost = (weights * (np.logaddexp(0, logits) - targets * logits)).sum()
        return float(cost + ridge * weights.sum() * ((values[:-1] * spread) ** 2).sum() / 2)

    best = np.append(slopes, intercept)
    for place in range(4):
        for step in (-1e-3, 1e-3):
            other = best.copy()
            other[place] += step * max(abs(best[place]), 1e-3)
            assert loss(other) >= loss(best)


def test_examples_that_can_be_told_apart_wholly_give_a_finite_curve() -> None:
    features = np.concatenate([np.full((1000, 1), -3.0), np.full((1, 1), 900.0)])
    slopes, intercept = fit_logistic(features, np.append(np.zeros(1000), 1.0), ridge=1e-4)
    assert np.isfinite([*slopes, intercept]).all()
    assert sigmoid(features[:, 0] * slopes[0] + intercept)[[0, -1]] == pytest.approx([0, 1], abs=0.2)
