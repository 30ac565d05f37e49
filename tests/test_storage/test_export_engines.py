"""An index goes into a vector engine: Milvus and Qdrant in their embedded forms, which share the clients' calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer import EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from storage import IndexStore, StorageError
from storage.export import ExportOptions, export_index

# The packages have warnings of their own: deprecated calls, sockets that are closed late.
pytestmark = pytest.mark.filterwarnings("ignore")


@contextmanager
def qdrant(path: Path) -> Iterator[Any]:
    client = pytest.importorskip("qdrant_client").QdrantClient(path=str(path))
    try:
        yield client
    finally:
        client.close()


@contextmanager
def milvus(path: Path) -> Iterator[Any]:
    client = pytest.importorskip("pymilvus").MilvusClient(str(path))
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def with_qdrant() -> None:
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: the extra `qdrant`")


@pytest.fixture
def with_milvus() -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed: the extra `milvus`")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: the extra `milvus`")


def vectors_of(index: Path) -> np.ndarray:
    with IndexStore.open(index).open_version() as version:
        return version.vectors("images").gather(np.arange(version.vectors("images").rows)).astype(np.float32)


def collections_in(client: Any) -> set[str]:
    return {one.name for one in client.get_collections().collections}


@pytest.mark.usefixtures("with_qdrant")
def test_qdrant_finds_what_the_index_holds(index: Path, tmp_path: Path) -> None:
    report = export_index(index, f"qdrant:{tmp_path / 'q'}", ExportOptions(name="it"))
    assert (report.kind, report.rows, report.dtype) == ("qdrant", {"images": 6, "texts": 6}, "float32")
    vectors = vectors_of(index)
    with qdrant(tmp_path / "q") as client:
        assert client.count("it_images").count == client.count("it_texts").count == 6
        (best,) = client.query_points("it_images", query=vectors[4].tolist(), limit=1, with_vectors=True).points
        assert best.id == 4
        assert best.score == pytest.approx(float(vectors[4] @ vectors[4]), abs=1e-6)
        assert np.array_equal(np.float32(best.vector), vectors[4])
        assert best.payload["item_id"] == "item_id-4"
        assert best.payload["Year"] == 2004
        assert best.payload["collection"] == "images"
        assert best.payload["paired_items"] == ["item_id-4"]


@pytest.mark.usefixtures("with_qdrant")
def test_qdrant_keeps_the_old_until_the_new_is_whole(index: Path, tmp_path: Path) -> None:
    target = f"qdrant:{tmp_path / 'q'}"
    export_index(index, target, ExportOptions(version=1))
    with pytest.raises(StorageError, match=r"alias 'twinlens_images' already.*--force"):
        export_index(index, target)

    def fail(collection: str, done: int, total: int) -> None:
        if collection == "texts" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_index(index, target, ExportOptions(force=True), fail)
    with qdrant(tmp_path / "q") as client:
        assert client.count("twinlens_images").count == 5
        assert len(collections_in(client)) == 2
    export_index(index, target, ExportOptions(force=True))
    with qdrant(tmp_path / "q") as client:
        assert client.count("twinlens_images").count == client.count("twinlens_texts").count == 6
        assert len(collections_in(client)) == 2


@pytest.mark.usefixtures("with_qdrant")
def test_qdrant_collections_of_others_are_left_alone(index: Path, tmp_path: Path) -> None:
    from qdrant_client import models

    shape = models.VectorParams(size=3, distance=models.Distance.DOT)
    with qdrant(tmp_path / "q") as client:
        client.create_collection("twinlens_images", vectors_config=shape)
        client.create_collection("twinlens_images__v1_mine", vectors_config=shape)
    with pytest.raises(StorageError, match="that no export made"):
        export_index(index, f"qdrant:{tmp_path / 'q'}", ExportOptions(force=True))
    export_index(index, f"qdrant:{tmp_path / 'q'}", ExportOptions(collections=("texts",)))
    with qdrant(tmp_path / "q") as client:
        assert collections_in(client) >= {"twinlens_images", "twinlens_images__v1_mine"}


@pytest.mark.usefixtures("with_milvus")
def test_milvus_finds_what_the_index_holds(index: Path, tmp_path: Path) -> None:
    export_index(index, f"milvus:{tmp_path / 'it.db'}", ExportOptions(name="it"))
    vectors = vectors_of(index)
    with milvus(tmp_path / "it.db") as client:
        assert sorted(client.list_collections()) == ["it_images", "it_texts"]
        client.load_collection("it_images")
        ((best,),) = client.search("it_images", [vectors[4].tolist()], limit=1, output_fields=["*"])
        assert best["row_id"] == 4
        found = best["entity"]
        assert (found["item_id"], found["Year"], found["paired_items"]) == ("item_id-4", 2004, ["item_id-4"])
        assert np.array_equal(np.float32(found["vector"]), vectors[4])
        rows = client.query("it_images", filter="Year >= 2003", output_fields=["item_id"])
        assert {row["item_id"] for row in rows} == {"item_id-3", "item_id-4", "item_id-5"}


@pytest.mark.usefixtures("with_milvus")
def test_milvus_keeps_the_old_until_the_new_is_whole(index: Path, tmp_path: Path) -> None:
    target = f"milvus:{tmp_path / 'it.db'}"
    export_index(index, target, ExportOptions(version=1))
    with pytest.raises(StorageError, match=r"collection 'twinlens_images' already.*--force"):
        export_index(index, target)

    def fail(collection: str, done: int, total: int) -> None:
        if collection == "texts" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_index(index, target, ExportOptions(force=True), fail)
    with milvus(tmp_path / "it.db") as client:
        assert sorted(client.list_collections()) == ["twinlens_images", "twinlens_texts"]
    export_index(index, target, ExportOptions(force=True))
    with milvus(tmp_path / "it.db") as client:
        assert sorted(client.list_collections()) == ["twinlens_images", "twinlens_texts"]
        client.load_collection("twinlens_images")
        assert client.query("twinlens_images", filter="", output_fields=["count(*)"]) == [{"count(*)": 6}]


@pytest.mark.usefixtures("with_milvus")
def test_what_milvus_refuses_is_one_clear_error(index: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Float16Vector"):
        export_index(index, f"milvus:{tmp_path / 'it.db'}", ExportOptions(dtype="float16"))
    with milvus(tmp_path / "it.db") as client:
        assert client.list_collections() == []


@pytest.mark.parametrize("engine", ["qdrant", "milvus"])
def test_an_engine_needs_an_address(engine: str, index: Path) -> None:
    with pytest.raises(StorageError, match="address or a path"):
        export_index(index, f"{engine}:")


@pytest.mark.usefixtures("with_qdrant")
def test_nobody_at_the_address_is_one_clear_error(index: Path) -> None:
    with pytest.raises(StorageError, match=r"at http://127\.0\.0\.1:9"):
        export_index(index, "qdrant:http://127.0.0.1:9")


@pytest.mark.usefixtures("with_qdrant")
def test_values_that_json_lacks_go_out_as_text(tmp_path: Path) -> None:
    from datetime import date
    from decimal import Decimal

    np.save(tmp_path / "a.npy", np.eye(2, dtype=np.float32))
    beside = pa.table(
        {"day": [date(2026, 1, 2), None], "price": [Decimal("1.50"), None], "odd": [float("nan"), float("inf")]}
    )
    pq.write_table(beside, tmp_path / "beside.parquet")
    files = EmbeddingFiles(vectors=tmp_path / "a.npy", table=tmp_path / "beside.parquet")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), tmp_path / "index")
    export_index(tmp_path / "index", f"qdrant:{tmp_path / 'q'}")
    with qdrant(tmp_path / "q") as client:
        (first, second) = client.retrieve("twinlens_images", ids=[0, 1])
    assert (first.payload["day"], first.payload["price"], first.payload["odd"]) == ("2026-01-02", "1.50", None)
    assert (second.payload["day"], second.payload["odd"]) == (None, None)
