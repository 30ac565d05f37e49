"""The rules that the files of a version obey together: what a right checksum cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .catalog import Catalog
from .errors import CorruptIndexError, StorageError
from .layout import CATALOG, ann_name, vectors_name
from .manifest import Manifest
from .spec import Collection
from .vectors import VectorTable

_ROWS = 65_536
Rule = Callable[[Path, Manifest], None]


@dataclass(frozen=True, kw_only=True)
class StructureCheck:
    """One rule.

    Attributes:
        name: What is compared.
        file: The file that is at fault where the rule is broken, below the folder of the version.
        outcome: `ok`, `bad`, or `not checked` when a file that it needs is damaged.
        problem: One line that says what is wrong; None for the two other outcomes.
    """

    name: str
    file: str
    outcome: Literal["ok", "bad", "not checked"]
    problem: str | None = None


def check_structure(folder: Path, manifest: Manifest, damaged: Set[str]) -> tuple[StructureCheck, ...]:
    """Return one result a rule for the version in `folder`; the `damaged` files are not opened."""
    results = []
    for name, files, rule in _rules(manifest):
        if damaged & set(files):
            results.append(StructureCheck(name=name, file=files[0], outcome="not checked"))
            continue
        problem = _broken(rule, folder, manifest)
        results.append(StructureCheck(name=name, file=files[0], outcome="bad" if problem else "ok", problem=problem))
    return tuple(results)


def _rules(manifest: Manifest) -> Iterator[tuple[str, tuple[str, ...], Rule]]:
    """Yield name, files with the one at fault first, and rule."""
    yield "rows of the catalog against the manifest", (CATALOG,), _catalog_counts
    yield "pairs name rows that exist", (CATALOG,), _pairs
    for name, info in manifest.collections.items():
        vectors = vectors_name(name)
        yield f"{name}: rows and dim of the vectors against the manifest", (vectors,), _for(name, _vector_shape)
        yield f"{name}: every value of the vectors is finite", (vectors,), _for(name, _finite)
        yield f"{name}: item ids of the catalog against the vectors", (CATALOG, vectors), _for(name, _item_ids)
        if info.ann.kind != "flat":
            yield f"{name}: rows, dim and metric of the ANN file", (ann_name(name), vectors), _for(name, _ann)


def _for(collection: Collection, rule: Callable[[Path, Manifest, Collection], None]) -> Rule:
    return lambda folder, manifest: rule(folder, manifest, collection)


def _broken(rule: Rule, folder: Path, manifest: Manifest) -> str | None:
    try:
        rule(folder, manifest)
    except StorageError as error:
        return str(error)
    return None


def _catalog_counts(folder: Path, manifest: Manifest) -> None:
    with Catalog.open(folder / CATALOG) as catalog:
        for table, count in catalog.counts.items():
            _expect(folder / CATALOG, f"rows of {table}", count, getattr(manifest.counts, table))


def _pairs(folder: Path, _manifest: Manifest) -> None:
    with Catalog.open(folder / CATALOG) as catalog:
        pairs, counts = catalog.table("pairs"), catalog.counts
    for column, table in (("image_row", "images"), ("text_row", "texts")):
        rows = np.asarray(pairs.column(column))
        if rows.size and (rows.min() < 0 or rows.max() >= counts[table]):
            raise CorruptIndexError(
                f"{folder / CATALOG} has pairs of {table} {rows.min()} to {rows.max()} and {counts[table]} {table}; "
                "build again"
            )


def _vector_shape(folder: Path, manifest: Manifest, collection: Collection) -> None:
    path = folder / vectors_name(collection)
    with VectorTable.open(path) as vectors:
        _expect(path, "rows", vectors.rows, manifest.collections[collection].rows)
        if manifest.encoder is not None:
            _expect(path, "dim", vectors.dim, manifest.encoder.dim)


def _finite(folder: Path, _manifest: Manifest, collection: Collection) -> None:
    path = folder / vectors_name(collection)
    with VectorTable.open(path) as vectors:
        for rows in _row_chunks(vectors.rows):
            finite = np.isfinite(vectors.gather(rows)).all(axis=1)
            if not finite.all():
                wrong = int(rows[np.argmin(finite)])
                raise CorruptIndexError(f"{path} holds NaN or infinity in row {wrong}; build again")


def _item_ids(folder: Path, _manifest: Manifest, collection: Collection) -> None:
    with VectorTable.open(folder / vectors_name(collection)) as vectors, Catalog.open(folder / CATALOG) as catalog:
        for rows in _row_chunks(vectors.rows):
            there, here = vectors.item_ids(rows), catalog.item_ids(collection, int(rows[0]), int(rows[-1]) + 1)
            if len(here) != len(there) or (here != there).any():
                raise CorruptIndexError(
                    f"{folder / CATALOG} gives the {collection} from row {rows[0]} on other item ids than the vectors "
                    "have; build again"
                )


def _ann(folder: Path, manifest: Manifest, collection: Collection) -> None:
    from .ann import AnnIndex  # FAISS is loaded when an index file is looked at, not before

    with VectorTable.open(folder / vectors_name(collection)) as vectors:
        AnnIndex.open(folder / ann_name(collection), manifest.collections[collection].ann, vectors)


def _row_chunks(rows: int) -> Iterator[np.ndarray]:
    for start in range(0, rows, _ROWS):
        yield np.arange(start, min(start + _ROWS, rows))


def _expect(path: Path, what: str, found: int, expected: int) -> None:
    if found != expected:
        raise CorruptIndexError(
            f"{path} has {what} {found} and the manifest says {expected}; roll back to another version or build again"
        )
