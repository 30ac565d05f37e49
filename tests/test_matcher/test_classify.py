"""Zero-shot classification: candidates on either side, templates, the scale."""

from __future__ import annotations

import numpy as np
import pytest
from colour import COLOURS, ColourEncoder
from matching import Painted

from encoders import Encoder
from matcher import DataError, Matcher

NAMES = list(COLOURS)


def test_pictures_find_their_names_and_each_line_sums_to_one(painted: Painted, matcher: Matcher) -> None:
    found = matcher.classify(painted.images, NAMES)
    assert found.shape == (24, 8)
    assert found.sum(axis=1) == pytest.approx(np.ones(24), abs=1e-6)
    assert [NAMES[best] for best in found.argmax(axis=1)] == painted.colours


def test_texts_find_their_pictures(painted: Painted, matcher: Matcher) -> None:
    best = matcher.classify({"caption": painted.captions}, {"image": painted.images[::3]}).argmax(axis=1)
    assert best.tolist() == np.repeat(np.arange(8), 3).tolist()


def test_predict_with_candidates_is_the_best_of_them(painted: Painted, matcher: Matcher) -> None:
    data = {"image": painted.images}
    probabilities = matcher.predict_proba(data, candidates=NAMES)
    assert np.array_equal(probabilities, matcher.classify(data, NAMES))
    assert np.array_equal(matcher.predict(data, candidates=NAMES), probabilities.argmax(axis=1))


def test_the_scale_is_a_hundred_where_the_encoder_knows_none(painted: Painted, matcher: Matcher) -> None:
    cosines = matcher.similarity(NAMES, painted.images).T
    powers = np.exp(100 * cosines - 100 * cosines.max(axis=1, keepdims=True))
    assert matcher.classify(painted.images, NAMES) == pytest.approx(
        powers / powers.sum(axis=1, keepdims=True), abs=1e-4
    )
    assert matcher.classify(painted.images, NAMES, scale=1).max() < 0.5


def test_the_scale_that_an_encoder_learned_is_used(painted: Painted, encoder: ColourEncoder) -> None:
    encoder.logit_scale = 3.0  # type: ignore[attr-defined]
    matcher = Matcher(encoder=encoder)
    assert np.array_equal(matcher.classify(painted.images, NAMES), matcher.classify(painted.images, NAMES, scale=3.0))


def test_a_candidate_is_the_mean_over_its_prompts(painted: Painted, matcher: Matcher) -> None:
    templates = ["a photo of a {}.", "{} square", "all of it is {}"]
    prompts = [[template.replace("{}", name) for template in templates] for name in NAMES]
    means = np.stack([matcher.extract_embedding(line, signature="query").mean(axis=0) for line in prompts])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    pictures = matcher.embed_images(painted.images)
    logits = np.exp(10 * (pictures @ means.T))
    wanted = logits / logits.sum(axis=1, keepdims=True)
    assert matcher.classify(painted.images, NAMES, templates=templates, scale=10) == pytest.approx(wanted, abs=1e-5)


def test_braces_in_a_name_stay_as_they_are(painted: Painted, matcher: Matcher) -> None:
    assert matcher.classify(painted.images[:1], ["{0}", "red"], templates=["a {}"]).argmax() == 1


@pytest.mark.parametrize(
    ("candidates", "templates", "message"),
    [
        (["red"], ["a photo"], "template 'a photo' has no {} where the candidate goes"),
        (["red", 3], ["a {}"], "candidate 3 is no text"),
        ([], [], "is empty"),
        ("red", [], "is no table; expected one of"),
        ({"name": ["red"]}, [], "the data has no column 'caption'"),
    ],
)
def test_candidates_that_cannot_be_used(
    candidates: object, templates: list[str], message: str, painted: Painted, matcher: Matcher
) -> None:
    with pytest.raises(DataError) as caught:
        matcher.classify(painted.images, candidates, templates=templates)
    assert message in str(caught.value)


def test_a_table_with_both_columns_needs_a_signature(painted: Painted, matcher: Matcher) -> None:
    with pytest.raises(DataError, match="the data has both columns"):
        matcher.classify(painted.pairs, NAMES)
    assert matcher.classify(painted.pairs, NAMES, signature="response").shape == (24, 8)


def test_templates_are_for_texts(painted: Painted, matcher: Matcher) -> None:
    with pytest.raises(DataError, match="templates are for texts"):
        matcher.classify({"caption": ["red"]}, painted.images, templates=["a {}"])


def test_lite_has_a_scale_of_its_own(lite: Encoder, painted: Painted) -> None:
    assert getattr(lite, "logit_scale", None) == 20
    matcher = Matcher(encoder=lite)
    assert np.array_equal(matcher.classify(painted.images, NAMES), matcher.classify(painted.images, NAMES, scale=20))
