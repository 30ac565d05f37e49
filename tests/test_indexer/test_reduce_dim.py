"""`--dim`: the encoder is cut to a sample of the corpus, judged on another, kept beside the index, and found again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from two_tone import save_tiny, two_tone

from indexer import BuildError, build_index
from indexer.rebuild_command import rebuild_command
from indexer.reduce_dim import Sample, check_what_is_left, sentence, what_is_left
from searcher import Searcher
from twinlens.commands.build import COLUMN_NAMES, CONFIG_NAMES, VECTOR_NAMES, build
from twinlens.commands.info import info

FACTS = {"of": "some", "full_dim": 16, "dim": 4}


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Photographs without captions, of which one cannot be read, and an encoder of 24 dimensions."""
    folder = tmp_path_factory.mktemp("cut")
    two_tone(folder / "photos", 40)
    (folder / "photos" / "broken.png").write_bytes(b"no image")
    return folder / "photos", save_tiny(folder / "tiny")


def test_an_index_of_fewer_dimensions_is_searched_updated_and_rebuilt_like_any(
    corpus: tuple[Path, str], tmp_path: Path
) -> None:
    photos, spec = corpus
    out = tmp_path / "it.index"
    report = build_index(photos, out, encoder=spec, dim=20)
    encoder = report.manifest.encoder
    assert encoder is not None
    assert (encoder.dim, report.rejected) == (20, {"not_an_image": 1})
    facts = encoder.details["reduced"]
    assert (facts["of"], facts["full_dim"], facts["judged_by"]) == (spec, 24, "nearest")
    assert facts["left"] >= 0.8
    assert Path(encoder.spec.removeprefix("local-dir:")).parent == out.with_name("it.index.encoder")
    assert f"--encoder {encoder.spec}" in rebuild_command(report.manifest, out)
    image = sorted(photos.glob("*_*.png"))[3]
    with Searcher.open(out) as searcher:
        (hit,) = searcher.image_to_image(image, k=1)
    assert (hit.item_id, hit.score) == (image.name, pytest.approx(1, abs=1e-3))
    assert f"(20-d, cut from {spec} of 24-d with" in CliRunner().invoke(info, [str(out)]).stdout
    assert not build_index(photos, out, encoder=spec, dim=20, update=True).published
    assert not build_index(photos, out, update=True).published
    with pytest.raises(BuildError, match="--dim 12: the index has vectors of 20 values; build without --update"):
        build_index(photos, out, dim=12, update=True)


def test_the_same_build_again_takes_the_encoder_that_is_kept(corpus: tuple[Path, str], tmp_path: Path) -> None:
    photos, spec = corpus
    prints = []
    for _ in range(2):
        manifest = build_index(photos, tmp_path / "it.index", encoder=spec, dim=20).manifest
        assert manifest.encoder is not None
        prints.append(manifest.encoder.fingerprint)
    assert prints[0] == prints[1]
    assert len(list((tmp_path / "it.index.encoder").iterdir())) == 1


def test_what_cannot_be_cut_is_said(corpus: tuple[Path, str], tmp_path: Path) -> None:
    photos, spec = corpus
    out = tmp_path / "it.index"
    with pytest.raises(BuildError, match="gives 24 values a vector; give fewer"):
        build_index(photos, out, encoder=spec, dim=25)
    with pytest.raises(BuildError, match="dim is 0; give a number of at least 1"):
        build_index(photos, out, encoder=spec, dim=0)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(BuildError, match="do not tell which values matter; leave --dim out"):
        build_index(tmp_path, out, encoder=spec, dim=8)
    np.save(tmp_path / "v.npy", np.eye(4, dtype=np.float32))
    answer = CliRunner().invoke(build, ["--image-embeddings", str(tmp_path / "v.npy"), "--out", str(out), "--dim", "2"])
    assert "ready-made embeddings have none; leave it out" in str(answer.exception)
    assert not out.exists()


def test_every_option_of_the_command_is_passed_on() -> None:
    """An option that is on the command line and not in these lists would change nothing, without a word."""
    elsewhere = {"corpus", "out", "output", "quiet", "watch", "metadata", "split", "exclude", "frames"}
    vectors = {"image_embeddings", "text_embeddings"}
    known = {*CONFIG_NAMES, *COLUMN_NAMES, *VECTOR_NAMES, *elsewhere, *vectors}
    assert {option.name for option in build.params} == known


def planted(noise: float) -> Sample:
    """Topics in the first four of 16 dimensions; `noise` is how much of what tells items apart lies in the others."""
    rng = np.random.default_rng(1)
    images = np.concatenate([rng.standard_normal((120, 4)), noise * rng.standard_normal((120, 12))], axis=1)
    texts = images + 0.1 * rng.standard_normal(images.shape)
    return Sample(images=unit(images), texts=unit(texts), pairs=np.stack([np.arange(120)] * 2, axis=1))


def test_what_is_left_is_told_by_recall_on_images_that_took_no_part() -> None:
    sample, directions = planted(0.0), np.eye(16, 4, dtype=np.float32)
    fitting, judging = sample.half(False), sample.half(True)
    assert (len(judging.images), len(judging.texts), judging.pairs[5].tolist()) == (60, 60, [5, 5])
    np.testing.assert_array_equal(judging.images[5], sample.images[11])
    facts = FACTS | what_is_left(judging, directions)
    assert facts["judged_by"] == "rsum"
    assert facts["left"] > 0.95
    check_what_is_left(facts, fitting, judging)
    assert "4 of 16 dimensions of some keep" in sentence(facts)


def test_too_much_lost_is_refused() -> None:
    sample, directions = planted(1.0), np.eye(16, 2, dtype=np.float32)
    fitting, judging = sample.half(False), sample.half(True)
    facts = FACTS | what_is_left(judging, directions)
    with pytest.raises(BuildError, match="at least 95% is asked for; leave --dim out"):
        check_what_is_left(facts, fitting, judging)


def test_an_encoder_whose_last_values_are_nearly_nothing_is_cut_without_loss(
    corpus: tuple[Path, str], tmp_path: Path
) -> None:
    photos, spec = corpus
    folder = Path(spec.removeprefix("local-dir:"))
    shutil.copytree(folder, tmp_path / "first")
    weights = load_file(folder / "open_clip_model.safetensors")
    for name in ("visual.proj", "text_projection"):
        weights[name][:, 4:] *= 1e-4
    save_file(weights, tmp_path / "first" / "open_clip_model.safetensors")
    facts = build_index(
        photos, tmp_path / "it.index", encoder=f"local-dir:{tmp_path / 'first'}", dim=4
    ).manifest.encoder
    assert facts is not None
    assert facts.details["reduced"]["left"] > 0.99


def test_without_pairs_the_ten_nearest_tell() -> None:
    rng = np.random.default_rng(4)
    rows = unit(rng.standard_normal((60, 16)))
    for images, texts in ((rows, rows[:0]), (rows[:0], rows), (rows[:40], rows[40:])):
        sample = Sample(images=images, texts=texts, pairs=np.zeros((0, 2), np.int64))
        assert what_is_left(sample, np.eye(16, dtype=np.float32))["left"] == 1
        facts = what_is_left(sample, np.eye(16, 2, dtype=np.float32))
        assert facts["judged_by"] == "nearest"
        assert facts["left"] < 0.7
