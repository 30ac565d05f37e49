"""The command `evaluate`: what it prints, what it draws, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from paired_index import build_paired, captioned
from PIL import Image

from storage.errors import TwinlensError
from twinlens.commands.evaluate import evaluate


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images with five captions each, in two splits."""
    images, texts, pairs = captioned(30, 5)
    names = ["test"] * 12 + ["val"] * 18
    return build_paired(tmp_path_factory.mktemp("flat"), images, texts, pairs, (names, list(np.repeat(names, 5))))


@pytest.fixture(scope="session")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images with two captions each behind an approximate index."""
    images, texts, pairs = captioned(300, 2)
    return build_paired(tmp_path_factory.mktemp("probed"), images, texts, pairs, ann="ivf-pq4", min_ann_recall=0)


def run(index: Path, *arguments: object) -> str:
    done = CliRunner().invoke(
        evaluate, [str(index), *map(str, arguments)], catch_exceptions=False, standalone_mode=False
    )
    if done.exception is not None:
        raise done.exception
    return done.stdout


def as_json(index: Path, *arguments: object) -> dict[str, Any]:
    return json.loads(run(index, *arguments, "--output", "json"))


def row(text: str, name: str) -> list[str]:
    """The cells of the first line that begins so."""
    return next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name).split()


def test_json_has_the_promised_keys(flat: Path) -> None:
    found = as_json(flat)
    assert found["protocol"]["name"] == "twinlens"
    assert {"R@1", "R@5", "R@10", "recall@1", "medR", "meanR", "map@R"} <= set(found["text_to_image"])
    assert found["text_to_image"].keys() == found["image_to_text"].keys()
    assert found["ann_recall@10"] == {"text_to_image": 1.0, "image_to_text": 1.0}
    assert 0 < found["rsum"] <= 600
    assert "published" not in found


def test_text_begins_with_the_protocol_and_gives_percentages(flat: Path) -> None:
    text, found = run(flat), as_json(flat)
    assert text.startswith("Protocol twinlens, all items: 30 images and 150 texts; 5 captions an image;")
    shown = [f"{100 * found[direction]['R@1']:.1f}" for direction in ("text_to_image", "image_to_text")]
    assert row(text, "R@1 ") == shown
    assert row(text, "queries") == ["150", "30"]
    assert f"rsum {found['rsum']:.1f}" in text
    assert "Searches of this index give the exact figures: a flat index compares every vector." in text


def test_text_shows_exact_and_approximate_side_by_side(probed: Path) -> None:
    text = run(probed, "--k", "1,10")
    assert "exact  approximate  exact  approximate" in text
    assert len(row(text, "R@10")) == 4
    assert "R@5" not in text
    assert row(text, "Text to image through the index:")[0] == "ivf-pq4,"
    assert "nprobe  oversample" in text
    assert any(line.split()[0] == "exact" and line.endswith("1.000") for line in text.splitlines() if line.strip())


def test_columns_are_aligned(probed: Path) -> None:
    lines = run(probed).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("R@1 "))
    assert len({len(line) for line in lines[start : start + 6]}) == 1


def test_exact_leaves_the_index_out(probed: Path) -> None:
    text = run(probed, "--exact")
    assert "through the index" not in text
    assert as_json(probed, "--exact")["ann_recall@10"] is None


def test_a_split_and_intervals_can_be_asked_for(flat: Path) -> None:
    text = run(flat, "--split", "test", "--bootstrap")
    assert "split test: 12 images and 60 texts" in text
    assert "in brackets the interval of the mean" in text
    assert "[" in " ".join(row(text, "R@1 "))


def test_folds_are_told_in_the_protocol(flat: Path) -> None:
    text = run(flat, "--folds", 3, "--protocol", "eccv", "--k", 1)
    assert "the mean of 3 contiguous folds of the images" in text
    assert "Folds are galleries of their own, smaller than the index, so they are searched exactly." in text
    assert len(row(text, "coco_1k_r1 ")) == len(row(text, "coco_5k_r1 ")) == 2


def test_a_hub_correction_is_told_apart_from_plain_figures(flat: Path) -> None:
    text = run(flat, "--split", "test", "--hub-correction", "val")
    assert "Hub correction (nearest-neighbour normalisation) from split val, not part of the figures above;" in text
    assert "plain  corrected  plain  corrected" in text
    found = as_json(flat, "--split", "test", "--hub-correction", "val")["hub_corrected"]
    assert set(found["hub_correction"]["images"]) == {"k", "alpha"}


@pytest.mark.parametrize(
    ("name", "line", "cells"),
    [
        ("automm", "recall@1", 2),
        ("clip-benchmark", "text_retrieval_recall@5", 1),
        ("vse", "medri", 1),
        ("eccv", "eccv_map_at_r", 2),
    ],
)
def test_other_tools_print_their_own_keys(flat: Path, name: str, line: str, cells: int) -> None:
    text = run(flat, "--protocol", name)
    assert f"Keys and scale of {name}." in text
    assert len(row(text, line)) == cells
    assert "R@1 " not in text
    assert as_json(flat, "--protocol", name)["figures"]


def test_other_tools_keys_stand_beside_what_searches_found(probed: Path) -> None:
    assert len(row(run(probed, "--protocol", "clip-benchmark"), "image_retrieval_recall@1 ")) == 2
    assert len(row(run(probed, "--protocol", "automm"), "mrr@1 ")) == 4


def test_published_rows_stand_beside_with_their_source(flat: Path) -> None:
    text = run(flat, "--dataset", "flickr30k")
    assert "Published, flickr30k, percent ([S] seen in its authors' document" in text
    assert row(text, "this index, exact")[0] == row(text, "R@1 ")[0]
    assert row(text, "ViT-B-32 openai")[:4] == ["zero-shot", "58.8", "83.6", "90.0"]
    found = as_json(flat, "--dataset", "coco-1k")
    assert found["published"]["dataset"] == "coco-1k"
    assert any(one["model"] == "HREM, BERT" for one in found["published"]["rows"])


def test_a_data_set_of_which_nothing_is_known_says_so(flat: Path) -> None:
    assert "No published figures of flickr8k with a source are known" in run(flat, "--dataset", "flickr8k")


def test_a_plot_is_written(probed: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run(probed, "--plot", tmp_path / "recall.png", "--dataset", "flickr30k")
    with Image.open(tmp_path / "recall.png") as image:
        assert (image.format, image.width) == ("PNG", 1800)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "dev"], r"no split 'dev'; their splits: test \(12\), val \(18\)"),
        (["--k", "1,31"], "k=31 is above the 30 images in .*; give smaller values of k"),
        (["--k", "0"], "'0' are no depths; give whole numbers from 1 on, such as 1,5,10"),
        (["--k", "1,five"], "'1,five' are no depths"),
        (["--k", ""], "'' are no depths"),
        (["--folds", "0"], "folds=0 is no number of folds"),
        (["--protocol", "trec"], "'trec' is not one of 'twinlens', 'automm', 'clip-benchmark', 'vse', 'eccv'"),
        (["--dataset", "imagenet"], "'imagenet' is not one of 'flickr30k'"),
        (["--plot", "no/such/recall.png"], "there is no folder 'no/such'; make it first"),
        (["--plot", "recall.pdf"], "the plot 'recall.pdf' would be no PNG; name a file that ends in .png"),
        (["--version", "7"], "has no version 7"),
        (["--hub-correction", "val"], "measure one split and correct from another"),
    ],
)
def test_a_mistake_is_one_clear_line(flat: Path, arguments: list[str], message: str) -> None:
    with pytest.raises((TwinlensError, click.UsageError), match=message) as caught:
        run(flat, *arguments)
    assert "\n" not in str(caught.value)


def test_as_a_program_a_mistake_ends_with_one_and_no_traceback(home: Path, flat: Path) -> None:
    code = "from twinlens.console import run; from twinlens.commands.evaluate import evaluate; run(evaluate)"
    command = [sys.executable, "-c", code, str(flat), "--split", "dev"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: the images of ")
    assert len(done.stderr.splitlines()) == 1


def test_no_encoder_and_no_torch_are_needed(home: Path, flat: Path) -> None:
    code = (
        "import sys; from searcher import evaluate_index; evaluate_index(sys.argv[1]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(flat)], cwd=home, check=False).returncode == 0
