"""Fine-tuning through a matcher: captions, pairs of one kind, labels; split by content, calibrated afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour import ColourEncoder
from matching import Painted, Photographs

from encoders import Encoder, load_encoder
from matcher import DataError, Matcher, MatcherError
from matcher.embed import CellEncoder
from matcher.fitting import TimeLimit, contents_of, encoded_within, one_image_a_row, split_pairs
from matcher.pairs import Reader, read_pairs
from matcher.tables import Roles
from storage.errors import TwinlensError

QUICK = {"mode": "head", "epochs": 2, "batch_size": 16, "views": 0, "soup": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def fitted(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    out = tmp_path_factory.mktemp("fit") / "tuned"
    return Matcher(encoder="lite", device="cpu").fit(photographs.pairs, time_limit=60, out=out, config=QUICK)


def test_a_fitted_matcher_uses_its_new_encoder(fitted: Matcher, lite: Encoder) -> None:
    assert fitted.spec.startswith("local-dir:")
    assert fitted.encoder.dim == lite.dim
    assert load_encoder(fitted.spec, device="cpu").fingerprint == fitted.encoder.fingerprint


def test_the_summary_says_what_happened(fitted: Matcher) -> None:
    summary = fitted.fit_summary
    assert {"before", "after", "stopped_by", "seconds", "calibration", "out"} <= set(summary)
    assert summary["after"]["mean"] >= summary["before"]["mean"]


def test_a_fitted_matcher_is_calibrated_and_leaves_that_beside_the_weights(
    fitted: Matcher, photographs: Photographs
) -> None:
    few = {name: cells[:4] for name, cells in photographs.pairs.items()}
    again = Matcher(encoder=fitted.spec, device="cpu")
    assert again.calibration == fitted.calibration
    assert np.array_equal(again.predict_proba(few), fitted.predict_proba(few))


def test_fitting_goes_on_after_save_and_load(fitted: Matcher, photographs: Photographs, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    loaded = Matcher.load(tmp_path / "saved", device="cpu")
    assert loaded.fit_summary["out"] == fitted.fit_summary["out"]
    before = loaded.encoder.fingerprint
    loaded.fit(photographs.pairs, out=tmp_path / "more", config=QUICK | {"seed": 1})
    assert loaded.spec == f"local-dir:{(tmp_path / 'more').resolve()}"
    assert fitted.encoder.fingerprint == before


def test_no_time_at_all_still_leaves_an_encoder(photographs: Photographs, tmp_path: Path, lite: Encoder) -> None:
    pairs = {name: cells[:60] for name, cells in photographs.pairs.items()}
    matcher = Matcher(encoder="lite", device="cpu").fit(pairs, time_limit=0, out=tmp_path / "tuned", config=QUICK)
    texts = photographs.captions[0]
    assert matcher.encoder.encode_texts(texts) == pytest.approx(lite.encode_texts(texts), abs=1e-5)


def test_a_limit_that_is_over_before_anything_is_trained_is_a_warning(photographs: Photographs, tmp_path: Path) -> None:
    pairs = {name: cells[:60] for name, cells in photographs.pairs.items()}
    with pytest.warns(
        UserWarning, match=r"nothing was trained: the time limit of 0\.01 s was over before that; raise it"
    ):
        fitted = Matcher(encoder="lite", device="cpu").fit(pairs, time_limit=0.01, out=tmp_path / "tuned", config=QUICK)
    assert (fitted.fit_summary["stopped_by"], fitted.fit_summary["curve"]) == ("time_limit", [])


def test_as_many_pairs_calibrate_as_there_is_time_for(painted: Painted) -> None:
    pairs = read_pairs(painted.all_pairs, Roles())
    reader = Reader(Roles(), CellEncoder(ColourEncoder()))
    assert [len(encoded_within(TimeLimit(limit), reader, pairs)) for limit in (None, 1000.0, 1e-9)] == [72, 72, 64]


def test_pairs_of_texts_and_labelled_pairs_can_be_learned_from(photographs: Photographs, tmp_path: Path) -> None:
    first = [texts[0] for texts in photographs.captions]
    second = [texts[1] for texts in photographs.captions]
    data = {"a": first * 2, "b": second + second[1:] + second[:1], "same": ["yes"] * 40 + ["no"] * 40}
    matcher = Matcher("a", "b", "lite", query_type="text", response_type="text", label="same", match_label="yes")
    matcher.fit(data, val=data, out=tmp_path / "tuned", config=QUICK)
    assert matcher.evaluate(data)["roc_auc"] > 0.9


def test_no_picture_and_no_caption_lies_on_both_sides_of_the_split(photographs: Photographs) -> None:
    pairs = read_pairs(photographs.pairs, Roles())
    train, val = split_pairs(pairs, 0.2, seed=0)
    assert len(train) + len(val) == 200
    assert len(val) == 40
    for side in ("query", "response"):
        assert not set(train.keys[side]) & set(val.keys[side])


def test_two_photographs_are_held_back_where_the_share_asks_for_less() -> None:
    pairs = read_pairs({"caption": [*"abcdef"], "image": [*"ABCDEF"]}, Roles())
    assert [len(part) for part in split_pairs(pairs, 0.1, seed=0)] == [4, 2]


def test_several_images_and_captions_in_a_cell_are_pairs_of_their_own(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.jpg").touch()
    data = {"caption": [["x", "y"], "z", "w"], "image": ["a.jpg; b.jpg", "b.jpg", ["c.jpg", "d.jpg"]]}
    pairs = one_image_a_row(read_pairs(data, Roles(root=tmp_path), several=True))
    rows = [(str(text), path.stem) for text, path in zip(pairs.query.cells, contents_of(pairs.response), strict=True)]
    assert rows == [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b"), ("z", "b"), ("w", "c"), ("w", "d")]
    for seed in range(8):
        train, val = split_pairs(pairs, 0.3, seed)
        assert {len(train), len(val)} == {5, 2}
    both = {"left": ["a.jpg;b.jpg"], "right": ["c.jpg;d.jpg"]}
    roles = Roles(query="left", response="right", query_type="image", response_type="image", root=tmp_path)
    assert len(one_image_a_row(read_pairs(both, roles))) == 4


def test_photographs_with_a_caption_in_common_stay_together() -> None:
    data = {"caption": ["x", "y", "y", "z", "w"], "image": ["A", "A", "B", "C", "D"]}
    for seed in range(8):
        _, val = split_pairs(read_pairs(data, Roles()), 0.34, seed=seed)
        held = set(val.keys["response"])
        assert not held & {"A", "B"} or {"A", "B"} <= held


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"caption": ["a dog"], "image": ["x.jpg"]}, "all 1 pairs hang together"),
        ({"caption": ["a", "b"], "image": ["x.jpg", "x.jpg"]}, "all 2 pairs hang together"),
        ({"caption": ["a", ""], "image": ["x.jpg", "y.jpg"]}, "1 rows of column 'caption' cannot be trained on: row 0"),
        ({"caption": ["a", "b"], "image": ["x.jpg", "y.jpg"]}, "images cannot be read"),
    ],
)
def test_pairs_that_nothing_can_be_learned_from(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TwinlensError) as caught:
        Matcher(encoder="lite").fit(data, out=tmp_path / "tuned")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_unknown_settings_are_named(photographs: Photographs, tmp_path: Path) -> None:
    with pytest.raises(MatcherError, match=r"config cannot be used: .*'speed'"):
        Matcher(encoder="lite").fit(photographs.pairs, out=tmp_path / "x", config={"speed": 3})


def test_equal_labels_teach_nothing(photographs: Photographs, tmp_path: Path) -> None:
    data = photographs.pairs | {"same": [0] * 200}
    with pytest.raises(TwinlensError) as caught:
        Matcher(encoder="lite", label="same").fit(data, out=tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DataError | TwinlensError)
