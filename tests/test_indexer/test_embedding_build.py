"""Ready-made vectors become an index without an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colour import ColourEncoder, unit

from indexer import BuildError, EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from storage import IndexStore

ROWS, DIM = 60, 48


@pytest.fixture
def vectors() -> np.ndarray:
    return unit(np.random.default_rng(0).standard_normal((ROWS, DIM)))


def source(folder: Path, images: np.ndarray, texts: np.ndarray | None = None, pairs: str = "") -> EmbeddingSource:
    np.save(folder / "images.npy", images)
    sides = {"images": EmbeddingFiles(vectors=folder / "images.npy")}
    if texts is not None:
        np.save(folder / "texts.npy", texts)
        (folder / "captions.txt").write_text("\n".join(f"caption {n}" for n in range(len(texts))), "utf-8")
        sides["texts"] = EmbeddingFiles(vectors=folder / "texts.npy", table=folder / "captions.txt")
    if pairs:
        (folder / "pairs.csv").write_text("image_row,text_row\n" + pairs, "utf-8")
    return EmbeddingSource(EmbeddingOptions(**sides, pairs=folder / "pairs.csv" if pairs else None))


def test_vectors_ids_captions_and_pairs_arrive_as_they_were_given(tmp_path: Path, vectors: np.ndarray) -> None:
    manifest = build_index(source(tmp_path, vectors, vectors[:10], "3,0\n3,1\n7,2\n"), tmp_path / "out").manifest
    assert manifest.encoder is None
    assert (manifest.counts.images, manifest.counts.texts, manifest.counts.pairs) == (ROWS, 10, 3)
    with IndexStore.open(tmp_path / "out").open_version() as version:
        assert list(version.vectors("images").item_ids(np.array([0, 59]))) == ["0", "59"]
        np.testing.assert_allclose(version.vectors("images").gather(np.arange(ROWS)), vectors, atol=1e-3)
        assert version.catalog.rows("images", [3])[0]["caption"] == "caption 0"
        assert version.catalog.table("pairs").to_pylist()[2] == {"image_row": 7, "text_row": 2}


def test_splits_of_the_table_beside_vectors_are_those_of_the_index(tmp_path: Path, vectors: np.ndarray) -> None:
    np.save(tmp_path / "images.npy", np.concatenate([vectors[:5], np.zeros_like(vectors[:1])]))
    splits = ["train", "test", "", "test", "train", "test"]
    lines = [f"{row},{split}" for row, split in enumerate(splits)]
    (tmp_path / "rows.csv").write_text("\n".join(["price,split", *lines]), "utf-8")
    files = EmbeddingFiles(vectors=tmp_path / "images.npy", table=tmp_path / "rows.csv")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), tmp_path / "out")
    with IndexStore.open(tmp_path / "out").open_version() as version:
        table = version.catalog.table("images", ["item_id", "price", "split"]).to_pylist()
        assert [row["split"] for row in table] == ["train", "test", None, "test", "train"]
        assert table[3] == {"item_id": "3", "price": 3, "split": "test"}
        assert version.catalog.table("rejected").num_rows == 1


def test_a_row_with_nan_is_rejected_and_its_pairs_go(tmp_path: Path, vectors: np.ndarray) -> None:
    vectors[3, 0] = np.nan
    counts = build_index(source(tmp_path, vectors, vectors[10:20], "3,0\n4,1\n"), tmp_path / "out").manifest.counts
    assert (counts.images, counts.rejected, counts.pairs, counts.items) == (ROWS - 1, 1, 1, ROWS + 10)
    with IndexStore.open(tmp_path / "out").open_version() as version:
        assert version.catalog.table("rejected").column("item_id").to_pylist() == ["3"]
        pair = version.catalog.table("pairs").to_pylist()[0]
        # Row 4 of the file is row 3 of the index: its item id says which it is.
        assert list(version.vectors("images").item_ids(np.array([pair["image_row"]]))) == ["4"]


def test_metadata_of_images_and_texts_may_differ(tmp_path: Path, vectors: np.ndarray) -> None:
    (tmp_path / "facts.csv").write_text("year\n" + "\n".join(str(1990 + n % 9) for n in range(ROWS)), "utf-8")
    np.save(tmp_path / "a.npy", vectors)
    np.save(tmp_path / "b.npy", vectors[:5])
    options = EmbeddingOptions(
        images=EmbeddingFiles(vectors=tmp_path / "a.npy", table=tmp_path / "facts.csv"),
        texts=EmbeddingFiles(vectors=tmp_path / "b.npy"),
    )
    build_index(EmbeddingSource(options), tmp_path / "out")
    with IndexStore.open(tmp_path / "out").open_version() as version:
        assert version.catalog.rows("images", [8])[0]["year"] == 1998
        assert "year" not in version.catalog.rows("texts", [0])[0]


def test_an_encoder_may_be_named_for_the_queries_to_come(tmp_path: Path, vectors: np.ndarray) -> None:
    encoder = ColourEncoder()
    manifest = build_index(source(tmp_path, vectors), tmp_path / "out", encoder=encoder).manifest
    assert manifest.encoder is not None
    assert manifest.encoder.fingerprint == encoder.fingerprint


def test_an_encoder_of_another_dim_is_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    with pytest.raises(BuildError, match="gives 48 dimensions and the embeddings have 20"):
        build_index(source(tmp_path, unit(vectors[:, :20])), tmp_path / "out", encoder=ColourEncoder())


def test_ready_made_vectors_cannot_be_updated(tmp_path: Path, vectors: np.ndarray) -> None:
    with pytest.raises(BuildError, match="--update works on a corpus"):
        build_index(source(tmp_path, vectors), tmp_path / "out", update=True)


def test_a_trained_index_is_measured_in_each_direction(tmp_path: Path, vectors: np.ndarray) -> None:
    many = unit(np.random.default_rng(1).standard_normal((600, DIM)))
    manifest = build_index(source(tmp_path, many, many[:100]), tmp_path / "out", ann="ivf-pq4").manifest
    assert {name: set(info.tuning) for name, info in manifest.collections.items()} == {
        "images": {"text_to_image", "image_to_image"},
        "texts": {"image_to_text", "text_to_text"},
    }
    for info in manifest.collections.values():
        for tuning in info.tuning.values():
            recalls = [point.ann_recall for point in tuning.points if point.k == 10]
            assert recalls == sorted(recalls)
            assert recalls[-1] >= 0.9
