from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hrem import anchors, published_figure
from hrem_compare import compared, difference
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


def test_variants_are_compared_seed_by_seed() -> None:
    found = {one.name: one.measured for one in compared({"b": [200.0, 210.0, 220.0], "c": [203.0, 211.0, 222.0]})}
    assert found["(b) with fragment relation: rsum"] == "210.0 +- 10.0 (200.0, 210.0, 220.0)"
    # The seeds differ by 10, the variants within a seed by 1.
    expected = "+2.0 +- 1.0 (standard error 0.6; above 0 in 3 of 3: +3.0, +1.0, +2.0)"
    assert found["(c) minus (b), seed by seed"] == expected


def test_a_difference_of_one_seed_has_no_spread() -> None:
    assert difference([200.0], [203.0]) == "+3.0"
    assert difference([], []) == "not measured"


@pytest.mark.parametrize(
    ("dataset", "sums", "encoder"),
    [
        ("flickr30k", {"HREM, BERT": 520.4, "IMEB, BERT": 524.1, "MEET, BERT": 533.4}, "ViT-B-16-SigLIP/webli"),
        ("coco-5k", {"HREM, BERT": 444.1, "IMEB, BERT": 447.6, "MEET, BERT": 455.5}, "ViT-B-32-SigLIP2-256/webli"),
    ],
)
def test_published_anchors_stand_beside_a_run(dataset: str, sums: dict[str, float], encoder: str) -> None:
    rows = anchors(dataset)
    told = {row.model: published_figure(row).measured for row in rows}
    assert {model: told[model].partition("rsum ")[2] for model in sums} == {
        name: str(one) for name, one in sums.items()
    }
    assert encoder in {row.encoder for row in rows}
