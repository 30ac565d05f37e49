"""What the measured split shares with another one is counted beside the recall, which is given without it too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder
from PIL import Image

from evaluation import evaluate_embeddings
from indexer import build_index
from searcher import EvaluateOptions, evaluate_index
from storage import IndexStore
from storage.duplicates.texts import normalized, repeated
from twinlens.commands.evaluate import evaluate

TEST, TRAIN, DEV = 12, 20, 4


def scene(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In `test` image 0 is one of `train` saved again, 1 the same file as one of `dev`, and two captions are theirs."""
    folder = tmp_path_factory.mktemp("leaks")
    rows: list[dict[str, Any]] = []
    for split, count in (("test", TEST), ("train", TRAIN), ("dev", DEV)):
        for number in range(count):
            name = f"{split}{number}.png"
            scene(len(rows)).save(folder / name)
            colour = ("red", "green", "blue", "yellow")[number % 4]
            captions = [f"a {colour} thing of {name}", f"{name}, {colour}"]
            rows.append({"image": name, "captions": captions, "split": split})
    scene(TEST + 5).resize((120, 90)).save(folder / "test0.png")
    (folder / "test1.png").write_bytes((folder / "dev2.png").read_bytes())
    rows[2]["captions"][0] = "A green   thing of train0.png!"
    rows[TEST]["captions"][0] = "a green thing of train0.png"
    rows[3]["captions"][1] = rows[0]["captions"][0].upper()
    (folder / "c.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    build_index(folder / "c.jsonl", folder / "it.index", encoder=ColourEncoder())
    return folder / "it.index"


def test_images_and_texts_of_other_splits_are_counted_with_their_splits(index: Path) -> None:
    leaks = evaluate_index(index, EvaluateOptions(split="test", exact=True))["leaks"]
    assert leaks.keys() == {"images", "texts", "hashed", "without"}
    assert {key: leaks["images"][key] for key in ("count", "of", "splits")} == {
        "count": 2,
        "of": TEST,
        "splits": {"dev": 1, "train": 1},
    }
    pairs = [(one["item_id"], one["duplicate"]) for one in leaks["images"]["examples"]]
    assert pairs == [("test0.png", "train5.png"), ("test1.png", "dev2.png")]
    assert {key: leaks["texts"][key] for key in ("count", "of", "splits")} == {
        "count": 1,
        "of": 2 * TEST,
        "splits": {"train": 1},
    }
    assert leaks["hashed"] == TEST


def test_recall_without_them_is_that_of_what_is_left(index: Path) -> None:
    without = evaluate_index(index, EvaluateOptions(split="test", exact=True))["leaks"]["without"]
    assert (without["images"], without["texts"]) == (TEST - 2, 2 * TEST - 4 - 1)
    with IndexStore.open(index).open_version() as version:
        images = version.vectors("images").gather(np.arange(2, TEST)).astype(np.float32)
        rows = [row for row in range(4, 2 * TEST) if row != 4]
        texts = version.vectors("texts").gather(np.array(rows)).astype(np.float32)
    pairs = np.array([(row // 2 - 2, position) for position, row in enumerate(rows)])
    assert without.items() >= evaluate_embeddings(images, texts, pairs).items()


def test_the_command_says_so_beside_the_recall(index: Path) -> None:
    text = CliRunner().invoke(evaluate, [str(index), "--split", "test", "--exact"]).stdout
    told = f"2 of {TEST} images (dev 1, train 1) and 1 of {2 * TEST} texts (train 1) stand in another split too."
    assert f"Leaks: of split test, {told}" in text
    assert f"Without them, {TEST - 2} images and {2 * TEST - 5} texts" in text


def test_all_of_an_index_has_no_leaks_and_folds_are_not_measured_again(index: Path) -> None:
    assert evaluate_index(index, EvaluateOptions(exact=True))["leaks"] is None
    folded = evaluate_index(index, EvaluateOptions(split="test", exact=True, k=(1,), folds=2))
    assert folded["leaks"]["without"] is None
    assert "Leaks" not in CliRunner().invoke(evaluate, [str(index), "--exact"]).stdout


def test_texts_are_the_same_whatever_their_case_and_punctuation() -> None:
    assert normalized("  A dog,\tin the SNOW. ") == normalized("a dog in the snow") == "a dog in the snow"
    assert normalized("Straße") == normalized("STRASSE")
    assert normalized("!") == "!"
    assert repeated(["a dog", "a cat"], ["A dog.", "a bird"]) == [0]
