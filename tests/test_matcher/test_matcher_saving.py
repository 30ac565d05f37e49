"""A matcher saved and loaded again is the same matcher, and its folder holds nothing that runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matching import Photographs

from encoders import Encoder
from encoders.checkpoints import load_towers, save_local_dir
from matcher import Matcher, MatcherError


@pytest.fixture(scope="module")
def saved(lite: Encoder, photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    matcher = Matcher(encoder=lite, label="match", match_label="yes")
    matcher.calibrate(photographs.pairs)
    return matcher.save(tmp_path_factory.mktemp("saving") / "matcher")


@pytest.fixture
def few(photographs: Photographs) -> dict[str, list[Any]]:
    return {name: cells[:6] for name, cells in photographs.pairs.items()}


def test_what_was_declared_and_fitted_comes_back(saved: Path, lite: Encoder, photographs: Photographs) -> None:
    pairs = {name: cells[:6] for name, cells in photographs.pairs.items()}
    matcher = Matcher.load(saved, device="cpu")
    assert (matcher.roles.label, matcher.roles.match_label) == ("match", "yes")
    assert matcher.spec == "lite"
    assert matcher.calibration.measured["matches"] == 200
    before = Matcher(encoder=lite, calibration=matcher.calibration)
    assert np.array_equal(matcher.predict_proba(pairs), before.predict_proba(pairs))
    assert np.array_equal(matcher.predict(pairs), before.predict(pairs))


def test_the_folder_holds_json_and_no_weights_of_a_named_encoder(saved: Path) -> None:
    assert [path.name for path in saved.iterdir()] == ["matcher.json"]
    value = json.loads((saved / "matcher.json").read_text(encoding="utf-8"))
    assert value["encoder"] == "lite"
    assert len(value["fingerprint"]) == 64


def test_a_local_encoder_goes_with_its_matcher(few: dict[str, list[Any]], tmp_path: Path) -> None:
    save_local_dir(load_towers("lite"), tmp_path / "weights")
    matcher = Matcher(encoder=f"local-dir:{tmp_path / 'weights'}", device="cpu")
    wanted = matcher.match(few).cosine
    matcher.save(tmp_path / "matcher")
    shutil.rmtree(tmp_path / "weights")
    shutil.move(tmp_path / "matcher", tmp_path / "moved")
    moved = Matcher.load(tmp_path / "moved", device="cpu")
    assert np.array_equal(moved.match(few).cosine, wanted)
    assert {path.suffix for path in (tmp_path / "moved").rglob("*.*")} <= {".json", ".safetensors", ".txt"}


def test_a_standalone_matcher_brings_named_weights(few: dict[str, list[Any]], lite: Encoder, tmp_path: Path) -> None:
    matcher = Matcher(encoder=lite)
    path = matcher.save(tmp_path / "matcher", standalone=True)
    loaded = Matcher.load(path, device="cpu")
    assert loaded.spec.startswith("local-dir:")
    assert np.array_equal(loaded.match(few).probability, matcher.match(few).probability)


def test_a_folder_in_use_is_not_written_to(saved: Path, lite: Encoder) -> None:
    with pytest.raises(MatcherError, match="exists and is not empty; give a new folder"):
        Matcher(encoder=lite).save(saved)


def test_nothing_is_left_behind_where_saving_fails(lite: Encoder, tmp_path: Path) -> None:
    matcher = Matcher(encoder=lite, label="x", match_label={1})
    with pytest.raises(MatcherError, match="cannot be saved"):
        matcher.save(tmp_path / "matcher")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value | {"format": 99}, "has format 99; this release reads format 1"),
        (lambda value: {name: value[name] for name in value if name != "roles"}, "lacks something|is damaged"),
        (lambda value: [value], "is damaged"),
        (lambda value: value | {"fingerprint": "0" * 64}, "was saved with other weights"),
        (lambda value: value | {"calibration": {}}, "holds no calibration"),
    ],
)
def test_damaged_matchers_are_refused(change: Any, message: str, saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    value = json.loads((copy / "matcher.json").read_text(encoding="utf-8"))
    (copy / "matcher.json").write_text(json.dumps(change(value)), encoding="utf-8")
    with pytest.raises(Exception, match=message) as caught:
        Matcher.load(copy, device="cpu")
    assert isinstance(caught.value, MatcherError)


def test_a_folder_without_a_matcher_is_told(tmp_path: Path) -> None:
    with pytest.raises(MatcherError, match=r"it has no matcher\.json; give a folder that save\(\) wrote"):
        Matcher.load(tmp_path)
