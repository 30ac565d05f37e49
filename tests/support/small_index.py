"""A small real index, published through the store: images under HNSW, texts flat, one pair a row, one rejected item."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage import AnnPlan, CollectionInfo, EncoderInfo, IndexStore, Manifest, OperatingPoint
from storage.catalog import IMAGE_COLUMNS, PAIR_COLUMNS, REJECTED_COLUMNS, TEXT_COLUMNS, write_catalog
from storage.faiss_file import write_ann
from storage.publish import Draft
from storage.schema import COLLECTIONS, Counts, Tuning
from storage.vectors import VectorWriter

DIM = 8
ENCODER = EncoderInfo(spec="test", dim=DIM, fingerprint="f" * 64)


def unit_rows(rows: int, seed: int) -> NDArray[np.float32]:
    """Random unit vectors, (rows, DIM)."""
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def column(name: str, kind: pa.DataType, rows: int) -> pa.Array:
    """A column of made-up values."""
    if name == "row_id":
        return pa.array(range(rows), kind)
    if kind == pa.list_(pa.string()):
        return pa.array([[f"{name}-{row}"] for row in range(rows)], kind)
    if kind == pa.string():
        return pa.array([f"{name}-{row}" for row in range(rows)], kind)
    return pa.array([row * 10 for row in range(rows)], kind)


def tables(rows: int) -> dict[str, pa.Table]:
    """The four tables of a catalog with this many images and texts."""
    images = pa.table({name: column(name, kind, rows) for name, kind in IMAGE_COLUMNS.items()})
    return {
        "images": images.append_column("Year", pa.array([2000 + row for row in range(rows)])),
        "texts": pa.table({name: column(name, kind, rows) for name, kind in TEXT_COLUMNS.items()}),
        "pairs": pa.table({name: pa.array(range(rows), kind) for name, kind in PAIR_COLUMNS.items()}),
        "rejected": pa.table({name: pa.array([name], kind) for name, kind in REJECTED_COLUMNS.items()}),
    }


def fill(draft: Draft, rows: int, seed: int = 0) -> AnnPlan:
    """Write all files of a version and return the plan of its images."""
    for collection in COLLECTIONS:
        (draft.path / collection).mkdir()
        with VectorWriter(draft.path / collection / "vectors.arrow", DIM) as writer:
            writer.append([f"item_id-{row}" for row in range(rows)], unit_rows(rows, seed))
    write_catalog(draft.path / "catalog.duckdb", **tables(rows))
    index = faiss.index_factory(DIM, "HNSW32_SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.train(unit_rows(rows, seed))
    index.add(unit_rows(rows, seed))
    write_ann(index, draft.path / "images" / "ann.faiss")
    return AnnPlan(kind="hnsw", factory="HNSW32_SQfp16")


def counts(rows: int) -> Counts:
    """What the manifest counts."""
    return Counts(items=2 * rows + 1, indexed=2 * rows, rejected=1, images=rows, texts=rows, pairs=rows)


def collections(rows: int, plan: AnnPlan) -> dict[str, CollectionInfo]:
    """What the manifest says of both halves."""
    point = OperatingPoint(k=10, nprobe=16, oversample=1, ann_recall=0.5, ms_per_query=0.25)
    tuning = {"text_to_image": Tuning(query_source="corpus", queries=rows, points=(point,))}
    return {
        "images": CollectionInfo(rows=rows, ann=plan, tuning=tuning),
        "texts": CollectionInfo(rows=rows, ann=AnnPlan(kind="flat")),
    }


def publish(store: IndexStore, rows: int, seed: int = 0, extra: Mapping[str, bytes] = MappingProxyType({})) -> Manifest:
    """Publish one version with this many images and texts, and these files besides."""
    with store.lock():
        draft = store.draft()
        plan = fill(draft, rows, seed)
        for name, data in extra.items():
            (draft.path / name).parent.mkdir(exist_ok=True)
            (draft.path / name).write_bytes(data)
        return store.publish(
            draft, encoder=ENCODER, collections=collections(rows, plan), counts=counts(rows), build={"rows": rows}
        )


def rows_found(path: Path) -> int:
    """Open the current version, verified in full, search it, and return how many images it has."""
    with IndexStore.open(path).open_version() as version:
        rows = version.vectors("images").rows
        assert version.manifest.build == {"rows": rows}
        assert len(version.catalog.rows("images", range(rows))) == rows
        found, _ = version.ann("images").search(np.eye(1, DIM), 1, nprobe=16, oversample=1)
        assert 0 <= found[0, 0] < rows
        return rows
