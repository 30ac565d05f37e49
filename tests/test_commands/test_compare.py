"""Encoders compared on one sample: the right order, with what each alone answers; kept vectors; what is refused."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint, paint_folder
from PIL import Image
from two_tone import save_tiny

from indexer.corpus import Item, SourceOptions, open_source
from searcher.errors import SearchError
from searcher.render.comparison_page import render_comparison, save_comparison
from storage.errors import TwinlensError
from twinlens.commands.compare import compare
from twinlens.commands.fit import copied_here
from twinlens.compare import candidate
from twinlens.compare.comparison import CompareConfig, Comparison, compare_encoders
from twinlens.compare.comparison_text import comparison_text
from twinlens.compare.sample import Sample

IMAGES = 24


class HazyEncoder(ColourEncoder):
    """Sees the colours through noise of its own for each image."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        seen = super().encode_pixels(pixels)
        noise = np.stack([np.random.default_rng(int(one.sum())).normal(0, 0.5, one.size) for one in pixels])
        hazy: np.ndarray = (seen + noise).astype(np.float32)
        return hazy / np.linalg.norm(hazy, axis=1, keepdims=True)


class InterruptedEncoder(ColourEncoder):
    """Is interrupted, as by Ctrl-C, after two batches."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        if self.images_encoded >= 16:
            raise KeyboardInterrupt
        return super().encode_pixels(pixels)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of eight colours with two captions each, one without, and one that is no image."""
    folder = paint_folder(tmp_path_factory.mktemp("compared") / "photos", IMAGES)
    paint(folder / "bare.png", "red")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "broken.txt").write_text("a broken square\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def found(photos: Path) -> Comparison:
    twin = ColourEncoder("twin")
    twin.fingerprint = ColourEncoder("clear").fingerprint
    return compared(photos, photos.parent / "cache", HazyEncoder("hazy"), ColourEncoder("clear"), twin)


def compared(corpus: Path, cache: Path, *encoders: Any, **config: Any) -> Comparison:
    return compare_encoders(corpus, encoders, config=CompareConfig(cache=cache, **config))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(compare, [str(argument) for argument in arguments], standalone_mode=False)


def test_the_better_encoder_is_named_with_an_interval_that_excludes_a_tie(found: Comparison) -> None:
    facts = found.facts
    assert [one["label"] for one in facts["encoders"]] == ["hazy", "clear"]
    assert facts["comparable"]
    assert facts["best"] == 1
    assert facts["differences"][0]["rsum"]["tie_excluded"]
    assert facts["differences"][0]["rsum"]["interval"][1] < 0
    assert facts["encoders"][1]["dim"] == ColourEncoder.dim
    assert facts["encoders"][0]["speed"]["images"]["per_cpu_second"] > 0
    json.dumps(facts, allow_nan=False)


def test_what_cannot_be_read_and_what_has_no_caption_is_counted(found: Comparison) -> None:
    corpus, counts = found.facts["corpus"], found.facts["encoders"][0]["counts"]
    assert (corpus["captioned"], corpus["without_caption"]) == (IMAGES + 1, 1)
    assert (counts["images"], counts["texts"], counts["rejected"]) == (IMAGES, 2 * IMAGES + 1, 1)
    assert [(one["reason"], one["count"]) for one in found.facts["rejected"]] == [("not_an_image", 1)]
    assert "1 images could not be used (not_an_image), such as broken.png" in comparison_text(found.facts)


def test_what_one_alone_answers_has_the_query_the_right_item_and_what_the_other_gave(found: Comparison) -> None:
    side = found.facts["alone"][1]["text_to_image"]
    assert side["count"] > 0
    for one in side["examples"]:
        colour = one["query"]["caption"].split()[1]
        assert one["right"][0]["item_id"].startswith(f"{colour}/")
        assert [other["label"] for other in one["instead"]] == ["hazy"]
        assert one["instead"][0]["rank"] > 1


def test_text_and_page_say_the_same_figures(found: Comparison, tmp_path: Path) -> None:
    facts = found.facts
    text, page = comparison_text(facts), render_comparison(facts, found.images)
    for one in facts["encoders"]:
        for said in (f"{100 * one['text_to_image']['R@5']:.1f}", f"{one['rsum']:.1f}"):
            assert said in text
            assert said in page
    assert page.count("<circle") == 2
    assert page.count("data:image/jpeg") > 4
    assert "<script" not in page
    assert not re.search(r"(src|href)=.(https?:|/)", page)
    with pytest.raises(SearchError, match="is not there; make it first"):
        save_comparison(tmp_path / "nowhere" / "c.html", facts, {})


def test_words_of_a_corpus_do_not_become_markup(found: Comparison) -> None:
    words = json.dumps(found.facts).replace('"hazy"', '"<b>hazy</b>"').replace("square, number", "<img src=x>")
    facts = json.loads(words)
    assert any("<img" in one["query"]["caption"] for one in facts["alone"][1]["text_to_image"]["examples"])
    page = render_comparison(facts, found.images)
    assert "<b>hazy" not in page
    assert "<img src=x>" not in page


def test_a_repeated_run_encodes_nothing_and_a_changed_encoder_is_encoded_again(photos: Path, tmp_path: Path) -> None:
    first, second = ColourEncoder("one"), ColourEncoder("two")
    before = compared(photos, tmp_path, first, second)
    again, changed = ColourEncoder("one"), ColourEncoder("two")
    changed.fingerprint = "f" * 64
    after = compared(photos, tmp_path, again, changed)
    assert (again.images_encoded, again.texts_encoded) == (0, 0)
    assert changed.images_encoded >= IMAGES
    assert [one["from_cache"] for one in after.facts["encoders"]] == [True, False]
    assert [one["rsum"] for one in after.facts["encoders"]] == [one["rsum"] for one in before.facts["encoders"]]


def test_an_interrupted_run_goes_on_where_it_stopped(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate, "_SHARD_COST", 4)
    with pytest.raises(KeyboardInterrupt):
        compared(photos, tmp_path, InterruptedEncoder("one"), ColourEncoder("two"))
    whole, resumed = ColourEncoder("two"), ColourEncoder("one")
    compared(photos, tmp_path, resumed, whole)
    assert 0 < resumed.images_encoded < whole.images_encoded


def test_a_sample_is_seeded_and_keeps_all_captions_of_its_images(photos: Path) -> None:
    def drawn(size: int, seed: int = 0) -> list[tuple[str, tuple[str, ...]]]:
        sample = Sample(open_source(photos), size, seed)
        return [(item.item_id, item.image_ids) for item in sample.items() if isinstance(item, Item)]

    five = drawn(5)
    images = {item_id for item_id, owners in five if not owners}
    assert len(images) == 5
    owned = Counter(owner for _, owners in five for owner in owners)
    assert owned == {item_id: 1 if item_id == "broken.png" else 2 for item_id in images}
    assert drawn(5) == five != drawn(5, seed=1)
    assert "bare.png" not in {item_id for item_id, _ in drawn(1000)}
    assert len({item_id for item_id, owners in drawn(1000) if not owners}) == IMAGES + 1


def test_one_model_under_two_names_is_compared_once(found: Comparison) -> None:
    assert [one["encoder"] for one in found.facts["failed"]] == ["twin"]
    assert "the same model as 'clear'" in found.facts["failed"][0]["reason"]


def test_leaks_between_splits_and_near_duplicates_are_counted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 48, 48, 3), dtype=np.uint8)
    rows = []
    for number, pixels in enumerate([*noise, noise[0]]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split = "dev" if number > 2 else "train"
        rows.append({"image": f"{number}.png", "caption": f"number {number % 6}", "split": split})
    table = tmp_path / "t.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    facts = compared(table, tmp_path / "cache", ColourEncoder("one"), ColourEncoder("two")).facts
    assert facts["duplicates"]["groups"] == 1
    (dev,) = [part for part in facts["leaks"] if part["split"] == "dev"]
    assert (dev["images"]["count"], dev["texts"]["count"]) == (1, 1)
    told = "within these 7 images and their captions alone; `twinlens audit` looks through all that an index holds."
    for said in (comparison_text(facts), html.unescape(render_comparison(facts, {}))):
        assert told in said
        assert "1 images of split dev of the sample stand in another split of it too: train 1." in said
    options = SourceOptions(splits=("train",))
    config = CompareConfig(cache=tmp_path / "cache")
    only = compare_encoders(table, [ColourEncoder("one"), ColourEncoder("two")], options=options, config=config)
    assert only.facts["encoders"][0]["counts"]["images"] == 3


def test_a_remote_corpus_is_copied_into_the_cache_once(photos: Path, tmp_path: Path) -> None:
    address = f"zip://::{shutil.make_archive(str(tmp_path / 'photos'), 'zip', photos)}"
    for _ in range(2):
        facts = compared(address, tmp_path / "cache", ColourEncoder("one"), ColourEncoder("two")).facts
        assert facts["encoders"][0]["counts"]["images"] == len([*photos.glob("*/*.png")])
        assert len([*(tmp_path / "cache").glob("*.corpus/files")]) == 1
    assert all(one["from_cache"] for one in facts["encoders"])
    copied = copied_here(address, tmp_path / "tuned", SourceOptions(), quiet=True)
    assert len([*copied.glob("*/*.png")]) == len([*photos.glob("*/*.png")])
    assert copied_here(photos, tmp_path / "tuned", SourceOptions(), quiet=True) == photos


def test_an_address_where_a_path_is_needed_is_told_without_its_password(photos: Path) -> None:
    done = CliRunner().invoke(compare, [str(photos), "--encoders", "a/b,c/d", "--cache", "s3://me:secret@host/cache"])
    assert done.exit_code == 2
    assert "'s3://***@host/cache' is an address; copy it here and name the copy" in done.output


def test_an_encoder_that_fails_costs_its_column_and_the_exit_code(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.html"
    specs = f"local-dir:{tmp_path}/none,{save_tiny(tmp_path / 'tiny')}"
    done = run(photos, "--encoders", specs, "--cache", tmp_path / "cache", "--out", out, "--output", "json", "-q")
    assert done.return_value == 1
    facts = json.loads(done.stdout)
    assert [one["label"].rpartition("/")[2] for one in facts["encoders"]] == ["tiny"]
    assert [one["encoder"] for one in facts["failed"]] == [f"local-dir:{tmp_path}/none"]
    assert str(tmp_path / "none") in facts["failed"][0]["reason"]
    assert "Not compared" in out.read_text("utf-8")
    text = comparison_text(facts)
    assert f"NOT COMPARED: local-dir:{tmp_path}/none" in text
    assert "Difference to" not in text


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--encoders", "lite"], "'lite' alone is given, and a comparison needs two or more", 2),
        (["--encoders", ","], "no encoder is given", 2),
        (["--encoders", "lite,x/y,lite"], "the encoder 'lite' is given twice", 2),
        (["--encoders", "local-dir:a,local-dir:./a"], "the encoder 'local-dir:./a' is given twice", 2),
        (["--encoders", "a/b,c/d", "--sample", "0"], "--sample 0 leaves nothing to tell apart", 2),
        (["--encoders", "a/b,c/d", "--seed", "-1"], "--seed -1 is negative", 2),
        (["--encoders", "a/b,c/d", "--prompt", "none"], "has 0 placeholders", 2),
        (["--encoders", "a/b,hrem:c"], "some see photographs and some region features", 1),
        (["--encoders", "a/b,c/d", "--out", "nowhere/c.html"], "the folder 'nowhere' is not there; make it first", 1),
        (["--encoders", "a/b,c/d", "--out", "."], "it is a folder; name a file in it, such as compare.html", 1),
        (["--encoders", "a/b,c/d", "--split", "test"], "has no split 'test'", 1),
    ],
)
def test_what_is_refused_has_one_clear_error(
    photos: Path, tmp_path: Path, arguments: list[str], message: str, code: int
) -> None:
    error = run(photos, "--cache", tmp_path, "-q", *arguments).exception
    assert isinstance(error, TwinlensError)
    assert message in str(error)
    assert error.exit_code == code
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_captions_is_refused_and_so_is_a_run_without_any_encoder(photos: Path, tmp_path: Path) -> None:
    bare = paint_folder(tmp_path / "bare", 4, captions=False)
    error = run(bare, "--encoders", "lite,a/b", "-q", "--cache", tmp_path / "cache").exception
    assert "holds 0 images with a caption" in str(error)
    error = run(photos, "--encoders", "a/b,c/d", "-q", "--cache", tmp_path / "cache").exception
    assert re.match(r"none of 2 encoders could be used; a/b: ", str(error))
    assert not (tmp_path / "cache").exists()


def test_images_within_a_table_have_thumbnails_too(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.glob("*/*.png"))
    rows = {
        "image": [file.read_bytes() for file in files],
        "caption": [f"something {file.parent.name}" for file in files],
    }
    pq.write_table(pa.table({**rows, "id": [file.name for file in files]}), tmp_path / "t.parquet")
    found = compared(tmp_path / "t.parquet", tmp_path / "cache", HazyEncoder("hazy"), ColourEncoder("clear"))
    assert found.facts["alone"][1]["text_to_image"]["examples"]
    assert all(isinstance(content, bytes) for content in found.images.values())
    assert render_comparison(found.facts, found.images).count("data:image/jpeg") >= 2
