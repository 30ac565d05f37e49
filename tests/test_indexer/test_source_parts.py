"""Ready-made vectors in parts: empty shards, patterns, tables in several files, what clip-retrieval writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from colour import ColourEncoder

from indexer import BuildError, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, SourceOptions
from indexer.corpus.embeddings.clip_retrieval import is_clip_retrieval
from indexer.errors import SourceError
from storage import IndexStore


def unit(rows: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def images(path: Path, **files: Any) -> EmbeddingSource:
    return EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=path, **files)))


def vectors(source: EmbeddingSource) -> np.ndarray:
    return np.concatenate([chunk.vectors for chunk in source.chunks("images")])


def saved(folder: Path, parts: list[np.ndarray], name: str = "e_{}.npy") -> Path:
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(parts):
        np.save(folder / name.format(number), part)
    return folder


def as_lists(values: np.ndarray) -> pa.Array:
    return pa.array(values.tolist(), pa.list_(pa.float32()))


# --- shards without rows, and patterns


@pytest.mark.parametrize("empty", [np.empty((0, 8), np.float32), np.empty((0, 0), np.float16), np.empty(0)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_empty_shard_gives_no_rows_and_a_note(tmp_path: Path, empty: np.ndarray, place: int) -> None:
    values = unit(20)
    parts = [values[:10], values[10:]]
    source = images(saved(tmp_path / "e", [*parts[:place], empty, *parts[place:]]))
    np.testing.assert_allclose(vectors(source), values, atol=1e-3)
    assert source.notes == (f"1 of 3 files of vectors hold no row, first e_{place}.npy",)


def test_an_empty_shard_of_parquet_gives_no_rows(tmp_path: Path) -> None:
    values = unit(5)
    pq.write_table(pa.table({"id": ["a", "b", "c", "d", "e"], "emb": as_lists(values)}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"id": pa.nulls(0), "emb": pa.nulls(0)}), tmp_path / "1.parquet")
    source = images(tmp_path)
    (chunk,) = source.chunks("images")
    assert chunk.item_ids == ["a", "b", "c", "d", "e"]
    assert source.notes == ("1 of 2 files of vectors hold no row, first 1.parquet",)


def test_vectors_without_any_row_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"e holds no vector: e_0\.npy has no rows"):
        images(saved(tmp_path / "e", [np.empty((0, 8), np.float32)] * 2))
    np.save(tmp_path / "flat.npy", np.empty((3, 0), np.float32))
    with pytest.raises(SourceError, match=r"of shape \(3, 0\)"):
        images(tmp_path / "flat.npy")


def test_a_shard_of_a_single_number_is_no_empty_one(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.float32(1))
    with pytest.raises(SourceError, match=r"of shape \(\)"):
        images(tmp_path / "one.npy")


@pytest.mark.parametrize("pattern", ["e_*.npy", "e_{0..11}.npy", "e_?*.npy"])
def test_a_pattern_reads_its_files_in_natural_order(tmp_path: Path, pattern: str) -> None:
    values = unit(12)
    folder = saved(tmp_path / "set [1]", [values[n : n + 1] for n in range(12)])
    np.save(folder / "other.npy", unit(3))
    np.testing.assert_allclose(vectors(images(folder / pattern)), values, atol=1e-3)
    with pytest.raises(SourceError, match="no vectors fits"):
        images(folder / "x_*.npy")


def test_rows_with_nan_are_rejected_in_every_shard(tmp_path: Path) -> None:
    parts = [unit(4, seed=1), unit(4, seed=2)]
    parts[0][1, 3] = np.nan
    parts[1][2] = np.inf
    rejected = [one for chunk in images(saved(tmp_path / "e", parts)).chunks("images") for one in chunk.rejected]
    assert [(one.item_id, one.reason) for one in rejected] == [("1", "not_finite"), ("6", "not_finite")]


# --- tables in several files


def test_a_folder_of_metadata_is_read_beside_a_folder_of_vectors(tmp_path: Path) -> None:
    folder = saved(tmp_path / "e", [unit(1, seed=n) for n in range(11)])
    (tmp_path / "m").mkdir()
    for n in range(11):
        extra = {"late": ["x"]} if n > 5 else {}
        pq.write_table(pa.table({"image_path": [f"{n}.jpg"], "n": [n], **extra}), tmp_path / "m" / f"m_{n}.parquet")
    pq.write_table(pa.table({"image_path": pa.array([], pa.string())}), tmp_path / "m" / "m_11.parquet")
    (chunk, *rest) = images(folder, table=tmp_path / "m").chunks("images")
    chunks = [chunk, *rest]
    assert [uri for one in chunks for uri in one.uris] == [f"{n}.jpg" for n in range(11)]
    assert [row for one in chunks for row in one.metadata["n"].to_pylist()] == list(range(11))
    assert [row for one in chunks for row in one.metadata["late"].to_pylist()] == [None] * 6 + ["x"] * 5


def test_a_folder_of_paths_alone_is_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "e", [unit(2), unit(1)])
    (tmp_path / "m").mkdir()
    pq.write_table(pa.table({"image_path": ["a", "b"]}), tmp_path / "m" / "0.parquet")
    pq.write_table(pa.table({"image_path": ["c"]}), tmp_path / "m" / "1.parquet")
    assert [uri for chunk in images(folder, table=tmp_path / "m").chunks("images") for uri in chunk.uris] == [
        "a",
        "b",
        "c",
    ]


def test_tables_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "e", [unit(2)])
    (tmp_path / "m").mkdir()
    pq.write_table(pa.table({"image_path": ["a"]}), tmp_path / "m" / "0.parquet")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "m" / "1.parquet")
    with pytest.raises(SourceError, match="only some of the tables of m hold uris"):
        images(folder, table=tmp_path / "m")
    (tmp_path / "m" / "1.parquet").unlink()
    with pytest.raises(SourceError, match="holds 2 vectors, but there are 1 paths in m"):
        images(folder, table=tmp_path / "m")


# --- clip-retrieval


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """What `clip-retrieval inference` leaves: three parts, named with as many digits as there are, float16."""
    folder = tmp_path / "embeddings"
    for part in range(3):
        for name, seed in (("img_emb", part), ("text_emb", 10 + part)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / name / f"{name}_{part}.npy", unit(4, seed=seed).astype(np.float16))
        (folder / "metadata").mkdir(exist_ok=True)
        keys = [f"{part:05}{row:04}" for row in range(4)]
        columns = {"image_path": keys, "caption": [f"caption {key}" for key in keys], "url": keys, "width": [640] * 4}
        pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{part}.parquet")
    return folder


def tables(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    with IndexStore.open(out).open_version() as version:
        images, texts, pairs = (version.catalog.table(name).to_pylist() for name in ("images", "texts", "pairs"))
    return images, texts, pairs


def test_what_clip_retrieval_writes_is_an_index_of_pairs(written: Path, tmp_path: Path) -> None:
    report = build_index(written, tmp_path / "out")
    images, texts, pairs = tables(tmp_path / "out")
    assert (report.manifest.counts.images, report.manifest.counts.texts, report.manifest.counts.pairs) == (12, 12, 12)
    assert [image["uri"] for image in images] == [f"{part:05}{row:04}" for part in range(3) for row in range(4)]
    assert texts[5]["caption"] == "caption 000010001"
    assert images[5]["url"] == "000010001"
    assert all(pair["image_row"] == pair["text_row"] for pair in pairs)
    with IndexStore.open(tmp_path / "out").open_version() as version:
        np.testing.assert_allclose(version.vectors("images").gather(np.array([5]))[0], unit(4, seed=1)[1], atol=1e-3)
        np.testing.assert_allclose(version.vectors("texts").gather(np.array([5]))[0], unit(4, seed=11)[1], atol=1e-3)


@pytest.mark.parametrize("half", ["img_emb", "text_emb"])
def test_half_of_what_clip_retrieval_writes_is_an_index_too(written: Path, tmp_path: Path, half: str) -> None:
    (written / half).rename(tmp_path / "elsewhere")
    (written / "metadata").rename(tmp_path / "metadata")
    counts = build_index(written, tmp_path / "out").manifest.counts
    assert (counts.images, counts.texts, counts.pairs) == ((0, 12, 0) if half == "img_emb" else (12, 0, 0))


def test_parts_that_do_not_fit_are_refused(written: Path, tmp_path: Path) -> None:
    (written / "text_emb" / "text_emb_2.npy").unlink()
    (written / "metadata").rename(tmp_path / "metadata")
    with pytest.raises(SourceError, match="12 image vectors and 8 text vectors, and row belongs to row"):
        build_index(written, tmp_path / "out")


def test_options_of_a_corpus_do_not_go_with_ready_made_vectors(written: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds ready-made vectors"):
        build_index(written, tmp_path / "out", options=SourceOptions(text="caption"))
    with pytest.raises(BuildError, match="encoder 'colour' gives 48 dimensions and the embeddings have 8"):
        build_index(written, tmp_path / "out", encoder=ColourEncoder())
    assert not is_clip_retrieval(tmp_path)
