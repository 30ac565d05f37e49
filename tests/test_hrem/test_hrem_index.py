"""A trained checkpoint is an encoder: indexed, searched, evaluated and matched as any other."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from encoders import EncoderError, ImageError, load_encoder
from indexer import BuildError, SourceError, SourceOptions, build_index
from matcher import Matcher
from searcher import QueryError, Searcher, evaluate_index
from searcher.evaluation.evaluate_index import EvaluateOptions
from training.hrem import evaluate_hrem
from training.hrem.hrem_evaluation import EvaluateHremOptions, embeddings
from training.hrem.towers.region_features import open_split


@pytest.fixture(scope="session")
def index(run: Path, precomp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test split as an index."""
    out = tmp_path_factory.mktemp("index") / "toy.index"
    report = build_index(
        precomp, out, encoder=f"hrem:{run}", options=SourceOptions(splits=("test",)), device="cpu", ann="flat"
    )
    assert report.rejected == {}
    return out


def test_an_index_is_scored_exactly_as_the_checkpoint(index: Path, run: Path) -> None:
    through = evaluate_index(index, EvaluateOptions(exact=True, k=(1, 5)))
    direct = evaluate_hrem([run], EvaluateHremOptions(split="test", k=(1, 5), device="cpu"))
    for direction in ("text_to_image", "image_to_text"):
        for name in ("R@1", "R@5", "medR", "meanR"):
            assert through[direction][name] == direct[direction][name]
    assert through["rsum"] == direct["rsum"]


def test_a_search_gives_the_ranking_of_the_vectors(index: Path, run: Path, precomp: Path) -> None:
    split = open_split(precomp, "test")
    images, texts = embeddings(run, split, "cpu")
    with Searcher.open(index) as searcher:
        for number in (0, 7):
            hits = searcher.text_to_image(split.captions[number], k=5)
            best = np.argsort(-(images @ texts[number]), kind="stable")[:5]
            assert [hit.item_id for hit in hits] == [split.ids[row] for row in best]


def test_an_image_of_regions_finds_its_captions(index: Path, precomp: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.load(precomp / "test_ims.npy")[3])
    with Searcher.open(index) as searcher:
        from_file = searcher.image_to_text(tmp_path / "one.npy", k=3)
        from_bytes = searcher.image_to_text((tmp_path / "one.npy").read_bytes(), k=3)
    assert [hit.item_id for hit in from_file] == [hit.item_id for hit in from_bytes]
    assert from_file[0].uri.startswith("test_ims.npy#")


def test_a_photograph_is_refused_in_one_line(index: Path, tmp_path: Path, run: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with Searcher.open(index) as searcher, pytest.raises(QueryError, match="twinlens regions") as caught:
        searcher.image_to_text(tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=r"no .npy file of region features"):
        load_encoder(f"hrem:{run}", "cpu").encode_images([tmp_path / "a.png"])


def test_a_call_of_several_batches_reads_one_while_another_is_encoded(
    run: Path, precomp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: Any = load_encoder(f"hrem:{run}", "cpu")
    images = [f"{precomp / 'test_ims.npy'}#{row}" for row in range(5)]
    expected = np.concatenate([encoder.encode_images([image]) for image in images])
    encoder.batch_size, encode, reading, read = 2, encoder.encode_pixels, encoder.open_image, list[str]()
    third = threading.Event()

    def open_image(image: str) -> Any:
        read.append(image)
        if len(read) == 3:
            third.set()
        return reading(image)

    def encode_pixels(pixels: np.ndarray) -> np.ndarray:
        assert third.wait(60)  # regions of the next batch, before anything of the first is computed
        rows: np.ndarray = encode(pixels)
        return rows

    monkeypatch.setattr(encoder, "open_image", open_image)
    monkeypatch.setattr(encoder, "encode_pixels", encode_pixels)
    np.testing.assert_allclose(encoder.encode_images(images), expected, atol=1e-5)
    with pytest.raises(ImageError, match="missing"):
        encoder.encode_images([*images, "nowhere.npy"])


def test_a_folder_of_photographs_is_refused_before_anything_is_built(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    with pytest.raises(SourceError, match=r"holds no region features .*twinlens regions"):
        build_index(folder, tmp_path / "out", encoder=f"hrem:{run}", device="cpu")
    assert not (tmp_path / "out").exists()


def test_an_encoder_of_photographs_is_refused_for_regions(precomp: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="encoder 'lite' sees photographs, and layout 'regions' has none"):
        build_index(precomp, tmp_path / "out", encoder="lite", options=SourceOptions(layout="regions"))


def test_an_update_encodes_only_what_changed(run: Path, precomp: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(precomp, tmp_path / "data"))
    options = SourceOptions(splits=("dev",))
    build_index(folder, tmp_path / "out", encoder=f"hrem:{run}", options=options, device="cpu")
    same = build_index(folder, tmp_path / "out", update=True, device="cpu")
    assert not same.published
    features = np.load(folder / "dev_ims.npy")
    features[2] += 1
    np.save(folder / "dev_ims.npy", features)
    changed = build_index(folder, tmp_path / "out", update=True, device="cpu")
    assert changed.published
    encode = changed.manifest.build["encode"]
    assert encode["items"] - encode["reused"] == 1


def test_a_bad_feature_is_a_rejected_image(run: Path, precomp: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(precomp, tmp_path / "data"))
    features = np.load(folder / "dev_ims.npy")
    features[2, 0, 0] = np.inf
    np.save(folder / "dev_ims.npy", features)
    options = SourceOptions(splits=("dev",))
    report = build_index(folder, tmp_path / "out", encoder=f"hrem:{run}", options=options, device="cpu")
    assert report.rejected == {"corrupt": 1}


def test_regions_of_other_dims_are_rejected_with_both_shapes(run: Path, precomp: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(precomp, tmp_path / "data"))
    np.save(folder / "dev_ims.npy", np.ones((12, 5, 7), dtype=np.float32))
    options = SourceOptions(splits=("dev",))
    report = build_index(
        folder, tmp_path / "out", encoder=f"hrem:{run}", options=options, device="cpu", allow_shrink=True
    )
    assert report.rejected == {"unsupported_format": 12}
    with pytest.raises(ImageError, match=r"5 regions of 7 features, and encoder .* takes at most 5 of 24"):
        load_encoder(f"hrem:{run}", "cpu").encode_images([f"{folder / 'dev_ims.npy'}#0"])


def test_the_matcher_takes_rows_of_region_files(run: Path, precomp: Path) -> None:
    split = open_split(precomp, "test")
    frame = pd.DataFrame(
        {
            "image": [f"{precomp / 'test_ims.npy'}#{row}" for row in range(6)],
            "text": [split.captions[2 * row] for row in range(6)],
        }
    )
    matcher = Matcher(query="text", response="image", encoder=f"hrem:{run}", device="cpu")
    images, _ = embeddings(run, split, "cpu")
    np.testing.assert_allclose(matcher.extract_embedding(frame)["image"], images[:6], atol=1e-5)


def test_the_fingerprint_is_of_what_the_vectors_depend_on(run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    (moved / "training.json").write_text("{}", encoding="utf-8")
    one, other = load_encoder(f"hrem:{run}", "cpu"), load_encoder(f"hrem:{moved}", "cpu")
    assert one.fingerprint == other.fingerprint
    assert one.info.details["family"] == "regions"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("hrem.json", "{", "hrem.json' is damaged or of another version"),
        ("hrem.json", '{"format": 1}', "format 1 is not 2; train it again"),
        ("towers.safetensors", "rubbish", "cannot be loaded: .*train it again"),
        ("text/vocabulary.json", '["one"]', "cannot be loaded: .*size mismatch"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(run: Path, tmp_path: Path, name: str, text: str, words: str) -> None:
    broken = Path(shutil.copytree(run, tmp_path / "broken"))
    (broken / name).write_text(text, encoding="utf-8")
    with pytest.raises(EncoderError, match=words) as caught:
        load_encoder(f"hrem:{broken}", "cpu")
    assert "\n" not in str(caught.value)


def test_vectors_do_not_depend_on_the_batch(run: Path, precomp: Path) -> None:
    encoder = load_encoder(f"hrem:{run}", "cpu")
    split = open_split(precomp, "test")
    whole = encoder.encode_texts(split.captions)
    alone = np.concatenate([encoder.encode_texts([caption]) for caption in split.captions])
    np.testing.assert_allclose(whole, alone, atol=1e-5)
    short = encoder.encode_images([np.load(precomp / "test_ims.npy")[0][:2], f"{precomp / 'test_ims.npy'}#1"])
    assert short.shape == (2, 32)
    assert encoder.encode_texts([]).shape == encoder.encode_images([]).shape == (0, 32)


def test_the_approximate_index_finds_what_exact_search_finds(run: Path, precomp: Path, tmp_path: Path) -> None:
    options = SourceOptions(splits=("train",))
    build_index(precomp, tmp_path / "out", encoder=f"hrem:{run}", options=options, device="cpu")
    found = evaluate_index(tmp_path / "out", replace(EvaluateOptions(), k=(1, 10)))
    assert found["ann_recall@10"]["text_to_image"] >= 0.95
