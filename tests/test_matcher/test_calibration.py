"""From cosines to probabilities: the two curves, what they promise, where they are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from colour import ColourEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from matching import Painted
from numpy.typing import NDArray

from matcher import Calibration, CalibrationError, Matcher, Sampling
from matcher.calibration import (
    METHODS,
    Method,
    find_calibration,
    fit_calibration,
    read_calibration,
    shipped_calibrations,
    write_calibration,
)
from matcher.negatives import sample_pairs
from matcher.pair_metrics import pair_figures

SLOPE, INTERCEPT = 30.0, -8.0


def drawn(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cosines between 0.1 and 0.4, and labels that a known sigmoid draws."""
    rng = np.random.default_rng(seed)
    cosine = rng.uniform(0.1, 0.4, count)
    return cosine, (rng.random(count) < 1 / (1 + np.exp(-(SLOPE * cosine + INTERCEPT)))).astype(np.int64)


def test_platt_finds_the_sigmoid_that_drew_the_labels() -> None:
    found = fit_calibration(*drawn(20_000), "platt")
    assert found.slope == pytest.approx(SLOPE, rel=0.05)
    assert found.intercept == pytest.approx(INTERCEPT, rel=0.05)


def test_platt_equals_logistic_regression_without_a_penalty() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn comes with the extra demo")
    cosine, label = drawn(5000)
    model = linear.LogisticRegression(C=np.inf, tol=1e-10).fit(cosine[:, None], label)
    found = fit_calibration(cosine, label, "platt")
    # Platt's softened targets move the curve by about one pair in thousands.
    assert found.probability(cosine) == pytest.approx(model.predict_proba(cosine[:, None])[:, 1], abs=2e-3)


def test_isotonic_equals_pooled_adjacent_violators_of_scikit_learn() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic", reason="scikit-learn comes with the extra demo")
    cosine, label = drawn(500)
    reference = isotonic.isotonic_regression(label[np.argsort(cosine)].astype(float))
    found = fit_calibration(cosine, label, "isotonic")
    levels = np.unique(reference.round(12))
    inner = np.clip(levels, 1 / 502, 1 - 1 / 502)
    assert [y for _, y in found.knots] == pytest.approx(inner.tolist())


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_come_true_on_pairs_not_seen(method: Method) -> None:
    found = fit_calibration(*drawn(4000), method)
    cosine, label = drawn(4000, seed=1)
    assert pair_figures(found.probability(cosine), label)["ece"] < 0.03
    assert found.measured["ece"] < 0.03


def test_the_better_curve_is_taken_where_none_is_named() -> None:
    rng = np.random.default_rng(0)
    cosine = rng.uniform(0, 1, 6000)
    # Two plateaus, which no sigmoid follows.
    label = rng.random(6000) < np.where(cosine < 0.3, 0.05, 0.5)
    figures = {method: fit_calibration(cosine, label, method).measured["brier"] for method in METHODS}
    assert figures["isotonic"] < figures["platt"]
    assert fit_calibration(cosine, label).method == "isotonic"
    assert fit_calibration(*drawn(60)).method == "platt"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(METHODS))
def test_a_curve_never_falls_where_matches_score_higher(seed: int, method: Method) -> None:
    rng = np.random.default_rng(seed)
    label = np.arange(40) % 2
    found = fit_calibration(np.clip(rng.normal(0.2 + 0.1 * label, 0.05), -1, 1), label, method)
    probability = found.probability(np.linspace(-1, 1, 101))
    assert np.all(np.diff(probability) >= 0)
    assert probability.min() >= 0
    assert probability.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_pairs_that_are_told_apart_perfectly_are_no_certainty(method: Method) -> None:
    found = fit_calibration(np.linspace(0, 1, 20), np.arange(20) >= 10, method)
    assert found.probability(0.0) < 0.2
    assert found.probability(1.0) > 0.8
    assert found.probability(0.0) > 0
    assert found.probability(1.0) < 1


def test_cosines_that_are_all_equal_give_the_share_of_matches() -> None:
    found = fit_calibration(np.full(30, 0.3), np.arange(30) % 3 == 0, "platt")
    assert found.probability(0.3) == pytest.approx(1 / 3, abs=0.03)


def test_a_pair_without_a_cosine_has_no_probability() -> None:
    for method in METHODS:
        assert np.isnan(fit_calibration(*drawn(200), method).probability(np.array([0.2, np.nan]))[1])


def test_few_pairs_and_equal_labels_are_refused() -> None:
    with pytest.raises(CalibrationError, match="9 pairs are too few to calibrate with; give 10 or more"):
        fit_calibration(np.zeros(9), np.arange(9) % 2)
    with pytest.raises(CalibrationError, match="all 20 pairs are labelled a match; give pairs of both kinds"):
        fit_calibration(np.zeros(20), np.ones(20))
    with pytest.raises(CalibrationError, match="'beta' is unknown; give 'platt' or 'isotonic'"):
        fit_calibration(*drawn(20), "beta")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_is_the_same_after_a_file(method: Method, tmp_path: Path) -> None:
    found = fit_calibration(*drawn(300), method, encoder="lite", fingerprint="f" * 64)
    write_calibration(found, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "holds no calibration"),
        ("[1]", "holds no calibration"),
        ("no json", "is no JSON"),
        (json.dumps(Calibration().to_json() | {"threshold": 2}), "threshold 2.0 is no probability"),
        (json.dumps(Calibration().to_json() | {"slope": "x"}), "holds no calibration"),
        (json.dumps(Calibration().to_json() | {"method": "isotonic"}), "knots of an isotonic calibration must ascend"),
        (json.dumps(Calibration().to_json() | {"slope": float("nan")}), "not finite"),
    ],
)
def test_files_that_hold_none_are_told(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    with pytest.raises(CalibrationError, match=message):
        read_calibration(tmp_path / "c.json")


def test_an_encoder_without_a_calibration_is_told_how_to_get_one(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder, label="same")
    for method in (matcher.predict, matcher.predict_proba, matcher.match, matcher.evaluate):
        with pytest.raises(CalibrationError, match=r"'colour' has no calibration.*matcher.calibrate\(pairs\)"):
            method(painted.pairs | {"same": [0, 1] * 12})
    # Told before anything is encoded, which may take minutes.
    assert (encoder.texts_encoded, encoder.images_encoded) == (0, 0)


@pytest.mark.parametrize("spec", ["ViT-B-32/laion2b_s34b_b79k", "fast", "best"])
def test_of_an_encoder_of_the_catalogue_that_is_told_before_it_is_fetched(spec: str, painted: Painted) -> None:
    matcher, labelled = Matcher(encoder=spec, label="same"), painted.pairs | {"same": [0, 1] * 12}
    for method in (matcher.predict, matcher.predict_proba, matcher.match, matcher.evaluate):
        with pytest.raises(CalibrationError, match=r"encoder '.*/.*' has no calibration.*matcher.calibrate\(pairs\)"):
            method(labelled)


def test_shipped_calibrations_say_what_they_were_measured_on() -> None:
    shipped = shipped_calibrations()
    assert set(shipped) == {"lite", "ViT-B-32/openai"}
    for calibration in shipped.values():
        assert {"roc_auc", "accuracy", "ece", "pairs", "source"} <= set(calibration.measured)
        assert calibration.measured["ece"] <= 0.05


def test_a_calibration_is_found_by_weights_under_another_name() -> None:
    shipped = shipped_calibrations()["lite"]
    assert find_calibration("local-dir:copy-of-lite", shipped.fingerprint) == shipped
    with pytest.raises(CalibrationError, match="'lite' has no calibration"):
        find_calibration("lite", "0" * 64)


def test_a_calibration_of_other_weights_is_not_used(matcher: Matcher) -> None:
    with pytest.raises(CalibrationError, match="of encoder 'lite' with other weights than 'colour' has"):
        matcher.use(shipped_calibrations()["lite"])


def test_wrong_pairs_are_wrong_and_the_hard_ones_are_near() -> None:
    rng = np.random.default_rng(0)
    responses = rng.normal(size=(60, 8))
    responses /= np.linalg.norm(responses, axis=1, keepdims=True)
    queries = np.repeat(responses, 2, axis=0)
    pairs = np.stack([np.arange(120), np.arange(120) // 2], axis=1)
    sample = sample_pairs(queries, responses, pairs)
    assert sample.label.tolist() == [1] * 120 + [0] * 240
    wrong = sample.label == 0
    assert not np.any(sample.response[wrong] == sample.query[wrong] // 2)
    true, random, hard = np.split(sample.cosine, 3)
    assert true.min() > 0.999
    assert hard.mean() > random.mean() + 0.3
    hardest = sample_pairs(queries, responses, pairs, Sampling(hard_share=0.01)).cosine[240:]
    assert np.all(hardest >= hard - 1e-12)


def test_the_same_seed_draws_the_same_pairs() -> None:
    vectors = np.eye(30)
    pairs = np.stack([np.arange(30)] * 2, axis=1)
    first, again = (sample_pairs(vectors, vectors, pairs, Sampling(seed=3)) for _ in range(2))
    other = sample_pairs(vectors, vectors, pairs, Sampling(seed=4))
    assert np.array_equal(first.response, again.response)
    assert not np.array_equal(first.response, other.response)


def test_many_pairs_are_thinned() -> None:
    vectors = np.eye(30)
    pairs = np.stack([np.arange(30)] * 2, axis=1)
    assert len(sample_pairs(vectors, vectors, pairs, Sampling(most=7)).label) == 21


@pytest.mark.parametrize("wrong", [{"hard_share": 0}, {"hard_share": 1.5}, {"most": 0}])
def test_sampling_that_draws_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(CalibrationError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_true_pairs_alone_calibrate_a_matcher(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder)
    found = matcher.calibrate(painted.all_pairs)
    assert found.encoder == "colour"
    assert found.fingerprint == encoder.fingerprint
    assert found.measured["matches"] == 72
    assert matcher.predict(painted.pairs).mean() > 0.9


def test_one_pair_calibrates_nothing(painted: Painted, matcher: Matcher) -> None:
    one = {name: cells[:1] for name, cells in painted.pairs.items()}
    with pytest.raises(CalibrationError, match="all 1 distinct responses are true for one query"):
        matcher.calibrate(one)


def test_labelled_pairs_calibrate_as_they_are_labelled(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder, label="same", match_label="yes")
    images = painted.images[12:] + painted.images[:12]
    both = {"caption": painted.captions * 2, "image": painted.images + images, "same": ["yes"] * 24 + ["no"] * 24}
    assert matcher.calibrate(both).measured["matches"] == 24
    called = matcher.predict(both)
    assert called[:24].mean() > 0.8 > 0.5 > called[24:].mean()
    with pytest.raises(CalibrationError, match="all 24 pairs are labelled a match"):
        matcher.calibrate({name: cells[:24] for name, cells in both.items()})
