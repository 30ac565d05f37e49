"""Validation items that are among the training items are counted, and recall is given without them too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders import load_encoder
from evaluation import evaluate_embeddings
from training import CaptionedImages, FitConfig, FitReport, PairSet, fit_encoder
from training.batches import pair_captions, pair_pairs
from training.fit import fit_pairs

TRAIN, VAL = 24, 12


def scenes(folder: Path, name: str, count: int, first_seed: int) -> list[Path]:
    paths = []
    for number in range(count):
        coarse = np.random.default_rng(first_seed + number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        paths.append(folder / f"{name}{number}.png")
        Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[CaptionedImages, CaptionedImages]:
    """Validation image 0 is training image 5 saved again, 1 is 6 itself; a caption of 2 says what training says."""
    folder = tmp_path_factory.mktemp("scenes")
    train, val = scenes(folder, "train", TRAIN, 0), scenes(folder, "val", VAL, 100)
    Image.open(train[5]).resize((120, 90)).save(val[0].with_suffix(".jpg"), quality=80)
    val[0] = val[0].with_suffix(".jpg")
    val[1].write_bytes(train[6].read_bytes())
    captions = [[[f"{path.stem} one", f"two {path.stem}"] for path in paths] for paths in (train, val)]
    captions[1][2][0] = captions[0][0][0].upper() + "!"
    return CaptionedImages(train, captions[0]), CaptionedImages(val, captions[1])


@pytest.fixture(scope="module")
def report(tiny: str, sides: tuple[CaptionedImages, CaptionedImages], quick: FitConfig, tmp_path_factory) -> FitReport:
    return fit_encoder(tiny, *sides, tmp_path_factory.mktemp("run") / "encoder", replace(quick, epochs=1))


def test_leaks_are_counted_and_told(report: FitReport) -> None:
    leaks = report.to_json()["leaks"]
    assert (leaks["left"], leaks["right"]) == ({"count": 2, "of": VAL}, {"count": 1, "of": 2 * VAL})
    told = (
        "2 of 12 images and 1 of 24 texts of validation stand in the training examples too; without them validation R@"
    )
    assert f"leaks   {told}" in report.to_text()
    written = Path(report.encoder.removeprefix("local-dir:")) / "training.json"
    assert json.loads(written.read_text("utf-8"))["leaks"] == leaks


def test_recall_without_them_is_that_of_the_saved_encoder(
    report: FitReport, sides: tuple[CaptionedImages, CaptionedImages]
) -> None:
    assert report.leaks is not None
    assert report.leaks.without is not None
    encoder, val = load_encoder(report.encoder, device="cpu"), sides[1]
    images = encoder.encode_images(list(val.images[2:]))
    texts = [(row, text) for row, texts in enumerate(val.captions[2:]) for text in texts][1:]
    pairs = np.array([(row, number) for number, (row, _) in enumerate(texts)])
    figures = evaluate_embeddings(images, encoder.encode_texts([text for _, text in texts]), pairs)
    for depth, value in report.leaks.without.left_to_right.items():
        assert value == pytest.approx(figures["image_to_text"][depth])
    for depth, value in report.leaks.without.right_to_left.items():
        assert value == pytest.approx(figures["text_to_image"][depth])


def text_pairs(names: list[str]) -> PairSet:
    return PairSet(left=names, right=[f"{name} of {names[0]}" for name in names], right_kind="text")


def test_texts_with_texts_leak_as_well(tiny: str, quick: FitConfig, tmp_path: Path) -> None:
    train, val = (
        text_pairs(names) for names in ([f"a {n}" for n in range(20)], [*[f"c {n}" for n in range(9)], "A 3."])
    )
    report = fit_pairs(tiny, train, val, tmp_path / "encoder", replace(quick, epochs=1))
    leaks = report.to_json()["leaks"]
    assert leaks["left"] == leaks["right"] == {"count": 1, "of": 20}
    assert "1 of 20 texts of validation stand in the training examples too; without them" in report.to_text()


def test_nothing_is_left_where_all_leaks(sides: tuple[CaptionedImages, CaptionedImages]) -> None:
    from training.leaks import Leaks

    val = pair_captions(sides[1])
    everything = np.arange(len(val.left))
    leaks = Leaks(left=everything, right=everything[:0], of=(VAL, 2 * VAL), kinds=("image", "text"))
    assert leaks.kept(val) is None
    assert pair_pairs(text_pairs(["x"])).left.hashes == (None, None)
