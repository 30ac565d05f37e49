"""The picture of an evaluation: size, colours, bars where the figures are, and what cannot be drawn."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paired_index import build_paired, captioned
from PIL import Image

from evaluation.published import PublishedRow, published_rows
from searcher import EvaluateOptions, evaluate_index
from searcher.errors import EvaluationError
from searcher.evaluation.recall_plot import check_plot, save_recall_plot

pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")

EXACT, APPROXIMATE, PUBLISHED, CHOSEN = "#0072B2", "#E69F00", "#009E73", "#69727f"


@pytest.fixture(scope="session")
def flat_result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    images, texts, pairs = captioned(30, 5)
    return evaluate_index(build_paired(tmp_path_factory.mktemp("drawn"), images, texts, pairs))


@pytest.fixture(scope="session")
def probed_result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    images, texts, pairs = captioned(300, 2)
    folder = tmp_path_factory.mktemp("drawn")
    return evaluate_index(build_paired(folder, images, texts, pairs, ann="ivf-pq4", min_ann_recall=0))


def drawn(path: Path, result: dict[str, Any], rows: list[PublishedRow] | None = None) -> np.ndarray:
    save_recall_plot(path, result, rows or [])
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def share(pixels: np.ndarray, colour: str) -> float:
    """Which part of the picture has about this colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return float((np.abs(pixels - wanted).max(axis=2) <= 6).mean())


def test_bars_of_exact_and_approximate_search_are_drawn(probed_result: Any, tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png", probed_result)
    assert pixels.shape[1] == 1800
    assert share(pixels, EXACT) > 0.02
    assert share(pixels, APPROXIMATE) > 0.02
    assert share(pixels, PUBLISHED) < 0.01


def test_published_rows_get_bars_of_their_own(probed_result: Any, tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png", probed_result, published_rows("flickr30k"))
    assert share(pixels, PUBLISHED) > 0.01
    assert share(pixels, "#CC79A7") > 0.01


def test_bars_are_as_high_as_their_figures(flat_result: Any, tmp_path: Path) -> None:
    low = {**flat_result, **{name: {"R@1": 0.1, "R@5": 0.1} for name in ("text_to_image", "image_to_text")}}
    high = {**low, **{name: {"R@1": 0.9, "R@5": 0.9} for name in ("text_to_image", "image_to_text")}}
    shares = []
    for name, result in (("low", low), ("high", high)):
        result.pop("ann", None)
        shares.append(share(drawn(tmp_path / f"{name}.png", result), EXACT))
    assert shares[1] / shares[0] == pytest.approx(9, rel=0.15)


def test_a_flat_index_has_one_point_and_no_second_bar(flat_result: Any, tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png", flat_result)
    assert pixels.shape[1] == 1800
    assert share(pixels, EXACT) > 0.02
    assert share(pixels[:, :850], APPROXIMATE) < 0.0005


def test_without_searches_the_bars_stand_alone(flat_result: Any, tmp_path: Path) -> None:
    result = {name: value for name, value in flat_result.items() if name != "ann"}
    assert drawn(tmp_path / "a.png", result, published_rows("coco-1k")).shape[1] == 1200


def test_odd_depths_and_odd_names_are_drawn_as_they_stand(tmp_path: Path) -> None:
    images, texts, pairs = captioned(30, 1)
    names = ["$x^2$ 測試"] * 30
    path = build_paired(tmp_path, images, texts, pairs, (names, names))
    options = EvaluateOptions(k=(2, 20, 30), split=names[0])
    assert drawn(tmp_path / "a.png", evaluate_index(path, options), published_rows("flickr30k")).shape[1] == 1800


def test_only_depths_beyond_the_operating_points_leave_their_recall(tmp_path: Path) -> None:
    images, texts, pairs = captioned(300, 2)
    path = build_paired(tmp_path, images, texts, pairs, ann="ivf-pq4", min_ann_recall=0)
    result = evaluate_index(path, EvaluateOptions(k=(50,)))
    assert set(result["ann"]["text_to_image"]["operating_points"][0]) >= {"ann_recall@10", "ms_per_query"}
    assert drawn(tmp_path / "a.png", result).shape[1] == 1800


def test_an_existing_picture_is_replaced(flat_result: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    assert drawn(tmp_path / "a.png", flat_result).size


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a.jpg", "would be no PNG; name a file that ends in .png"),
        ("plot", "would be no PNG"),
        ("no/a.png", "there is no folder .*; make it first"),
    ],
)
def test_a_path_that_will_not_do_is_refused_before_the_work(tmp_path: Path, name: str, match: str) -> None:
    with pytest.raises(EvaluationError, match=match):
        check_plot(tmp_path / name)


def test_a_folder_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(EvaluationError, match="it is a folder or write-protected; name another file"):
        check_plot(tmp_path / "a.png")


def test_a_write_protected_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(EvaluationError, match="write-protected"):
        check_plot(tmp_path / "a.png")


def test_a_full_disk_is_one_line(flat_result: Any, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    (tmp_path / "a.png").symlink_to("/dev/full")
    with pytest.raises(EvaluationError, match=r"cannot write .*: No space left on device; name another file"):
        save_recall_plot(tmp_path / "a.png", flat_result)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EvaluationError, match=r'pip install "\.\[cpu,plot\]"'):
        check_plot(tmp_path / "a.png")
