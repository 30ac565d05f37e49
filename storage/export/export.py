"""Export of one version of an index to files or into a vector engine."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..files.canonical_json import to_plain
from ..files.layout import Verify
from ..schema import COLLECTIONS, Collection
from ..store import IndexStore
from ..version import IndexVersion
from .engine import VectorEngine
from .files import (
    WRITERS,
    FileFormat,
    check_target,
    extra,
    is_single_file,
    whole_folder,
    write_mark,
    write_pairs,
    write_single_parquet,
)
from .rows import COLLECTION, Advance, DType, Pairs, Rows, choose_columns, choose_rows, read_pairs

ENGINES: dict[str, str] = {"milvus": "MilvusTarget", "qdrant": "QdrantTarget"}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What goes out, and how.

    Attributes:
        format: Kind of files, where the target is a folder.
        collections: `images`, `texts` or both; all that the index has by default.
        where: A DuckDB predicate on the catalog's columns; only what satisfies it goes out, of each collection.
        columns: Catalog columns beside the item id; None for all.
        dtype: `float16`, as stored, or `float32`, the same numbers; None takes float16 for files and float32 for
            engines, not all of which know the other.
        version: Number of the version; None for the current one.
        verify: `full` compares checksums first, `size` sizes only.
        name: What the engine's collections are called: `NAME_images` and `NAME_texts`.
        force: Replace an export that is there already.
    """

    format: FileFormat = "parquet"
    collections: tuple[Collection, ...] = ()
    where: str | None = None
    columns: tuple[str, ...] | None = None
    dtype: DType | None = None
    version: int | None = None
    verify: Verify = "full"
    name: str = "twinlens"
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What went out: rows by collection, pairs, and where it is now."""

    target: str
    kind: str
    version: int
    rows: dict[str, int]
    pairs: int
    dim: int
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "target": self.target,
            "format": self.kind,
            "version": self.version,
            "rows": self.rows,
            "pairs": self.pairs,
            "dim": self.dim,
            "dtype": self.dtype,
        }

    def to_text(self) -> str:
        """Return the report for people."""
        counted = " and ".join(f"{count:,} {name}" for name, count in self.rows.items())
        return (
            f"exported {counted} ({self.dim}-d {self.dtype}) and {self.pairs:,} pairs of version {self.version} "
            f"to {self.target} as {self.kind}"
        )


def export_index(
    path: str | Path, target: str, options: ExportOptions | None = None, advance: Advance | None = None
) -> ExportReport:
    """Write one version of an index to files or into an engine, whole or not at all, in bounded memory.

    Args:
        path: The index.
        target: A new folder; a new file `NAME.parquet`, which holds images and texts in one table and no pairs; or
            `milvus:` or `qdrant:` before the address of a running engine, or before the path of
            its embedded form: `milvus:http://localhost:19530`, `qdrant:http://localhost:6333`, `milvus:vectors.db`.
        options: What goes out, and how.
        advance: Told of progress: the collection, the rows that are out, all of them.

    Raises:
        StorageError: The target is there already or cannot be written, an option does not fit the index, or a package
            is missing.
    """
    options = options or ExportOptions()
    engine, _, address = target.partition(":")
    is_engine = engine in ENGINES
    if not is_engine:
        is_single_file(Path(target), options.format)
        check_target(Path(target), force=options.force)
    with IndexStore.open(path).open_version(options.version, verify=options.verify) as version:
        dtype: DType = options.dtype or ("float32" if is_engine else "float16")
        single = not is_engine and is_single_file(Path(target), options.format)
        rows = _rows(version, options, dtype, advance or _say_nothing, {COLLECTION} if single else set())
        pairs = read_pairs(version, {part.collection: part.row_ids for part in rows})
        if is_engine:
            with _engine(engine, address, options) as opened:
                for part in rows:
                    opened.write(part, pairs)
                opened.publish()
        else:
            _write_files(Path(target), options, rows, pairs)
        return ExportReport(
            target=target,
            kind=engine if is_engine else options.format,
            version=version.number,
            dim=version.dim,
            rows={part.collection: len(part.row_ids) for part in rows},
            pairs=0 if single else len(pairs),
            dtype=dtype,
        )


def _rows(version: IndexVersion, options: ExportOptions, dtype: DType, advance: Advance, ours: Set[str]) -> list[Rows]:
    held = [name for name in COLLECTIONS if name in version.manifest.collections]
    for name in options.collections:
        if name not in held:
            raise StorageError(f"the index {version.path.parents[1]} has no {name}, it has {' and '.join(held)}")
    return [
        Rows(
            version=version,
            collection=name,
            dtype=dtype,
            advance=advance,
            row_ids=choose_rows(version.catalog, name, options.where),
            columns=choose_columns(version.catalog, name, options.columns, ours),
        )
        for name in held
        if not options.collections or name in options.collections
    ]


def _write_files(target: Path, options: ExportOptions, rows: Sequence[Rows], pairs: Pairs) -> None:
    if options.format == "lance":
        extra("lance", "lance", "pylance")  # an error before anything is written
    if is_single_file(target, options.format):
        with whole_folder(target, force=options.force, single=True) as folder:
            write_single_parquet(folder / target.name, rows, _facts(options, rows, pairs))
        return
    with whole_folder(target, force=options.force) as folder:
        for part in rows:
            WRITERS[options.format](folder, part)
        if len(pairs):
            write_pairs(folder, options.format, pairs)
        write_mark(folder, _facts(options, rows, pairs))


def _facts(options: ExportOptions, rows: Sequence[Rows], pairs: Pairs) -> dict[str, Any]:
    version = rows[0].version
    return {
        "twinlens_export": 1,
        "format": options.format,
        "version": version.number,
        "where": options.where,
        "encoder": to_plain(version.manifest.encoder),
        "dim": version.dim,
        "dtype": rows[0].dtype,
        "collections": {part.collection: {"rows": len(part.row_ids), "columns": part.columns} for part in rows},
        "pairs": len(pairs),
    }


def _engine(name: str, address: str, options: ExportOptions) -> VectorEngine:
    if not address:
        raise StorageError(f"{name}: needs an address or a path behind the colon, e.g. {name}:http://localhost:PORT")
    target: Any = getattr(import_module(f".{name}", __package__), ENGINES[name])
    engine: VectorEngine = target(address, options.name, force=options.force)
    return engine


def _say_nothing(collection: str, done: int, total: int) -> None:
    """Do nothing."""
