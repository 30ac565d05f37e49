"""Updating an index: only what changed is encoded, what is gone is dropped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from colour import ColourEncoder, paint

from indexer import BuildError, EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from storage import IndexStore
from storage.errors import CorruptIndexError


def update(photos: Path, out: Path, **settings: object) -> tuple[ColourEncoder, object]:
    encoder = ColourEncoder()
    return encoder, build_index(photos, out, encoder=encoder, update=True, **settings)


@pytest.fixture
def built(photos: Path, tmp_path: Path, encoder: ColourEncoder) -> Path:
    build_index(photos, tmp_path / "out", encoder=encoder)
    return tmp_path / "out"


def test_an_unchanged_corpus_publishes_nothing(photos: Path, built: Path) -> None:
    encoder, report = update(photos, built)
    assert (report.published, report.version) == (False, 1)
    assert encoder.images_encoded + encoder.texts_encoded == 0


def test_only_new_and_changed_items_are_encoded_and_gone_ones_are_dropped(photos: Path, built: Path) -> None:
    paint(photos / "new.png", "red", noise=99)
    paint(photos / "red" / "0000.png", "blue", size=(50, 50), noise=7)
    (photos / "green" / "0001.png").unlink()
    (photos / "green" / "0001.txt").unlink()
    encoder, report = update(photos, built)
    assert encoder.images_encoded == 2
    assert encoder.texts_encoded == 0
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.pairs) == (40, 78, 78)


def test_an_update_gives_the_tables_of_a_new_build(photos: Path, built: Path, tmp_path: Path) -> None:
    paint(photos / "new.png", "purple", noise=5)
    update(photos, built)
    build_index(photos, tmp_path / "fresh", encoder=ColourEncoder())
    with IndexStore.open(built).open_version() as a, IndexStore.open(tmp_path / "fresh").open_version() as b:
        for collection in ("images", "texts"):
            left, right = a.vectors(collection), b.vectors(collection)
            rows = np.arange(right.rows)
            assert list(left.item_ids(rows)) == list(right.item_ids(rows))
            np.testing.assert_allclose(left.gather(rows), right.gather(rows), atol=2e-3)
        assert a.catalog.table("pairs").equals(b.catalog.table("pairs"))


def test_a_touched_file_with_the_same_bytes_is_not_encoded_again(photos: Path, built: Path) -> None:
    os.utime(photos / "red" / "0000.png", (1, 1))
    encoder, report = update(photos, built)
    assert encoder.images_encoded == 0
    assert report.published


def test_a_changed_caption_is_encoded_alone(photos: Path, built: Path) -> None:
    (photos / "red" / "0000.txt").write_text("a red square, number 0\nquite another text\n", "utf-8")
    encoder, _ = update(photos, built)
    assert (encoder.images_encoded, encoder.texts_encoded) == (0, 1)


def test_an_update_with_another_encoder_is_refused(photos: Path, built: Path) -> None:
    with pytest.raises(BuildError, match="'other' is another"):
        build_index(photos, built, encoder=ColourEncoder("other"), update=True)


def test_there_must_be_something_to_update(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="holds no version to update"):
        update(photos, tmp_path / "nothing")


def test_an_update_over_a_damaged_pointer_encodes_nothing(photos: Path, built: Path) -> None:
    """The version that it names by mistake is no parent."""
    paint(photos / "new.png", "red", noise=99)
    _, digest = (built / "CURRENT").read_text("ascii").split()
    (built / "CURRENT").write_text(f"00000001 {digest[::-1]}\n")
    encoder = ColourEncoder()
    with pytest.raises(CorruptIndexError, match="CURRENT"):
        build_index(photos, built, encoder=encoder, update=True)
    assert encoder.images_encoded == 0


def test_metadata_that_changed_reaches_the_catalog_without_encoding(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    table = tmp_path / "shop.csv"
    table.write_text("image,text,price\na.png,a red thing,10\n", encoding="utf-8")
    build_index(table, tmp_path / "out", encoder=ColourEncoder())
    table.write_text("image,text,price\na.png,a red thing,12\n", encoding="utf-8")
    encoder, _ = update(table, tmp_path / "out")
    assert encoder.images_encoded + encoder.texts_encoded == 0
    with IndexStore.open(tmp_path / "out").open_version() as version:
        assert version.catalog.rows("images", [0])[0]["price"] == 12


def test_an_index_of_ready_made_embeddings_is_not_continued_with_an_encoder(photos: Path, tmp_path: Path) -> None:
    vectors = np.eye(48, dtype=np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    options = EmbeddingOptions(images=EmbeddingFiles(vectors=tmp_path / "vectors.npy"))
    build_index(EmbeddingSource(options), tmp_path / "out")
    with pytest.raises(BuildError, match="was made of ready-made embeddings"):
        update(photos, tmp_path / "out")


def test_the_root_of_the_corpus_is_recorded_for_every_working_directory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    report = build_index("photos", tmp_path / "out", encoder=ColourEncoder())
    assert report.manifest.corpus.root == str(photos)
    monkeypatch.chdir(photos)
    _, again = update(Path(), tmp_path / "out")
    assert not again.published
