"""A reader of indexes written from `docs/format.md` alone, which it holds to its word: it uses nothing of this project.

It checks what the page says that a reader must, searches exactly, and tells how probable a hit is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FEATURES = {"provenance", "calibrations", "words", "int8", "text_tower", "image_tower"}
TOWERS = {
    "text_tower": ("tower.json", "weights.safetensors", "tokenizer.json"),
    "image_tower": ("tower.json", "weights.safetensors"),
}
KINDS = {"ivf-flat": b"IwSq", "ivf-pq": b"IwPQ", "ivf-pq4": b"IwPf", "ivf-rabitq": b"Iwrn", "hnsw": b"IHNs"}
KEYS = {
    *("format_version", "reader_features", "writer_features", "version", "parent", "created_at", "encoder"),
    *("collections", "counts", "files", "build", "checksum"),
}
COLUMNS = {
    "images": ("row_id", "item_id", "uri", "caption", "width", "height", "sha256", "split", "file_bytes", "mtime_ns"),
    "texts": ("row_id", "item_id", "uri", "caption", "sha256", "split"),
    "pairs": ("image_row", "text_row"),
    "rejected": ("item_id", "collection", "uri", "stage", "reason", "detail"),
}
TENSORS = {"term_ends": ("I64", "<i8"), "row_ends": ("I64", "<i8"), "rows": ("U32", "<u4"), "shares": ("F16", "<f2")}
SOURCES = {"text_to_image": ("texts", "images"), "image_to_text": ("images", "texts")}


class BrokenIndexError(Exception):
    """An index is not as the page says."""


def must(holds: Any, what: str) -> None:
    if not holds:
        raise BrokenIndexError(what)


class IndependentReader:
    """The current version of an index, checked.

    Attributes:
        manifest: As JSON.
        vectors: Of each collection, (rows, dim) float32.
        ids: Of each collection, the item ids in row order.
        pairs: (n, 2) rows of images and texts.
    """

    def __init__(self, index: Path) -> None:
        """Read and check everything.

        Raises:
            BrokenIndexError: Something is not as the page says; the message says what.
        """
        line = (index / "CURRENT").read_text(encoding="ascii")
        match = re.fullmatch(r"(\d{8}) ([0-9a-f]{64})\n?", line)
        must(match, f"CURRENT is {line!r}")
        assert match is not None
        self.folder = index / "versions" / match[1]
        data = (self.folder / "manifest.json").read_bytes()
        must(hashlib.sha256(data).hexdigest() == match[2], "the manifest is not the one that CURRENT names")
        self.manifest = self._manifest(data, int(match[1]))
        self._check_files()
        self.vectors: dict[str, NDArray[np.float32]] = {}
        self.ids: dict[str, list[str]] = {}
        for name, info in self.manifest["collections"].items():
            self.ids[name], self.vectors[name] = self._vectors(name)
            must(len(self.ids[name]) == info["rows"], f"{name} has {len(self.ids[name])} rows")
            self._check_ann(name, info["ann"]["kind"])
            if "words" in self.manifest["reader_features"]:
                self._check_words(name, info["rows"])
        self.pairs = self._catalog()

    def search(self, into: str, query: NDArray[Any], k: int) -> list[tuple[str, float]]:
        """Return the ids and cosines of the k nearest rows of a collection, equal ones by row."""
        cosines = self.vectors[into] @ np.asarray(query, dtype=np.float32)
        best = np.argsort(-cosines, kind="stable")[:k]
        return [(self.ids[into][row], float(cosines[row])) for row in best]

    def probability(self, direction: str, query: NDArray[Any], item_id: str) -> float:
        """Return how probable it is that a hit fits a query that is a vector."""
        other, into = SOURCES[direction]
        row = self.ids[into].index(item_id)
        curves = self.manifest["calibrations"][direction]
        cosines = self.vectors[into] @ query
        signals = [cosines[row], standing(cosines[row], self._spaced(into) @ query)]
        curve = curves["plain"]
        own = self.pairs[:, 0 if into == "images" else 1] == row
        partners = self.pairs[own, 1 if into == "images" else 0][:16]
        if curves["with_partners"] is not None and len(partners):
            near = self.vectors[other][partners]
            best = float((near @ query).max())
            lead = cosines[row] - float((near @ self.vectors[into][row]).mean())
            signals += [lead, best, standing(best, self._spaced(other) @ query)]
            curve = curves["with_partners"]
        return float(1 / (1 + np.exp(-(np.dot(curve["weights"], signals) + curve["intercept"]))))

    def _spaced(self, name: str) -> NDArray[np.float32]:
        rows = len(self.vectors[name])
        return self.vectors[name][:: -(-rows // 512)]

    def _manifest(self, data: bytes, version: int) -> dict[str, Any]:
        must(len(data) <= 1 << 20, "the manifest has more than a mebibyte")
        plain: dict[str, Any] = json.loads(data, object_pairs_hook=once)
        must(plain["format_version"] == 1, f"format {plain['format_version']}")
        features = set(plain["reader_features"])
        must(features <= FEATURES, f"features {features - FEATURES}")
        extra = {"encoding", "corpus"} if "provenance" in features else set()
        extra |= {"calibrations"} if "calibrations" in features else set()
        extra |= {"rounding"} if "int8" in features else set()
        must(set(plain) == KEYS | extra, f"keys {set(plain) ^ (KEYS | extra)}")
        must(plain["version"] == version, f"version {plain['version']}")
        unsigned = {name: value for name, value in plain.items() if name != "checksum"}
        canonical = json.dumps(unsigned, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        must(hashlib.sha256(canonical.encode()).hexdigest() == plain["checksum"], "the checksum")
        if "int8" in features:
            must(set(plain["rounding"]) == set(plain["collections"]), "the rounding of a collection")
            must(all(set(one) == {"within"} and one["within"] > 0 for one in plain["rounding"].values()), "rounding")
        counts, rows = plain["counts"], {name: one["rows"] for name, one in plain["collections"].items()}
        must(counts["items"] == counts["indexed"] + counts["rejected"], "the counts do not add up")
        must(counts["indexed"] == counts["images"] + counts["texts"], "the counts do not add up")
        must({name: counts[name] for name in ("images", "texts") if counts[name]} == rows, "rows and counts differ")
        return plain

    def _check_files(self) -> None:
        collections, features = self.manifest["collections"], self.manifest["reader_features"]
        names = {"catalog.duckdb", *(f"{name}/vectors.arrow" for name in collections)}
        names |= {f"{name}/ann.faiss" for name, one in collections.items() if one["ann"]["kind"] != "flat"}
        names |= {f"{name}/words.safetensors" for name in collections if "words" in features}
        names |= {f"{tower}/{name}" for tower in TOWERS if tower in features for name in TOWERS[tower]}
        must(set(self.manifest["files"]) == names, f"files {set(self.manifest['files']) ^ names}")
        found = {
            str(path.relative_to(self.folder)): path
            for path in self.folder.rglob("*")
            if not path.is_dir() and not path.name.startswith(".")
        }
        must(set(found) == names | {"manifest.json"}, f"on disk {set(found) ^ names}")
        for name, entry in self.manifest["files"].items():
            must(stat.S_ISREG(os.lstat(found[name]).st_mode), f"{name} is no regular file")
            data = found[name].read_bytes()
            must(
                (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"]), f"{name} is damaged"
            )

    def _vectors(self, name: str) -> tuple[list[str], NDArray[np.float32]]:
        with pa.memory_map(str(self.folder / name / "vectors.arrow")) as file:
            reader = pa.ipc.open_file(file)
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            dim, height = (int(reader.schema.metadata[key]) for key in (b"dim", b"batch_rows"))
            must(all(batch.num_rows == height for batch in batches[:-1]), f"{name}: a batch is not whole")
            table = pa.Table.from_batches(batches, reader.schema)
            must(table.schema.field("vector").type.list_size == dim, f"{name}: dim")
            must(not any(column.null_count for column in table.columns), f"{name}: a value is missing")
            values = np.concatenate([np.asarray(batch.column("vector").flatten()) for batch in batches])
            ids = table.column("item_id").to_pylist()
            if "int8" in self.manifest["reader_features"]:
                must(
                    table.schema.types[1:] == [pa.list_(table.schema.field(1).type.value_field, dim), pa.float16()],
                    name,
                )
                must(values.dtype == np.int8 and values.min() >= -127, f"{name}: a level")
                values = levels(values.reshape(-1, dim), np.asarray(table.column("scale")))
            must(values.dtype == np.float16, f"{name}: {values.dtype}")
        vectors = values.reshape(-1, dim).astype(np.float32)
        must(np.isfinite(vectors).all() and len(set(ids)) == len(ids) == len(vectors), f"{name}: vectors or ids")
        off = 2e-3 + self.manifest.get("rounding", {}).get(name, {}).get("within", 0)
        must(np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < off, f"{name}: a vector is not of length 1")
        return ids, vectors

    def _check_ann(self, name: str, kind: str) -> None:
        if kind != "flat":
            data = (self.folder / name / "ann.faiss").read_bytes()
            rotated = kind in ("ivf-pq", "ivf-pq4") and data[:4] == b"IxPT" and KINDS[kind] in data
            must(data[:4] == KINDS[kind] or rotated, f"{name}: the file is no {kind}")

    def _check_words(self, name: str, rows: int) -> None:
        data = (self.folder / name / "words.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        must(length <= 4096 and int(header.pop("__metadata__")["rows"]) == rows, f"{name}: the header of its words")
        must(list(header) == [*TENSORS, "terms"], f"{name}: tensors {list(header)}")
        body = data[8 + length :]
        spans = {key: body[slice(*value["data_offsets"])] for key, value in header.items()}
        ends, row_ends, row_ids, shares = (np.frombuffer(spans[key], kind) for key, (_, kind) in TENSORS.items())
        words = [spans["terms"][start:end] for start, end in zip([0, *ends], ends, strict=False)]
        must(all(one < two for one, two in pairwise(words)), f"{name}: terms do not ascend")
        must(len(row_ends) == len(words) and len(row_ids) == len(shares) == row_ends[-1], f"{name}: entries")
        must(row_ids.max() < rows and (shares > 0).all(), f"{name}: an entry")

    def _catalog(self) -> NDArray[np.int64]:
        path = self.folder / "catalog.duckdb"
        with duckdb.connect(str(path), read_only=True, config={"enable_external_access": "false"}) as database:
            counts = self.manifest["counts"]
            for table, columns in COLUMNS.items():
                found = [row[0] for row in database.execute(f"SELECT column_name FROM (DESCRIBE {table})").fetchall()]
                must(tuple(found[: len(columns)]) == columns, f"columns of {table}: {found}")
                ((number,),) = database.execute(f"SELECT count(*) FROM {table}").fetchall()
                must(number == counts[table], f"{table} has {number} rows")
            for name, ids in self.ids.items():
                rows = database.execute(f"SELECT row_id, item_id FROM {name} ORDER BY row_id").fetchall()
                must(rows == list(enumerate(ids)), f"{name}: catalog and vectors name other items")
            pairs = database.execute("SELECT image_row, text_row FROM pairs ORDER BY rowid").fetchnumpy()
        found_pairs = np.column_stack([pairs["image_row"], pairs["text_row"]]).astype(np.int64)
        must((found_pairs < [counts["images"], counts["texts"]]).all() and (found_pairs >= 0).all(), "a pair of no row")
        return found_pairs


def levels(numbers: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.float16]:
    n = numbers.astype(np.float64)
    significand = np.frexp(scales.astype(np.float64))[0] * 32
    must(((scales > 0) & (scales <= 256) & (significand == np.rint(significand))).all(), "a scale")
    values = (4 * n - 2 * np.clip(n, -96, 96) - np.clip(n, -64, 64)) * scales.astype(np.float64)[:, None]
    must((values.astype(np.float16) == values).all(), "a product is no halffloat")
    return values.astype(np.float16)


def standing(cosine: float, at_large: NDArray[np.float32]) -> float:
    return float((cosine - at_large.mean()) / max(float(at_large.std()), 1e-6))


def once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    must(len({name for name, _ in items}) == len(items), "a key stands twice")
    return dict(items)
