"""One adapter an engine, so that all build from the same file and answer the same queries.

Each is given its usual settings for inner product at this size and a grid of its search parameter. An engine whose
package is not installed is left out, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
CHUNK = 50_000


class Engine(Protocol):
    """What is measured of every engine.

    Attributes:
        package: The import name that must be installed.
        grid: Search settings from cheap to thorough.
        pinned: Whether one query at a time is asked on one core; False (True where left out) for engines whose own
            threads come to a standstill there, and which so have all cores.
    """

    package: str
    grid: Sequence[Any]

    def build(self, folder: Path, out: Path) -> None:
        """Make an index of `folder/images.npy`, (n, dim) float16 unit rows, at `out`."""

    def open(self, out: Path, folder: Path) -> None:
        """Make ready to search, as a server would at its start."""

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        """Return (nq, k) row ids for one query or many; `kind` is `text` or `image`."""


def vectors(folder: Path) -> NDArray[np.float16]:
    """Return the base vectors, memory-mapped."""
    return np.load(folder / "images.npy", mmap_mode="r")


def chunks(folder: Path) -> Iterator[tuple[int, Floats]]:
    """Yield (first row, float32 rows)."""
    base = vectors(folder)
    for start in range(0, len(base), CHUNK):
        yield start, base[start : start + CHUNK].astype(np.float32)


class Twinlens:
    """This project as a user has it: `build-index` from embeddings, searches by wished-for recall, ids and scores."""

    package = "searcher"
    grid = (
        0.8,
        0.85,
        0.9,
        0.92,
        0.93,
        0.94,
        0.95,
        0.955,
        0.96,
        0.965,
        0.97,
        0.975,
        0.98,
        0.985,
        0.9875,
        0.99,
        0.9925,
        0.995,
        0.999,
    )

    def build(self, folder: Path, out: Path) -> None:
        from indexer import EmbeddingSource, build_index
        from indexer.corpus import EmbeddingFiles, EmbeddingOptions

        files = EmbeddingFiles(vectors=folder / "images.npy"), EmbeddingFiles(vectors=folder / "learn_text.npy")
        build_index(EmbeddingSource(EmbeddingOptions(images=files[0], texts=files[1])), out)

    def open(self, out: Path, folder: Path) -> None:
        from searcher import Searcher

        self.searcher = Searcher.open(out, verify="size")

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        direction: Any = "text_to_image" if kind == "text" else "image_to_image"
        ids: Any = self.searcher.search_vectors("images", queries, k, direction=direction, ann_recall=setting)[0]
        return ids  # strings, as users get them


class Hnswlib:
    """hnswlib with efConstruction 200 and M 32, the usual choice for high recall at 512 dimensions, or another."""

    package = "hnswlib"
    m = 32
    grid = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072)

    def build(self, folder: Path, out: Path) -> None:
        import hnswlib

        rows, dim = vectors(folder).shape
        index = hnswlib.Index(space="ip", dim=dim)
        index.init_index(max_elements=rows, M=self.m, ef_construction=200, random_seed=0)
        for start, part in chunks(folder):
            index.add_items(part, np.arange(start, start + len(part)))
        index.save_index(str(out))

    def open(self, out: Path, folder: Path) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=vectors(folder).shape[1])
        self.index.load_index(str(out))

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        self.index.set_ef(setting)
        return self.index.knn_query(queries, k=k)[0].astype(np.int64)


class Usearch:
    """usearch in float16 or int8, connectivity 32, expansion 200 while adding."""

    package = "usearch"
    dtype = "f16"
    grid = Hnswlib.grid

    def build(self, folder: Path, out: Path) -> None:
        from usearch.index import Index

        index = Index(ndim=vectors(folder).shape[1], metric="ip", dtype=self.dtype, connectivity=32, expansion_add=200)
        for start, part in chunks(folder):
            index.add(np.arange(start, start + len(part)), part, threads=0)
        index.save(str(out))

    def open(self, out: Path, folder: Path) -> None:
        from usearch.index import Index

        self.index = Index.restore(str(out))

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        self.index.expansion_search = setting
        keys = self.index.search(queries, k, threads=1 if len(queries) == 1 else 0).keys
        return np.asarray(keys).reshape(len(queries), -1).astype(np.int64)


class Scann:
    """ScaNN: a tree, anisotropic 4-bit codes of two dimensions, exact re-ordering, after its documentation.

    Attributes:
        finer: So many times the square root of the rows are its leaves.
        soar: The weight of a second leaf for each row (SOAR), None for one leaf.
        bf16: Re-order by 16-bit vectors.
    """

    package = "scann"
    finer = 1
    soar: float | None = None
    bf16 = False
    grid = tuple(
        (leaves, reorder)
        for leaves in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
        for reorder in (50, 100, 200, 400)
    )

    def build(self, folder: Path, out: Path) -> None:
        import scann

        base = vectors(folder).astype(np.float32)
        leaves = int(2 ** round(np.log2(self.finer * np.sqrt(len(base)))))
        builder = scann.scann_ops_pybind.builder(base, 10, "dot_product")
        tree = {"num_leaves": leaves, "num_leaves_to_search": 32, "training_sample_size": min(len(base), 250_000)}
        builder = builder.tree(**tree, **({"soar_lambda": self.soar} if self.soar else {}))
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
        kind = scann.ReorderType.BFLOAT16 if self.bf16 else scann.ReorderType.FLOAT32
        searcher = builder.reorder(200, quantize=kind).build()
        out.mkdir(parents=True)
        searcher.serialize(str(out))

    def open(self, out: Path, folder: Path) -> None:
        import scann

        self.searcher = scann.scann_ops_pybind.load_searcher(str(out))

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        options = {"final_num_neighbors": k, "leaves_to_search": setting[0], "pre_reorder_num_neighbors": setting[1]}
        if len(queries) == 1:
            return self.searcher.search(queries[0], **options)[0][None].astype(np.int64)
        return self.searcher.search_batched_parallel(queries, **options)[0].astype(np.int64)


class LanceDb:
    """LanceDB's IVF_PQ with refinement; 8 dimensions a code."""

    package = "lancedb"
    pinned = False
    grid = tuple((nprobes, refine) for nprobes in (8, 16, 32, 64, 128, 256) for refine in (8, 32))

    def build(self, folder: Path, out: Path) -> None:
        import lancedb
        import pyarrow as pa

        dim = vectors(folder).shape[1]
        kind = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), dim))])

        def batches() -> Iterator[pa.RecordBatch]:
            for start, part in chunks(folder):
                flat = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), dim)
                yield pa.RecordBatch.from_arrays([pa.array(np.arange(start, start + len(part))), flat], schema=kind)

        table = lancedb.connect(str(out)).create_table("images", batches(), schema=kind)
        partitions = int(2 ** round(np.log2(np.sqrt(table.count_rows()))))
        table.create_index(metric="dot", num_partitions=partitions, num_sub_vectors=dim // 8, index_type="IVF_PQ")

    def open(self, out: Path, folder: Path) -> None:
        import lancedb

        self.table = lancedb.connect(str(out)).open_table("images")

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        found = np.full((len(queries), k), -1, dtype=np.int64)
        for row, query in enumerate(queries):
            asked = self.table.search(query).distance_type("dot").limit(k).nprobes(setting[0])
            ids = asked.refine_factor(setting[1]).select(["id"]).to_arrow()["id"].to_numpy()
            found[row, : len(ids)] = ids
        return found


class MilvusLite:
    """Milvus Lite through its client, IVF_FLAT with as many lists as here."""

    package = "milvus_lite"
    pinned = False
    grid = (4, 8, 16, 32, 64, 128, 256)

    def build(self, folder: Path, out: Path) -> None:
        from pymilvus import DataType, MilvusClient

        # The ending tells the client that this is a file and not a server.
        client, (rows, dim) = MilvusClient(str(out) + ".db"), vectors(folder).shape
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        params = client.prepare_index_params()
        lists = int(2 ** round(np.log2(np.sqrt(rows))))
        params.add_index("vector", index_type="IVF_FLAT", metric_type="IP", params={"nlist": lists})
        client.create_collection("images", schema=schema, index_params=params)
        for start, part in chunks(folder):
            for low in range(0, len(part), 5000):
                rows_of = [{"id": start + low + i, "vector": v} for i, v in enumerate(part[low : low + 5000])]
                client.insert("images", rows_of)
        client.flush("images")
        client.close()

    def open(self, out: Path, folder: Path) -> None:
        from pymilvus import MilvusClient

        self.client = MilvusClient(str(out) + ".db")
        self.client.load_collection("images")

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        params = {"metric_type": "IP", "params": {"nprobe": setting}}
        answers = self.client.search("images", list(queries), limit=k, search_params=params)
        return np.array([[hit["id"] for hit in hits] + [-1] * (k - len(hits)) for hits in answers], dtype=np.int64)


class Autofaiss:
    """autofaiss with its defaults, within the memory that ours takes; nprobe is then its knob."""

    package = "autofaiss"
    grid = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

    def build(self, folder: Path, out: Path) -> None:
        import autofaiss
        import faiss

        # Its release names arguments that FAISS 1.15 has only by position.
        rotation = faiss.OPQMatrix
        faiss.OPQMatrix = lambda d, M, d2: rotation(d, M, d2)  # noqa: N803
        rows, dim = vectors(folder).shape
        single = folder / "embeddings-for-autofaiss"
        single.mkdir(parents=True, exist_ok=True)
        np.save(single / "images.npy", vectors(folder).astype(np.float32))
        try:
            autofaiss.build_index(
                str(single),
                index_path=str(out),
                index_infos_path=f"{out}.json",
                metric_type="ip",
                verbose=50,
                max_index_memory_usage=f"{max(1, rows * dim * 2 // 3 // 10**6)}MB",
                current_memory_available="8GB",
            )
        except TypeError:
            # Last of all it writes what it measured, in NumPy's numbers, of which json knows nothing.
            if not out.exists():
                raise

    def open(self, out: Path, folder: Path) -> None:
        import faiss

        self.index = faiss.read_index(str(out))
        self.space = faiss.ParameterSpace()

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        self.space.set_index_parameter(self.index, "nprobe", setting)
        return self.index.search(queries, k)[1]


class ExactNumpy:
    """One matrix product and a partial sort, over float32 in memory."""

    package = "numpy"
    grid = (0,)

    def build(self, folder: Path, out: Path) -> None:
        np.save(out.with_suffix(".npy"), vectors(folder).astype(np.float32))

    def open(self, out: Path, folder: Path) -> None:
        self.base = np.load(out.with_suffix(".npy"))

    def search(self, queries: Floats, k: int, setting: Any, kind: str) -> Ids:
        found = [np.argpartition(scores, -k)[-k:] for query in queries for scores in [self.base @ query]]
        return np.array(found, dtype=np.int64)


def tuned(engine: type[Any], **settings: Any) -> type[Any]:
    """Return an engine with other settings of its build."""
    return type(engine.__name__, (engine,), settings)


ENGINES: dict[str, type[Any]] = {
    "twinlens": Twinlens,
    "hnswlib": Hnswlib,
    "hnswlib M16": tuned(Hnswlib, m=16),
    "hnswlib M48": tuned(Hnswlib, m=48),
    "usearch": Usearch,
    "usearch i8": tuned(Usearch, dtype="i8"),
    "scann": Scann,
    "scann 4x": tuned(Scann, finer=4),
    "scann soar": tuned(Scann, soar=1.5),
    "scann 4x soar bf16": tuned(Scann, finer=4, soar=1.5, bf16=True),
    "lancedb": LanceDb,
    "milvus-lite": MilvusLite,
    "autofaiss": Autofaiss,
    "exact numpy": ExactNumpy,
}
