"""Stored vectors to search: seeded, unit length, written and mapped as an index has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.ann.plan import plan_ann
from indexer.ann.train import build_ann
from storage.ann import AnnIndex
from storage.schema import AnnKind
from storage.vectors import VectorTable, VectorWriter


def unit_rows(rows: int, dim: int, seed: int = 0, clusters: int = 12) -> NDArray[np.float32]:
    """Vectors in clusters, as embeddings come: (rows, dim) float32, unit length."""
    generator = np.random.default_rng([seed, rows, dim])
    centres = np.random.default_rng(dim).standard_normal((clusters, dim))
    vectors = centres[generator.integers(0, clusters, rows)] + 0.7 * generator.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_table(folder: Path, vectors: NDArray[Any], batch_rows: int = 1000) -> VectorTable:
    """Write vectors to `folder/vectors.arrow` and map them; the batches are small, so that rows cross their borders."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vectors.arrow"
    with VectorWriter(path, vectors.shape[1], batch_rows) as writer:
        writer.append([f"item-{row}" for row in range(len(vectors))], vectors)
    return VectorTable.open(path)


def build_index(
    folder: Path, kind: AnnKind, table: VectorTable, nlist: int | None = None, queries: NDArray[Any] | None = None
) -> AnnIndex:
    """Train, write and open an index of this kind over a table."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}.faiss"
    plan = build_ann(table, plan_ann(kind, table.rows, table.dim, nlist=nlist), path, queries=queries)
    return AnnIndex.open(path, plan, table)


def brute_force(table: VectorTable, queries: NDArray[Any], k: int, rows: NDArray[Any] | None = None) -> NDArray[Any]:
    """Row ids of the best k in float64, ties by lower row id, padded with -1: the plainest form of the truth."""
    allowed = np.arange(table.rows) if rows is None else rows
    scores = queries.astype(np.float64) @ table.gather(allowed).astype(np.float64).T
    found = allowed[np.argsort(-scores, axis=1, kind="stable")[:, :k]]
    return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)
