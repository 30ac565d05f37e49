"""An index leaves as files: whole, with the same numbers, and comes back as the same index."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import tables

from indexer import EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from storage import IndexStore, StorageError
from storage.export import ExportOptions, export_index
from storage.files import atomic


def stored(index: Path, collection: str = "images") -> np.ndarray:
    with IndexStore.open(index).open_version() as version:
        vectors = version.vectors(collection)
        return vectors.gather(np.arange(vectors.rows))


def vectors_of(path: Path) -> np.ndarray:
    column = pq.read_table(path).column("vector").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_parquet_holds_ids_vectors_metadata_and_pairs(index: Path, tmp_path: Path) -> None:
    report = export_index(index, str(tmp_path / "out"))
    assert report.rows == {"images": 6, "texts": 6}
    assert names_in(tmp_path / "out") == {"images.parquet", "texts.parquet", "pairs.parquet", "export.json"}
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.field("item", pa.float16(), nullable=False), 8)
    assert vectors_of(tmp_path / "out" / "images.parquet").tobytes() == stored(index).tobytes()
    known = tables(6)["images"]
    for name in ("item_id", "uri", "caption", "width", "sha256", "Year"):
        assert table.column(name).to_pylist() == known.column(name).to_pylist()
    pairs = pq.read_table(tmp_path / "out" / "pairs.parquet").to_pylist()
    assert pairs[2] == {"image_row": 2, "text_row": 2, "image_id": "item_id-2", "text_id": "item_id-2"}
    said = json.loads((tmp_path / "out" / "export.json").read_text("utf-8"))
    assert (said["version"], said["encoder"]["fingerprint"]) == (2, "f" * 64)


def test_float32_holds_the_same_numbers(index: Path, tmp_path: Path) -> None:
    export_index(index, str(tmp_path / "out"), ExportOptions(dtype="float32"))
    found = vectors_of(tmp_path / "out" / "texts.parquet")
    assert found.dtype == np.float32
    assert (found == stored(index, "texts").astype(np.float32)).all()


def test_a_filter_and_a_choice_of_columns_an_older_version_one_half(index: Path, tmp_path: Path) -> None:
    options = ExportOptions(where='"Year" >= 2003', columns=("Year",), version=1, collections=("images",))
    export_index(index, str(tmp_path / "out"), options)
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    assert table.column_names == ["item_id", "vector", "Year"]
    assert table.column("Year").to_pylist() == [2003, 2004]
    assert names_in(tmp_path / "out") == {"images.parquet", "export.json"}


def test_pairs_of_a_filtered_export_count_its_own_rows(index: Path, tmp_path: Path) -> None:
    export_index(index, str(tmp_path / "out"), ExportOptions(where="row_id IN (1, 4)"))
    pairs = pq.read_table(tmp_path / "out" / "pairs.parquet").to_pylist()
    assert [(row["image_row"], row["text_row"], row["text_id"]) for row in pairs] == [
        (0, 0, "item_id-1"),
        (1, 1, "item_id-4"),
    ]


def read_back(folder: Path, out: Path, **settings: Any) -> Path:
    """Build an index of an exported folder of `.npy`, as docs/export.md says."""
    sides = {
        name: EmbeddingFiles(
            vectors=folder / name / "vectors.npy",
            ids=folder / name / "items.parquet",
            table=folder / name / "items.parquet",
        )
        for name in ("images", "texts")
    }
    source = EmbeddingSource(EmbeddingOptions(**sides, pairs=folder / "pairs.parquet"))
    build_index(source, out, **settings)
    return out


def test_npy_comes_back_as_the_same_vectors_ids_captions_and_pairs(index: Path, tmp_path: Path) -> None:
    export_index(index, str(tmp_path / "out"), ExportOptions(format="npy"))
    assert np.load(tmp_path / "out" / "images" / "vectors.npy").tobytes() == stored(index).tobytes()
    again = read_back(tmp_path / "out", tmp_path / "again")
    assert stored(again).tobytes() == stored(index).tobytes()
    assert stored(again, "texts").tobytes() == stored(index, "texts").tobytes()
    with IndexStore.open(index).open_version() as old, IndexStore.open(again).open_version() as new:
        assert new.catalog.table("pairs").equals(old.catalog.table("pairs"))
        for name in ("item_id", "caption"):
            assert (
                new.catalog.table("texts").column(name).to_pylist()
                == old.catalog.table("texts").column(name).to_pylist()
            )
        assert new.catalog.table("images").column("Year").to_pylist() == [2000 + row for row in range(6)]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 5), dtype=st.sampled_from(["float16", "float32"]))
def test_any_vectors_come_back_to_the_last_bit(
    seed: int, dim: int, dtype: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Few values a vector: there the length strays furthest from 1 when it is rounded to float16.
    folder = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((300, dim)) * rng.choice([1, 1e-5], (300, dim)) + 1e-9
    np.save(folder / "made.npy", made)
    files = EmbeddingFiles(vectors=folder / "made.npy")
    build_index(EmbeddingSource(EmbeddingOptions(images=files, normalize=True)), folder / "one")
    export_index(folder / "one", str(folder / "out"), ExportOptions(format="npy", dtype=dtype))
    vectors = EmbeddingFiles(vectors=folder / "out" / "images" / "vectors.npy")
    build_index(EmbeddingSource(EmbeddingOptions(images=vectors)), folder / "two")
    assert stored(folder / "two").tobytes() == stored(folder / "one").tobytes()


def test_lance_is_searched_by_lance(index: Path, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance", reason="pylance is not installed: the extra `lance`")
    export_index(index, str(tmp_path / "out"), ExportOptions(format="lance", dtype="float32"))
    dataset = lance.dataset(str(tmp_path / "out" / "images.lance"))
    query = stored(index)[3].astype(np.float32)
    found = dataset.to_table(nearest={"column": "vector", "q": query, "k": 1, "metric": "cosine"})
    assert found.column("item_id").to_pylist() == ["item_id-3"]
    assert lance.dataset(str(tmp_path / "out" / "pairs.lance")).count_rows() == 6


def test_what_is_there_is_replaced_by_force_alone_and_only_an_export(index: Path, tmp_path: Path) -> None:
    export_index(index, str(tmp_path / "out"))
    with pytest.raises(StorageError, match="exists already"):
        export_index(index, str(tmp_path / "out"))
    export_index(index, str(tmp_path / "out"), ExportOptions(format="npy", force=True))
    assert names_in(tmp_path / "out") >= {"images/vectors.npy"}
    assert not (tmp_path / "out" / "images.parquet").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="not an export"):
        export_index(index, str(tmp_path / "precious"), ExportOptions(force=True))
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(StorageError, match="not an export"):
        export_index(index, str(tmp_path / "link"), ExportOptions(force=True))
    assert {path.name for path in tmp_path.iterdir()} == {"index", "out", "precious", "link"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ExportOptions(where="colour = 'red'"), "colour"),
        (ExportOptions(where="row_id > 900"), "leaves none of 6 images"),
        (ExportOptions(columns=("colour",)), "no column 'colour'"),
        (ExportOptions(version=9), "9"),
    ],
)
def test_what_does_not_fit_the_index_is_named_and_leaves_nothing(
    options: ExportOptions, words: str, index: Path, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match=words):
        export_index(index, str(tmp_path / "out"), options)
    assert {path.name for path in tmp_path.iterdir()} == {"index"}


def test_a_half_that_the_index_lacks_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3, dtype=np.float32))
    source = EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=tmp_path / "a.npy")))
    build_index(source, tmp_path / "index")
    with pytest.raises(StorageError, match="has no texts, it has images"):
        export_index(tmp_path / "index", str(tmp_path / "out"), ExportOptions(collections=("texts",)))


def test_a_parent_that_is_missing_is_named(index: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        export_index(index, str(tmp_path / "nowhere" / "out"))
    with pytest.raises(StorageError, match="cannot export to '/'; name a new folder"):
        export_index(index, "/")


def test_a_failure_on_the_way_leaves_nothing(index: Path, tmp_path: Path, no_hook: None) -> None:
    def full(step: str) -> None:
        if step == "export.synced":
            raise OSError(28, "No space left on device")

    atomic.hook = full
    with pytest.raises(StorageError, match="free some space"):
        export_index(index, str(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"index"}


def test_a_damaged_index_is_not_exported(index: Path, tmp_path: Path) -> None:
    path = index / "versions" / "00000002" / "images" / "vectors.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"images/vectors\.arrow"):
        export_index(index, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


KILLED = """
import os, signal, sys
from storage.export import export_index

def advance(collection, done, total):
    if collection == "texts":
        os.kill(os.getpid(), signal.SIGKILL)

export_index(sys.argv[1], sys.argv[2], advance=advance)
"""


def test_a_killed_export_shows_nothing_and_the_next_one_clears_it(index: Path, tmp_path: Path, home: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(index), str(tmp_path / "out")]
    assert subprocess.run(command, cwd=home, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.exporting").exists()
    export_index(index, str(tmp_path / "out"))
    assert not (tmp_path / ".out.exporting").exists()
    assert vectors_of(tmp_path / "out" / "images.parquet").tobytes() == stored(index).tobytes()


def test_two_exports_to_one_folder_do_not_mix(index: Path, tmp_path: Path) -> None:
    def second(collection: str, done: int, total: int) -> None:
        with pytest.raises(StorageError, match="another export is writing"):
            export_index(index, str(tmp_path / "out"))

    export_index(index, str(tmp_path / "out"), advance=second)
    assert pq.read_table(tmp_path / "out" / "images.parquet").num_rows == 6


def test_a_column_called_vector_goes_out_under_another_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3, dtype=np.float32))
    pq.write_table(pa.table({"Vector": ["a", "b", "c"], "vector_meta": [1, 2, 3]}), tmp_path / "beside.parquet")
    files = EmbeddingFiles(vectors=tmp_path / "a.npy", table=tmp_path / "beside.parquet")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), tmp_path / "index")
    export_index(tmp_path / "index", str(tmp_path / "out"))
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    assert table.column("Vector_meta_").to_pylist() == ["a", "b", "c"]
    assert table.column("vector_meta").to_pylist() == [1, 2, 3]


def test_a_column_called_collection_goes_out_beside_that_of_one_table(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(2, dtype=np.float32))
    pq.write_table(pa.table({"collection": ["stamps", "coins"]}), tmp_path / "beside.parquet")
    files = EmbeddingFiles(vectors=tmp_path / "a.npy", table=tmp_path / "beside.parquet")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), tmp_path / "index")
    export_index(tmp_path / "index", str(tmp_path / "out.parquet"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("collection").to_pylist() == ["images", "images"]
    assert table.column("collection_meta").to_pylist() == ["stamps", "coins"]
    export_index(tmp_path / "index", str(tmp_path / "out"))
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    assert table.column("collection").to_pylist() == ["stamps", "coins"]


def test_an_export_may_leave_out_all_metadata(index: Path, tmp_path: Path) -> None:
    export_index(index, str(tmp_path / "out"), ExportOptions(columns=()))
    assert pq.read_table(tmp_path / "out" / "images.parquet").column_names == ["item_id", "vector"]


def test_a_large_export_goes_out_in_bounded_batches(tmp_path: Path) -> None:
    rows = 40_000
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.standard_normal((rows, 16)).astype(np.float32))
    files = EmbeddingFiles(vectors=tmp_path / "a.npy")
    build_index(EmbeddingSource(EmbeddingOptions(images=files, normalize=True)), tmp_path / "index", ann="flat")
    told: list[int] = []
    export_index(tmp_path / "index", str(tmp_path / "out"), advance=lambda _, done, total: told.append(done))
    assert told == [0, 16_384, 32_768, 40_000]
    with pq.ParquetFile(tmp_path / "out" / "images.parquet") as file:
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [16_384, 16_384, 7_232]
    assert vectors_of(tmp_path / "out" / "images.parquet").tobytes() == stored(tmp_path / "index").tobytes()


def test_a_target_called_parquet_is_one_table_that_pandas_reads(index: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    report = export_index(index, str(tmp_path / "all.parquet"))
    assert (report.rows, report.pairs) == ({"images": 6, "texts": 6}, 0)
    frame = pandas.read_parquet(tmp_path / "all.parquet")
    assert frame.columns[:3].tolist() == ["collection", "item_id", "vector"]
    assert frame["collection"].tolist() == ["images"] * 6 + ["texts"] * 6
    assert frame["item_id"].tolist() == [f"item_id-{n}" for n in range(6)] * 2
    assert np.stack(frame["vector"]).tobytes() == np.concatenate([stored(index), stored(index, "texts")]).tobytes()
    assert frame["width"][6:].isna().all()
    assert names_in(tmp_path) - names_in(index.parent) <= {"all.parquet"}
    assert not (tmp_path / ".all.parquet.exporting").exists()


def test_one_file_is_replaced_only_where_it_is_an_export(index: Path, tmp_path: Path) -> None:
    target = tmp_path / "all.parquet"
    export_index(index, str(target))
    with pytest.raises(StorageError, match="exists already"):
        export_index(index, str(target))
    export_index(index, str(target), ExportOptions(force=True, collections=("images",)))
    assert pq.read_table(target).num_rows == 6
    pq.write_table(pq.read_table(target).replace_schema_metadata(None), target)
    with pytest.raises(StorageError, match="is not an export"):
        export_index(index, str(target), ExportOptions(force=True))


@pytest.mark.parametrize(
    ("name", "kind"), [("x.csv", "parquet"), ("x.npy", "npy"), ("x.parquet", "npy"), ("x.JSON", "parquet")]
)
def test_a_target_called_like_another_file_is_refused(index: Path, tmp_path: Path, name: str, kind: Any) -> None:
    with pytest.raises(StorageError, match=rf"called like a \.\w+ file and --format {kind} writes none"):
        export_index(index, str(tmp_path / name), ExportOptions(format=kind))
