"""Several indexes side by side: the same queries whatever their order, or a clear word on what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from paired_index import build_paired, captioned, unit

from indexer import EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from searcher.errors import EvaluationError
from searcher.evaluation.evaluate_index import EvaluateOptions, evaluate_index
from searcher.evaluation.side_by_side import SideBySideOptions, evaluate_side_by_side
from twinlens.commands.evaluate import evaluate

IMAGES, CAPTIONS = 40, 2
SPLITS = (["test"] * 20 + ["val"] * 20, list(np.repeat(["test"] * 20 + ["val"] * 20, CAPTIONS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good` and `blurred` hold the same items, of which `blurred` knows less; `fewer` lacks the last pair."""
    folder = tmp_path_factory.mktemp("side")
    images, texts, pairs = captioned(IMAGES, CAPTIONS, noise=0.8)
    noise = np.random.default_rng(3).standard_normal(texts.shape)
    build_paired(folder / "good", images, texts, pairs, SPLITS)
    build_paired(folder / "blurred", images[:, ::-1], unit(texts + 0.35 * noise)[:, ::-1], pairs, SPLITS)
    build_paired(folder / "fewer", images, texts, pairs[:-1], SPLITS)
    build_paired(folder / "other", images[:-1], texts[:-2], pairs[:-2])
    return folder


def at(folder: Path, *names: str) -> list[Path]:
    return [folder / name / "it.index" for name in names]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments], standalone_mode=False)


def test_figures_are_those_of_each_index_alone_and_the_worse_one_is_behind(folder: Path) -> None:
    paths = at(folder, "blurred", "good")
    found = evaluate_side_by_side(paths)
    assert found["comparable"]
    assert found["best"] == 1
    for path, index in zip(paths, found["indexes"], strict=True):
        alone = evaluate_index(path, EvaluateOptions(exact=True))
        assert index["rsum"] == pytest.approx(alone["rsum"])
        assert index["text_to_image"]["R@5"] == pytest.approx(alone["text_to_image"]["R@5"])
    assert found["differences"][0]["rsum"]["tie_excluded"]
    assert found["differences"][1] is None
    json.dumps(found, allow_nan=False)


def test_what_one_index_alone_answers_is_shown_with_what_the_other_gave(folder: Path) -> None:
    found = evaluate_side_by_side(at(folder, "good", "blurred"))
    side = found["alone"][0]["text_to_image"]
    assert 0 < side["count"] <= side["of"] == IMAGES * CAPTIONS
    first = side["examples"][0]
    text = int(first["query"]["item_id"].removeprefix("texts-"))
    assert [item["item_id"] for item in first["right"]] == [f"images-{text // CAPTIONS}"]
    (other,) = first["instead"]
    assert other["label"].endswith("blurred/it.index")
    assert other["item"]["item_id"] != first["right"][0]["item_id"]
    assert other["rank"] > 1
    assert [one["instead"][0]["rank"] for one in side["examples"]] == sorted(
        (one["instead"][0]["rank"] for one in side["examples"]), reverse=True
    )


def test_items_in_another_order_are_the_same_queries(folder: Path, tmp_path: Path) -> None:
    images, texts, pairs = captioned(IMAGES, CAPTIONS, noise=0.8)
    names = [f"images-{row}" for row in range(IMAGES)]
    turned = build_reordered(tmp_path, images, texts, pairs, names)
    found = evaluate_side_by_side([*at(folder, "good"), turned])
    assert found["comparable"]
    assert found["differences"][1]["rsum"]["difference"] == 0
    assert found["alone"][1]["text_to_image"]["count"] == 0


def build_reordered(
    folder: Path, images: np.ndarray, texts: np.ndarray, pairs: list[tuple[int, int]], names: list[str]
) -> Path:
    """The images from the last to the first, under the names that they have elsewhere."""
    for side, ids, rows in (
        ("images", names[::-1], images[::-1]),
        ("texts", [f"texts-{row}" for row in range(len(texts))], texts),
    ):
        table = pa.table({"item_id": ids, "vector": list(np.ascontiguousarray(rows))})
        pq.write_table(table, folder / f"{side}.parquet")
    lines = [f"{len(images) - 1 - image},{text}\n" for image, text in pairs]
    (folder / "pairs.csv").write_text("image_row,text_row\n" + "".join(lines), "utf-8")
    files = {
        name: EmbeddingFiles(vectors=folder / f"{name}.parquet", vector_column="vector") for name in ("images", "texts")
    }
    build_index(EmbeddingSource(EmbeddingOptions(**files, pairs=folder / "pairs.csv")), folder / "it.index")
    return folder / "it.index"


def test_what_differs_is_named_and_no_difference_is_told(folder: Path) -> None:
    found = evaluate_side_by_side(at(folder, "good", "fewer", "other"))
    assert not found["comparable"]
    assert (found["best"], found["differences"], found["alone"]) == (None, None, None)
    assert [one["what"] for one in found["differs"]] == [
        ["pairs missing: 1 (such as 'images-39' and 'texts-79')"],
        ["images missing: 1 (such as 'images-39')", "texts missing: 2 (such as 'texts-78')"],
    ]
    text = run(*at(folder, "good", "fewer")).stdout
    assert "NOT COMPARABLE: these do not answer the same queries as" in text
    assert "pairs missing: 1" in text
    assert "Difference to" not in text


def test_one_split_of_each_is_compared(folder: Path) -> None:
    found = evaluate_side_by_side(at(folder, "good", "fewer"), SideBySideOptions(split="test", k=(1, 3)))
    assert found["comparable"]
    assert found["indexes"][0]["counts"]["images"] == 20
    assert set(found["indexes"][0]["text_to_image"]["intervals"]) == {"R@1", "R@3"}


def test_the_command_prints_tables_and_json_with_the_same_figures(folder: Path) -> None:
    paths = at(folder, "good", "blurred")
    text = run(*paths).stdout
    assert "to the one above" in run(*paths, "--k", "3").stdout
    found = json.loads(run(*paths, "--output", "json").stdout)
    for index in found["indexes"]:
        assert f"{100 * index['image_to_text']['R@1']:.1f} [" in text
    assert f"{found['differences'][1]['rsum']['difference']:+.1f} [" in text
    assert "Queries that one alone answers" in text


@pytest.mark.parametrize(
    "option", [("--plot", "r.png"), ("--folds", "2"), ("--hub-correction", "val"), ("--version", "1")]
)
def test_what_is_told_of_one_index_alone_is_refused_for_several(folder: Path, option: tuple[str, str]) -> None:
    done = run(*at(folder, "good", "blurred"), *option)
    assert f"{option[0]} goes with one INDEX" in str(done.exception)


def test_bad_requests_have_one_clear_error(folder: Path) -> None:
    good, blurred = at(folder, "good", "blurred")
    with pytest.raises(EvaluationError, match="is given twice"):
        evaluate_side_by_side([good, good.parent / "." / good.name])
    with pytest.raises(EvaluationError, match="no index is given"):
        evaluate_side_by_side([])
    with pytest.raises(EvaluationError, match="k=41 is above the 40 images"):
        evaluate_side_by_side([good, blurred], SideBySideOptions(k=(41,)))
    with pytest.raises(EvaluationError, match="k=0 is no depth"):
        SideBySideOptions(k=(0,))
    with pytest.raises(EvaluationError, match="examples=-1"):
        SideBySideOptions(examples=-1)
