"""`build-index` as it is typed: options that fit, options that do not, and what an update remembers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from colour import ColourEncoder, paint, unit

from indexer import BuildError, RejectedError, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, SourceOptions, open_source
from storage import IndexStore, Manifest
from storage.errors import DuplicateItemError
from twinlens.commands.build import build


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Eight vectors, one of which is not a number."""
    values = unit(np.random.default_rng(1).normal(size=(8, 16)))
    values[3] = np.nan
    np.save(tmp_path / "v.npy", values)
    return tmp_path / "v.npy"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A table whose columns have names of their own."""
    paint(tmp_path / "a.png", "red")
    paint(tmp_path / "b.png", "blue")
    table = tmp_path / "shop.csv"
    table.write_text("sku,photo,title,price\n1,a.png,red,3\n2,b.png,blue,4\n", encoding="utf-8")
    return table


def ran(*arguments: object) -> Result:
    return CliRunner().invoke(build, [*map(str, arguments), "-q"], standalone_mode=True)


def manifest(out: Path) -> Manifest:
    with IndexStore.open(out).open_version() as version:
        return version.manifest


@pytest.mark.parametrize("option", ["--pairs", "--image-ids", "--text-ids", "--image-metadata", "--captions"])
def test_options_of_embeddings_are_refused_beside_a_corpus(photos: Path, tmp_path: Path, option: str) -> None:
    result = ran(photos, "--out", tmp_path / "out", option, "x.csv")
    assert result.exit_code != 0
    assert "goes with ready-made embeddings" in result.output


@pytest.mark.parametrize("option", ["--split", "--image", "--text", "--metadata", "--root"])
def test_options_of_a_corpus_are_refused_beside_embeddings(vectors: Path, tmp_path: Path, option: str) -> None:
    result = ran("--image-embeddings", vectors, "--out", tmp_path / "out", option, "x")
    assert f"{option} goes with a corpus" in result.output


def test_captions_need_text_embeddings(vectors: Path, tmp_path: Path) -> None:
    result = ran("--image-embeddings", vectors, "--captions", "c.txt", "--out", tmp_path / "out")
    assert "--text-metadata needs --text-embeddings" in result.output


def test_an_empty_path_is_not_the_working_directory(tmp_path: Path) -> None:
    assert "the path is empty" in ran("", "--out", tmp_path / "out").output


def test_embeddings_keep_to_max_rejected(vectors: Path, tmp_path: Path) -> None:
    def source() -> EmbeddingSource:
        return EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=vectors)))

    with pytest.raises(RejectedError, match=r"1 items were rejected, more than --max-rejected 10%"):
        build_index(source(), tmp_path / "out", max_rejected=0.1)
    assert build_index(source(), tmp_path / "out", max_rejected=1).rejected == {"not_finite": 1}


def test_all_items_may_be_rejected_but_one(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    report = build_index(photos, tmp_path / "out", encoder=ColourEncoder(), max_rejected=float("inf"))
    assert report.manifest.build["config"]["max_rejected"] is None


@pytest.mark.parametrize("settings", [{"seed": -1}, {"max_rejected": float("nan")}])
def test_settings_that_no_manifest_can_keep_are_refused_at_once(
    photos: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(BuildError, match=next(iter(settings))):
        build_index(photos, tmp_path / "out", encoder=ColourEncoder(), **settings)
    assert not (tmp_path / "out").exists()


def test_an_update_that_names_one_column_keeps_the_others(shop: Path, tmp_path: Path) -> None:
    options = SourceOptions(image="photo", text="title", id="sku")
    build_index(shop, tmp_path / "out", encoder=ColourEncoder(), options=options)
    report = build_index(
        shop, tmp_path / "out", encoder=ColourEncoder(), update=True, options=SourceOptions(metadata=("price",))
    )
    assert (report.manifest.counts.images, report.manifest.counts.texts) == (2, 2)
    assert report.manifest.build["source_options"]["id"] == "sku"


def test_an_update_keeps_the_kind_of_index_until_another_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.encode.build_encoder.load_encoder", lambda *_: ColourEncoder())
    out = tmp_path / "out"
    assert ran(photos, "--out", out, "--ann", "hnsw", "--encoder", "colour").exit_code == 0
    paint(photos / "new.png", "red", noise=77)
    assert ran(photos, "--out", out, "--update").exit_code == 0
    assert manifest(out).collections["images"].ann.kind == "hnsw"
    assert ran(photos, "--out", out, "--update", "--ann", "auto").exit_code == 0
    assert manifest(out).collections["images"].ann.kind == "flat"


def test_an_update_of_a_corpus_that_has_moved_remembers_its_new_place(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    photos.rename(tmp_path / "moved")
    encoder = ColourEncoder()
    report = build_index(tmp_path / "moved", tmp_path / "out", encoder=encoder, update=True)
    assert (report.published, encoder.images_encoded) == (True, 0)
    assert report.manifest.corpus.root == str((tmp_path / "moved").resolve())


def test_an_update_with_nothing_to_update_makes_no_folder(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="holds no version to update"):
        build_index(photos, tmp_path / "typo", update=True)
    assert not (tmp_path / "typo").exists()


def test_an_update_without_changes_still_keeps_to_max_rejected(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    with pytest.raises(RejectedError, match="--max-rejected 0 allows"):
        build_index(photos, tmp_path / "out", encoder=ColourEncoder(), update=True, max_rejected=0)


def test_two_texts_with_one_id_are_found_before_anything_is_encoded(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"id": "a", "text": ["x", "y"]}\n{"id": "a#0", "text": "z"}\n', encoding="utf-8")
    encoder = ColourEncoder()
    with pytest.raises(DuplicateItemError, match=r"'a#0' .* line 1 of t.jsonl and in line 2"):
        build_index(table, tmp_path / "out", encoder=encoder, options=SourceOptions(id="id", text="text"))
    assert encoder.texts_encoded == 0


def test_an_index_among_the_pictures_is_no_part_of_the_corpus(photos: Path) -> None:
    build_index(photos, photos / "photos.index", encoder=ColourEncoder())
    source = open_source(photos)
    assert source.notes == ()
    assert not build_index(photos, photos / "photos.index", encoder=ColourEncoder(), update=True).published


def test_a_path_that_is_not_utf8_is_refused_or_spelled_out(photos: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"x\xff")
    with pytest.raises(BuildError, match="is not UTF-8"):
        build_index(photos, tmp_path / name, encoder=ColourEncoder())
    try:
        (tmp_path / f"{name}.csv").write_text("text\nred\n", encoding="utf-8")
    except OSError:
        pytest.skip("this file system keeps only UTF-8 names")
    with pytest.raises(BuildError, match="is not UTF-8"):
        build_index(tmp_path / f"{name}.csv", tmp_path / "out", encoder=ColourEncoder())
    report = build_index(photos.rename(tmp_path / name), tmp_path / "out", encoder=ColourEncoder())
    assert str(report.to_json()).encode("utf-8")


def test_a_memory_limit_below_what_the_program_holds_says_so(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"--memory 1M is less than the [\d,]+ MiB that the program holds"):
        build_index(photos, tmp_path / "out", encoder=ColourEncoder(), ann="hnsw", memory_bytes=2**20)
