"""What stands beside vectors: ids, captions, uris and metadata, one row a vector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import DuplicateItemError

from ...errors import SourceError
from ..file_pattern import files_in_parts, is_pattern
from ..image_paths import MAX_PATH
from ..item import NoText, SourceOptions, one_line, shown
from ..layouts.folder import TABLE_SUFFIXES
from ..layouts.lines import check_regular, read_whole
from ..tables.cells import plain, text_cells
from ..tables.columns import IMAGE_NAMES, TEXT_NAMES, BadRecord, Record, choose_roles, first_of, listed, renamed
from ..tables.parquet_file import PARQUET_ERRORS
from ..tables.table import open_records, table_suffix

ID_NAMES = ("item_id", "id")
PARTS = (".parquet",)
BATCH_ROWS = 65536

Column = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class RowTable:
    """Columns beside the vectors of one collection, in row order; None where the user brought none.

    `captions`, `uris` and `splits` are string arrays; `metadata` has the catalog's column names.
    """

    captions: pa.ChunkedArray | None = None
    uris: pa.ChunkedArray | None = None
    ids: pa.ChunkedArray | None = None
    splits: pa.ChunkedArray | None = None
    metadata: pa.Table | None = None
    notes: tuple[str, ...] = ()


def read_row_table(path: Path, options: SourceOptions, *, needs_text: bool) -> RowTable:
    """The columns of a table or of several Parquet files, or the lines of a `.txt` file as captions.

    Raises:
        SourceError: One cannot be read, a named column is not there, or any row of it is broken: rows are matched to
            vectors by position, so none may be passed over.
    """
    if path.is_dir() or is_pattern(path, PARTS):
        files = [one for one in files_in_parts(path, PARTS, "metadata") if _has_rows(one)]
        return _joined([read_row_table(one, options, needs_text=needs_text) for one in files], path)
    if not table_suffix(path):
        if not needs_text:
            raise SourceError(f"{str(path)!r} is no table; expected one of {', '.join(TABLE_SUFFIXES)} with metadata")
        return RowTable(captions=pa.chunked_array([pa.array(read_text_rows(path), pa.string())]))
    file = open_records(path, options.delimiter, options.quoting)
    roles = choose_roles(file.columns, _by_name(file.columns, options, needs_text), path.name, guess=False)
    schema = file.schema(roles)
    typed = [(name, column) for column, name in roles.metadata.items() if name in schema.names]
    named = (("ids", roles.id), ("captions", roles.text), ("uris", roles.image), ("splits", roles.split))
    raw = [(f"{role} (raw)", column) for role, column in named if column is not None]
    fields = pa.schema([*schema, *((name, pa.string()) for name, _ in raw)])
    readers: dict[str, Callable[[Any], str | None]] = {
        "captions (raw)": partial(_one_text, path.name),
        "uris (raw)": _path_of,
    }
    table = _collect(file.records(roles), fields, typed, raw, readers)
    parts = {role: table[f"{role} (raw)"] for role, column in named if column is not None}
    return RowTable(metadata=table.select(schema.names), notes=(*file.notes, *renamed(roles.metadata)), **parts)


def _has_rows(path: Path) -> bool:
    try:
        check_regular(path)
        return bool(pq.read_metadata(path).num_rows)
    except PARQUET_ERRORS as error:
        raise SourceError(f"{path.name} cannot be read as Parquet: {one_line(error)}; make a new copy") from error


def _joined(tables: Sequence[RowTable], path: Path) -> RowTable:
    """The rows of several tables one after another; a metadata column that some lack is null there."""
    if not tables:
        raise SourceError(f"{path.name} holds no row of metadata; leave it out")
    columns: dict[str, pa.ChunkedArray | None] = {}
    for role in ("captions", "uris", "ids", "splits"):
        parts = [getattr(table, role) for table in tables]
        if any(part is None for part in parts) and any(part is not None for part in parts):
            raise SourceError(f"only some of the tables of {path.name} hold {role}; give all of them the same columns")
        columns[role] = (
            None if parts[0] is None else pa.chunked_array([piece for part in parts for piece in part.chunks])
        )
    try:
        # A column more, since tables of no columns lose their rows when they are joined.
        counted = [
            table.metadata.append_column("", pa.nulls(len(table.metadata)))
            for table in tables
            if table.metadata is not None
        ]
        metadata = pa.concat_tables(counted, promote_options="permissive").drop_columns([""])
    except pa.ArrowException as error:
        raise SourceError(f"the columns of the tables of {path.name} differ: {one_line(error)}") from error
    return RowTable(
        metadata=metadata, notes=tuple(dict.fromkeys(n for table in tables for n in table.notes)), **columns
    )


def read_ids(path: Path, column: str | None = None) -> pa.ChunkedArray:
    """Ids of a `.txt` file (one a line), or of one column of a table: the named one, `item_id`, `id`, or the only one.

    Raises:
        SourceError: The file or the column cannot be read.
    """
    if not table_suffix(path):
        return pa.chunked_array([pa.array([line.strip() or None for line in read_text_rows(path)], pa.string())])
    file = open_records(path)
    name = column or next((name for name in ID_NAMES if name in file.columns), None)
    if name is None and len(file.columns) == 1:
        name = file.columns[0]
    if name is None:
        raise SourceError(f"{path.name} has no column 'item_id' or 'id'; its columns: {listed(file.columns)}")
    roles = choose_roles(file.columns, SourceOptions(id=name, metadata=()), path.name, guess=False)
    return _collect(file.records(roles), pa.schema([("id", pa.string())]), [], [("id", name)], {})["id"]


def read_parquet_columns(paths: Sequence[Path], columns: Sequence[str]) -> pa.Table:
    """The named columns of Parquet files, one after another.

    Raises:
        SourceError: A file lacks a column, has it in another type, or is damaged.
    """
    try:
        tables = [pq.read_table(path, columns=list(columns)) for path in paths]
        return pa.concat_tables(tables, promote_options="default")
    except PARQUET_ERRORS as error:
        names = f"{paths[0].name} and {len(paths) - 1} more files" if len(paths) > 1 else paths[0].name
        raise SourceError(f"{names} cannot be read as one Parquet table: {one_line(error)}") from error


def read_text_rows(path: Path) -> list[str]:
    """All lines of a UTF-8 text file; blank ones too, since rows are counted.

    Raises:
        SourceError: It cannot be read, or is not UTF-8.
    """
    try:
        lines = read_whole(path).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SourceError(f"{str(path)!r} cannot be read as UTF-8 lines: {one_line(error)}") from error
    # Not str.splitlines, which also cuts at form feeds and other separators within a caption.
    return [line.rstrip("\r") for line in (lines if lines[-1] else lines[:-1])]


def check_ids(ids: pa.ChunkedArray, location: str) -> None:
    """Refuse ids that are empty or stand twice.

    Raises:
        SourceError: A row has no id.
        DuplicateItemError: Two rows have one id; both are named, counting from 0 as the vectors do.
    """
    if ids.null_count:
        raise SourceError(f"row {ids.to_pylist().index(None)} of {location} has no id; give every vector one")
    if len(ids.unique()) == len(ids):
        return
    values = ids.to_pylist()
    twice = Counter(values).most_common(1)[0][0]
    first = values.index(twice)
    second = values.index(twice, first + 1)
    raise DuplicateItemError(
        f"id {shown(twice, 200)!r} stands in row {first} and row {second} of {location}; make the ids unique, "
        "or leave them out to number the rows"
    )


def _by_name(columns: Sequence[str], options: SourceOptions, needs_text: bool) -> SourceOptions:
    """`options` with the captions of texts, or the uris of images, found by exact names where none are given."""
    if needs_text:
        return replace(options, text=options.text or first_of(columns, TEXT_NAMES))
    return replace(options, image=options.image or first_of(columns, IMAGE_NAMES))


def _collect(
    records: Iterator[Record | BadRecord],
    schema: pa.Schema,
    typed: Sequence[Column],
    raw: Sequence[Column],
    readers: Mapping[str, Callable[[Any], str | None]],
) -> pa.Table:
    """All records as one table; `typed` and `raw` pair names of the schema with columns of the file.

    A raw cell is a key, unless `readers` has another way to read its column.
    """
    batches = []
    while rows := list(islice(records, BATCH_ROWS)):
        values = [_values(row) for row in rows]
        columns = {name: [row.get(column) for row in values] for name, column in typed}
        for name, column in raw:
            read = readers.get(name, plain)
            columns[name] = [read(row.get(column)) for row in values]
        batches.append(pa.RecordBatch.from_pydict(columns, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


def _one_text(name: str, value: Any) -> str | None:
    """The caption of one vector, from a cell that may also hold it in a list or a struct."""
    texts = text_cells(value)
    if len(texts) > 1 or any(isinstance(text, NoText) for text in texts):
        what = next((text.detail for text in texts if isinstance(text, NoText)), f"a list of {len(texts)} texts")
        raise SourceError(f"a caption of {name} is {what}; give each vector one text")
    return plain(texts[0]) if texts else None


def _path_of(value: Any) -> str | None:
    """The path in a cell of images; the bytes of an image file have none."""
    if isinstance(value, Mapping):
        value = value.get("path")
    return None if isinstance(value, bytes) and (len(value) > MAX_PATH or b"\0" in value) else plain(value)


def _values(row: Record | BadRecord) -> Mapping[str, Any]:
    if isinstance(row, BadRecord):
        raise SourceError(f"{row.detail}; rows are matched to vectors by position, so each must be readable")
    return row.values
