"""Pairs of any two kinds, with labels or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders import load_encoder
from training import CaptionedImages, FitConfig, PairSet, TrainingError, fit_encoder, fit_pairs
from training.batches import Sampler, pair_pairs


def test_texts_learn_to_find_texts(tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path) -> None:
    left, right = ([texts[side] for texts in examples.captions] for side in (0, 1))
    pairs = PairSet(left=left, right=right, left_kind="text", right_kind="text")
    report = fit_pairs(tiny, pairs, None, tmp_path / "encoder", replace(quick, val_share=0.25))
    assert report.before is not None
    assert report.after is not None
    assert report.after.mean > report.before.mean
    assert report.curve[-1]["loss"] < report.curve[0]["loss"]
    assert report.after.left_to_right == report.after.right_to_left
    # The other tower took no part.
    images = [load_encoder(spec, device="cpu").encode_images(examples.images[:3]) for spec in (tiny, report.encoder)]
    assert np.array_equal(*images)


def test_images_learn_to_find_images(tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path) -> None:
    """Pictures match where their left halves do."""
    names = [Path(str(image)).stem.split("_")[0] for image in examples.images]
    pairs = [(i, j) for i in range(48) for j in range(i) if names[i] == names[j]]
    train = PairSet(
        left=[examples.images[i] for i, _ in pairs],
        right=[examples.images[j] for _, j in pairs],
        left_kind="image",
        right_kind="image",
    )
    report = fit_pairs(tiny, train, None, tmp_path / "encoder", replace(quick, epochs=4, val_share=0.3))
    assert report.after is not None
    assert report.curve[-1]["loss"] < report.curve[0]["loss"]
    assert set(report.after.left_to_right) == {"R@1", "R@5", "R@10"}


def test_labelled_wrong_answers_are_pushed_away(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    """Each text is told which picture it shows, and that its mirror image is another one."""
    places = {Path(str(image)).stem: image for image in examples.images}
    mirrored = {name: places.get("_".join(reversed(name.split("_")))) for name in places}
    asked = [name for name in places if mirrored[name] is not None]
    texts = [f"{name.split('_')[0]} beside {name.split('_')[1]}" for name in asked]
    pairs = PairSet(
        left=texts * 2,
        right=[places[name] for name in asked] + [mirrored[name] for name in asked],
        labels=[1] * len(asked) + [0] * len(asked),
    )
    config = replace(quick, epochs=12, batch_size=8, evaluations=1, interpolate=False)
    report = fit_pairs(tiny, pairs, pairs, tmp_path / "encoder", config)
    assert margin(report.encoder, pairs) > margin(tiny, pairs)


def margin(spec: str, pairs: PairSet) -> float:
    """How much nearer the texts are to their pictures than to the mirrored ones."""
    encoder, half = load_encoder(spec, device="cpu"), len(pairs) // 2
    scores = (encoder.encode_texts(list(pairs.left)) * encoder.encode_images(list(pairs.right))).sum(1)
    return float((scores[:half] - scores[half:]).mean())


def test_examples_without_anything_to_tell_apart_are_refused(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    one = examples.take([0])
    with pytest.raises(TrainingError, match="1 distinct images with partners are too few"):
        fit_encoder(tiny, one, None, tmp_path / "encoder", quick)
    with pytest.raises(TrainingError, match="all training pairs hold one image, so there is nothing to tell apart"):
        fit_encoder(tiny, one, examples, tmp_path / "encoder", quick)
    same = CaptionedImages(examples.images, [["a picture"]] * len(examples))
    with pytest.raises(TrainingError, match="all training pairs hold the text 'a picture', so there is nothing"):
        fit_encoder(tiny, same, None, tmp_path / "encoder", quick)
    crossed = CaptionedImages(examples.images[:4], [["a picture", "an image"]] * 4)
    with pytest.raises(TrainingError, match="the 4 images and 2 texts of the training pairs all match each other"):
        fit_encoder(tiny, crossed, examples, tmp_path / "encoder", quick)
    with pytest.raises(TrainingError, match="all validation pairs hold one image, so there is nothing to tell apart"):
        fit_encoder(tiny, examples, one, tmp_path / "encoder", quick)
    one_family = PairSet(left=["a", "b", "c"], right=["b", "c", "d"], left_kind="text", right_kind="text")
    with pytest.raises(TrainingError, match="the 4 texts of the training pairs all match each other, so there is"):
        fit_pairs(tiny, one_family, one_family, tmp_path / "encoder", quick)
    assert not list(tmp_path.iterdir())


def test_each_step_has_two_items_to_tell_apart() -> None:
    texts = [f"text {number}" for number in range(6)]
    pairing = pair_pairs(PairSet(left=texts[:3], right=texts[3:], left_kind="text", right_kind="text"))
    sampler = Sampler(pairing=pairing, batch_size=2, captions=1, views=0, fresh=False, seed=0)
    assert all(len(batch.left) >= 2 for batch in sampler.epoch(0))
