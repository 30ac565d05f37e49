from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import Planted, write_planted

from training.hrem.towers.region_features import open_split


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted")
    write_planted(out, Planted(images=(200, 20, 200)))
    return out


def words(folder: Path, split: str) -> list[int]:
    """The concepts that captions name, by number."""
    captions = open_split(folder, split).captions
    return [int(word[1:].split("x")[0]) for caption in captions for word in caption.split() if word[1:2].isdigit()]


def test_planted_data_is_a_folder_of_five_captions_an_image(folder: Path) -> None:
    split = open_split(folder, "test")
    assert (len(split), len(split.captions), split.features.shape) == (200, 1000, (200, 8, 64))


def test_frequent_concepts_rule_in_train_and_all_are_asked_for_in_test(folder: Path) -> None:
    train, test = (np.bincount(words(folder, split), minlength=90) for split in ("train", "test"))
    assert train[:10].sum() > 3 * train[-30:].sum()
    assert 0.5 < test[:45].sum() / test[45:].sum() < 2


def test_wrong_captions_are_moved_not_lost(tmp_path: Path) -> None:
    few = {"images": (50, 5, 5)}
    write_planted(tmp_path / "right", Planted(**few))  # type: ignore[arg-type]
    write_planted(tmp_path / "wrong", Planted(wrong=0.5, **few))  # type: ignore[arg-type]
    right, wrong = (open_split(tmp_path / name, "train").captions for name in ("right", "wrong"))
    assert sorted(right) == sorted(wrong)
    assert 0.3 < np.mean([one != other for one, other in zip(right, wrong, strict=True)]) < 0.6
