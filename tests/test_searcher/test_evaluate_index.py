"""An index scored against its own pairs: the figures, what they stand on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import flip
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_index import build_paired, captioned, unit

from evaluation import Bootstrap, evaluate_embeddings
from indexer.corpus import SourceOptions
from searcher import EvaluateOptions, SearchError, evaluate_index
from searcher.errors import EvaluationError
from storage.errors import CorruptIndexError, IndexNotFoundError, TwinlensError
from storage.store import IndexStore

# Images A and B against captions a1 a2 b1 b2.
TOY = np.array([[0.30, 0.26], [0.20, 0.29], [0.28, 0.31], [0.10, 0.25]])
DIRECTIONS = ("text_to_image", "image_to_text")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images on the first two axes, so that the first two values of a caption are its scores."""
    rest = np.diag(np.sqrt(1 - np.square(TOY).sum(axis=1)))
    texts = np.concatenate([TOY, rest], axis=1)
    return build_paired(tmp_path_factory.mktemp("toy"), np.eye(2, 6), texts, [(0, 0), (0, 1), (1, 2), (1, 3)])


@pytest.fixture(scope="session")
def clip(data: Path) -> dict[str, np.ndarray]:
    """Real vectors: 100 photographs, their 500 captions, 500 other photographs."""
    folder = data / "clip_vit_b32"
    names = {"images": "flickr8k_images", "texts": "flickr8k_captions", "others": "distractor_images"}
    found = {name: np.load(folder / f"{file}.npy") for name, file in names.items()}
    lines = (folder / "flickr8k_captions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line)["image_row"] for line in lines]
    return found | {"pairs": np.stack([rows, np.arange(len(rows))], axis=1)}


@pytest.fixture(scope="session")
def distracted(clip: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs among 500 without a caption, behind an approximate index."""
    images = np.concatenate([clip["images"], clip["others"]])
    return build_paired(tmp_path_factory.mktemp("clip"), images, clip["texts"], clip["pairs"].tolist(), ann="ivf-pq4")


@pytest.fixture(scope="session")
def split_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images with three captions each: 10 of them `test`, 10 `val`, 20 `train`."""
    images, texts, pairs = captioned(40, 3)
    names = ["test"] * 10 + ["val"] * 10 + ["train"] * 20
    splits = (names, list(np.repeat(names, 3)))
    return build_paired(tmp_path_factory.mktemp("split"), images, texts, pairs, splits)


def figures(result: dict[str, Any], direction: str, name: str = "R") -> list[float]:
    return [round(result[direction][f"{name}@{k}"], 4) for k in (1, 5, 10)]


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(TwinlensError, match=match) as caught:
        evaluate_index(path, EvaluateOptions(**options))
    assert "\n" not in str(caught.value)


def test_real_captions_find_their_photographs_as_they_are_known_to(clip: Any, tmp_path: Path) -> None:
    result = evaluate_index(build_paired(tmp_path, clip["images"], clip["texts"], clip["pairs"].tolist()))
    assert figures(result, "text_to_image") == [0.832, 0.99, 0.998]
    assert figures(result, "image_to_text") == [0.93, 1.0, 1.0]
    assert result["rsum"] == pytest.approx(575.0)
    assert result["index"]["ann"] == {"images": "flat", "texts": "flat"}


def test_images_without_a_caption_distract_and_do_not_ask(distracted: Path) -> None:
    result = evaluate_index(distracted)
    assert figures(result, "text_to_image") == [0.822, 0.986, 0.996]
    assert figures(result, "image_to_text") == [0.93, 1.0, 1.0]
    assert (result["image_to_text"]["queries"], result["image_to_text"]["left_out"]) == (100, 500)
    assert result["protocol"]["queries_left_out"] == {"text_to_image": 0, "image_to_text": 500}
    assert result["protocol"]["captions_per_image"] == [5, 5.0, 5]


def test_what_searches_find_stands_beside_the_exact_figures(distracted: Path) -> None:
    result = evaluate_index(distracted)
    for direction in DIRECTIONS:
        found = result["ann"][direction]
        assert found["choice"]["kind"] == "ivf-pq4"
        assert not found["choice"]["exact"]
        assert 0.9 < result["ann_recall@10"][direction] == found["ann_recall@10"] <= 1
        assert found["R@1"] == pytest.approx(result[direction]["R@1"], abs=0.05)
        assert found["queries"] == result[direction]["queries"]
        assert found["left_out"] == result[direction]["left_out"]
        assert 0 < found["ms_per_query"] < 1000


def test_every_operating_point_is_measured_on_the_ground_truth(distracted: Path) -> None:
    with IndexStore.open(distracted).open_version() as version:
        manifest = version.manifest
    result = evaluate_index(distracted, EvaluateOptions(k=(1, 10, 100)))
    known = [point for point in manifest.collections["images"].tuning["text_to_image"].points if point.k == 10]
    curve = result["ann"]["text_to_image"]["operating_points"]
    assert [(p["nprobe"], p["oversample"]) for p in curve] == [(p.nprobe, p.oversample) for p in known]
    assert {"R@1", "R@10", "ann_recall@10", "ms_per_query"} <= set(curve[0])
    assert "R@100" not in curve[0]
    # The build tunes with the same 500 captions, and counts ties of the tenth hit as found.
    assert [p["ann_recall@10"] for p in curve] == pytest.approx([p.ann_recall for p in known], abs=0.002)
    exact = result["ann"]["text_to_image"]["curve_exact"]
    assert exact == pytest.approx({name: result["text_to_image"][name] for name in ("R@1", "R@10")})
    assert curve[-1]["R@10"] == pytest.approx(result["text_to_image"]["R@10"], abs=0.01)


def test_more_recall_may_be_asked_for(distracted: Path) -> None:
    usual, high = (
        evaluate_index(distracted, EvaluateOptions(ann_recall=wanted))["ann"]["text_to_image"] for wanted in (0.8, 0.99)
    )
    assert usual["ann_recall@10"] < high["ann_recall@10"]


def test_exact_looks_through_no_index(distracted: Path) -> None:
    result = evaluate_index(distracted, EvaluateOptions(exact=True))
    assert "ann" not in result
    assert result["ann_recall@10"] is None
    assert result["protocol"]["search"] == "exact"


def test_a_flat_index_finds_what_is_exact_and_says_so(toy: Path) -> None:
    result = evaluate_index(toy, EvaluateOptions(k=(1, 2)))
    for direction in DIRECTIONS:
        found = result["ann"][direction]
        shared = [name for name in found if name in result[direction]]
        assert {name: found[name] for name in shared} == {name: result[direction][name] for name in shared}
        assert found["choice"]["reason"] == "a flat index compares every vector"
        assert found["operating_points"] == []
    assert result["ann_recall@10"] == {"text_to_image": 1.0, "image_to_text": 1.0}
    assert result["ann"]["protocol"]["search"] == "ann"


def test_automm_keys_and_values_hold_through_an_index(toy: Path) -> None:
    result = evaluate_index(toy, EvaluateOptions(k=(1, 2), protocol="automm"))
    expected = {
        "ndcg@1": 1.0,
        "map@1": 1.0,
        "recall@1": 0.5,
        "precision@1": 1.0,
        "mrr@1": 1.0,
        "ndcg@2": 0.61315,
        "map@2": 0.5,
        "recall@2": 0.5,
        "precision@2": 0.5,
        "mrr@2": 1.0,
    }
    assert result["figures"]["image_to_text"] == expected
    assert list(result["figures"]["image_to_text"]) == list(expected)
    t2i = result["figures"]["text_to_image"]
    assert [t2i[f"{name}@2"] for name in ("ndcg", "map", "recall", "precision")] == [0.90773, 0.875, 1.0, 0.5]
    assert result["ann_figures"] == result["figures"]


def test_a_single_pair_can_be_scored(tmp_path: Path) -> None:
    path = build_paired(tmp_path, np.eye(2), np.eye(2), [(1, 1)])
    result = evaluate_index(path, EvaluateOptions(k=(1,), protocol="automm"))
    assert result["figures"]["text_to_image"]["mrr@1"] == 1.0
    assert result["text_to_image"]["queries"] == 1


def test_other_tools_keys_come_with_their_scale(split_up: Path) -> None:
    both = evaluate_index(split_up, EvaluateOptions(protocol="clip-benchmark", k=(5,)))
    assert both["figures"]["image_retrieval_recall@5"] == both["text_to_image"]["R@5"]
    vse = evaluate_index(split_up, EvaluateOptions(protocol="vse", k=(3,)))
    assert vse["figures"]["r1i"] == pytest.approx(100 * vse["text_to_image"]["R@1"])
    assert vse["figures"]["rsum"] == pytest.approx(vse["rsum"])
    assert vse["protocol"]["k"] == [1, 3, 5, 10]
    eccv = evaluate_index(split_up, EvaluateOptions(protocol="eccv"))
    assert eccv["figures"]["eccv_rprecision"]["i2t"] == eccv["image_to_text"]["r_precision"]


def test_figures_are_those_of_the_stored_vectors(split_up: Path) -> None:
    images, texts, pairs = captioned(40, 3)
    rounded = [side.astype(np.float16).astype(np.float32) for side in (images, texts)]
    expected = evaluate_embeddings(*rounded, pairs)
    result = evaluate_index(split_up, EvaluateOptions(exact=True))
    assert {name: result[name] for name in expected} == expected


@settings(max_examples=8, deadline=None)
@given(st.integers(3, 12), st.integers(1, 4), st.integers(0, 5))
def test_any_number_of_captions_gives_the_figures_of_the_vectors(
    tmp_path_factory: Any, images: int, captions: int, alone: int
) -> None:
    pictures, texts, pairs = captioned(images, captions, dim=8)
    pictures = np.concatenate([pictures, unit(np.random.default_rng(alone).standard_normal((alone, 8)))])
    path = build_paired(tmp_path_factory.mktemp("any"), pictures, texts, pairs)
    result = evaluate_index(path, EvaluateOptions(k=(1, 3)))
    rounded = [side.astype(np.float16).astype(np.float32) for side in (pictures, texts)]
    expected = evaluate_embeddings(*rounded, pairs, (1, 3))
    for direction in DIRECTIONS:
        assert result[direction] == expected[direction]
        assert result["ann"][direction]["recall@3"] == pytest.approx(expected[direction]["recall@3"])


def test_a_split_is_both_queries_and_gallery(split_up: Path) -> None:
    images, texts, pairs = captioned(40, 3)
    rounded = [side.astype(np.float16).astype(np.float32) for side in (images[10:20], texts[30:60])]
    expected = evaluate_embeddings(*rounded, [(image - 10, text - 30) for image, text in pairs[30:60]])
    result = evaluate_index(split_up, EvaluateOptions(split="val"))
    assert {name: result[name] for name in expected} == expected
    assert (result["protocol"]["images"], result["protocol"]["texts"]) == (10, 30)
    assert result["ann"]["text_to_image"]["R@1"] == expected["text_to_image"]["R@1"]


def test_a_split_behind_an_approximate_index_is_searched_with_a_filter(tmp_path: Path) -> None:
    images, texts, pairs = captioned(300, 2)
    names = ["test" if row % 2 else "train" for row in range(300)]
    path = build_paired(
        tmp_path, images, texts, pairs, (names, list(np.repeat(names, 2))), ann="ivf-pq4", min_ann_recall=0
    )
    result = evaluate_index(path, EvaluateOptions(split="test"))
    found = result["ann"]["text_to_image"]
    assert found["choice"]["filtered_rows"] == 150
    assert found["choice"]["exact"]
    assert found["R@10"] == result["text_to_image"]["R@10"]
    assert found["operating_points"] == []


def test_a_split_that_is_the_whole_index_needs_no_filter(tmp_path: Path) -> None:
    images, texts, pairs = captioned(300, 2)
    path = build_paired(
        tmp_path, images, texts, pairs, (["test"] * 300, ["test"] * 600), ann="ivf-pq4", min_ann_recall=0
    )
    result = evaluate_index(path, EvaluateOptions(split="test"))
    assert result["ann"]["text_to_image"]["choice"]["filtered_rows"] is None
    assert result["ann"]["text_to_image"]["operating_points"]


def test_a_name_with_an_apostrophe_is_a_split_too(tmp_path: Path) -> None:
    images, texts, pairs = captioned(12, 1)
    names = ["dev'1"] * 11 + ["other"]
    result = evaluate_index(
        build_paired(tmp_path, images, texts, pairs, (names, names)), EvaluateOptions(split="dev'1")
    )
    assert result["protocol"]["images"] == 11


def test_pairs_across_splits_do_not_count(tmp_path: Path) -> None:
    images, texts, pairs = captioned(12, 1)
    names = ["a"] * 12
    path = build_paired(tmp_path, images, texts, [*pairs, (0, 11)], (names, [*["a"] * 11, "b"]))
    protocol = evaluate_index(path, EvaluateOptions(split="a"))["protocol"]
    assert (protocol["pairs"], protocol["queries_left_out"]["image_to_text"]) == (11, 1)


def test_splits_of_a_corpus_are_known(photos_by_split: Path) -> None:
    result = evaluate_index(photos_by_split, EvaluateOptions(split="dev", k=(1, 3)))
    assert (result["protocol"]["split"], result["protocol"]["images"]) == ("dev", 4)
    assert result["index"]["encoder"] == "colour"


@pytest.fixture(scope="session")
def photos_by_split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index that an encoder made of a table with the column `split`."""
    from colour import COLOURS, ColourEncoder, paint

    from indexer import build_index

    folder = tmp_path_factory.mktemp("photos")
    lines = []
    for number, colour in enumerate(COLOURS):
        paint(folder / f"{colour}.png", colour, noise=number)
        captions = [f"a {colour} wall", f"something {colour}"]
        line = {"image": f"{colour}.png", "text": captions, "split": "dev" if number < 4 else "train"}
        lines.append(json.dumps(line))
    (folder / "table.jsonl").write_text("\n".join(lines), "utf-8")
    options = SourceOptions(image="image", text="text")
    build_index(folder / "table.jsonl", folder / "it.index", encoder=ColourEncoder(), options=options)
    return folder / "it.index"


def test_folds_are_averaged_and_searched_exactly(split_up: Path) -> None:
    images, texts, pairs = captioned(40, 3)
    rounded = [side.astype(np.float16).astype(np.float32) for side in (images, texts)]
    parts = [
        evaluate_embeddings(
            rounded[0][start : start + 20], rounded[1][3 * start : 3 * start + 60], [(i, t) for i, t in pairs[:60]]
        )
        for start in (0, 20)
    ]
    result = evaluate_index(split_up, EvaluateOptions(folds=2))
    assert result["folds"] == result["protocol"]["folds"] == 2
    for direction in DIRECTIONS:
        expected = np.mean([part[direction]["R@1"] for part in parts])
        assert result[direction]["R@1"] == pytest.approx(expected)
    assert result["ann_recall@10"] is None
    assert "ann" not in result


def test_eccv_prints_the_whole_beside_its_folds(split_up: Path) -> None:
    folded = evaluate_index(split_up, EvaluateOptions(protocol="eccv", folds=2))
    whole = evaluate_index(split_up, EvaluateOptions(protocol="eccv", exact=True))
    assert folded["figures"]["coco_1k_r1"]["t2i"] == folded["text_to_image"]["R@1"]
    assert folded["figures"]["coco_5k_r1"] == whole["figures"]["coco_5k_r1"]
    assert "coco_1k_r1" not in whole["figures"]


def test_more_folds_than_images_are_refused(split_up: Path, distracted: Path) -> None:
    refused(split_up, "folds=41 is above the 40 images in .*; 5 is usual", folds=41, k=(1,))
    refused(split_up, "k=10 is above the 8 images in a fold of", folds=5)
    refused(distracted, "fold 1 of 120 images has no pair; take fewer folds", folds=5)


def test_a_hub_correction_learnt_from_another_split_stands_apart(split_up: Path) -> None:
    plain = evaluate_index(split_up, EvaluateOptions(split="test", exact=True))
    result = evaluate_index(split_up, EvaluateOptions(split="test", exact=True, hub_split="train"))
    corrected = result.pop("hub_corrected")
    assert result == plain
    assert corrected["split"] == "train"
    assert corrected["hub_correction"].keys() == {"images", "texts"}
    assert corrected["text_to_image"].keys() == plain["text_to_image"].keys()


def test_a_hub_is_corrected(tmp_path: Path) -> None:
    """One picture lies near every caption; other captions tell that it does."""
    images, texts, pairs = captioned(80, 2, dim=24, noise=0.4)
    hub = unit(texts[:80].mean(axis=0, keepdims=True))
    texts = unit(texts + 1.5 * hub)
    images[0] = hub
    names = ["test"] * 40 + ["val"] * 40
    path = build_paired(tmp_path, images, texts, pairs, (names, list(np.repeat(names, 2))))
    options = EvaluateOptions(split="test", exact=True, hub_split="val")
    with_hub = evaluate_index(path, options)
    plain, corrected = (side["text_to_image"]["R@1"] for side in (with_hub, with_hub["hub_corrected"]))
    assert corrected >= plain


def test_a_hub_correction_from_an_unknown_split_is_refused(split_up: Path) -> None:
    refused(split_up, "have no split 'dev'", split="test", hub_split="dev")


def test_a_bootstrap_gives_intervals_around_the_figures(split_up: Path) -> None:
    result = evaluate_index(split_up, EvaluateOptions(bootstrap=Bootstrap(resamples=50), exact=True))
    low, high = result["text_to_image"]["intervals"]["R@1"]
    assert low <= result["text_to_image"]["R@1"] <= high


def test_a_result_is_json(split_up: Path) -> None:
    options = EvaluateOptions(bootstrap=Bootstrap(resamples=5), split="test", protocol="eccv")
    result = evaluate_index(split_up, options)
    assert json.loads(json.dumps(result, allow_nan=False))["protocol"] == result["protocol"]


def test_an_older_version_can_be_scored(tmp_path: Path) -> None:
    images, texts, pairs = captioned(12, 1)
    path = build_paired(tmp_path, images, texts, pairs)
    build_paired(tmp_path, images, texts[::-1].copy(), pairs)
    old, new = (evaluate_index(path, EvaluateOptions(version=number)) for number in (1, None))
    assert (old["index"]["version"], new["index"]["version"]) == (1, 2)
    assert old["text_to_image"]["R@1"] > new["text_to_image"]["R@1"]


def test_an_unknown_split_is_told_beside_those_that_exist(split_up: Path, toy: Path) -> None:
    refused(split_up, r"have no split 'dev'; their splits: test \(10\), train \(20\), val \(10\)", split="dev")
    refused(toy, "the images of .* have no splits, so there is no 'test'; leave out the split", split="test")


def test_an_index_without_pairs_is_told_how_to_get_some(tmp_path: Path) -> None:
    images, texts, _ = captioned(12, 1)
    refused(build_paired(tmp_path, images, texts), "no pairs of image and text, .* or name --pairs beside ready-made")


def test_a_split_without_pairs_is_told(tmp_path: Path) -> None:
    images, texts, pairs = captioned(12, 1)
    path = build_paired(tmp_path, images, texts, pairs, (["a"] * 6 + ["b"] * 6, ["b"] * 6 + ["a"] * 6))
    refused(path, "no image of split 'a' in .* is paired with a text of that split; choose another", split="a")


def test_one_collection_alone_cannot_be_scored(tmp_path: Path) -> None:
    refused(build_paired(tmp_path, np.eye(4), None), "has images but no texts, so nothing can be scored")


@pytest.mark.parametrize(("k", "found"), [((1, 41), "k=41 is above the 40 images"), ((130,), "k=130 is above the 40")])
def test_a_k_above_the_collection_is_refused(split_up: Path, k: tuple[int, ...], found: str) -> None:
    refused(split_up, f"{found}.*; give smaller values of k", k=k)


def test_vse_needs_as_many_captions_for_each_image(distracted: Path) -> None:
    refused(distracted, "500 images have none; use clip-benchmark, which gives the same R@k", protocol="vse")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"k": ()}, "k is empty"),
        ({"k": (0,)}, "k=0 is no depth"),
        ({"k": (1.5,)}, r"k is \(1.5,\), of type tuple; give a list, each of it a whole number"),
        ({"protocol": "trec"}, "protocol is 'trec'; choose one of twinlens, automm"),
        ({"folds": 0}, "folds=0 is no number of folds"),
        ({"hub_split": "val"}, "hub correction from split 'val' while all of the index is measured"),
        ({"hub_split": "val", "split": "val"}, "while 'val' is itself measured would learn from the test"),
        ({"hub_split": "val", "split": "test", "folds": 5}, "is not measured in folds; leave out folds=5"),
        ({"ann_recall": 2.0}, "ann_recall=2.0 must be above 0"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(SearchError, match=found):
        EvaluateOptions(**options)


def test_something_that_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="there is no index at"):
        evaluate_index(tmp_path / "no.index")


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    images, texts, pairs = captioned(12, 1)
    path = build_paired(tmp_path, images, texts, pairs)
    flip(path / "versions" / "00000001" / "images" / "vectors.arrow")
    with pytest.raises(CorruptIndexError, match=r"vectors\.arrow"):
        evaluate_index(path)


def test_pairs_of_unknown_items_do_not_get_into_an_index(tmp_path: Path) -> None:
    images, texts, pairs = captioned(12, 1)
    with pytest.raises(TwinlensError, match="has text_row 99, but there are 12 text vectors"):
        build_paired(tmp_path, images, texts, [*pairs, (0, 99)])


def test_errors_of_an_evaluation_are_errors_of_searching() -> None:
    assert issubclass(EvaluationError, SearchError)
