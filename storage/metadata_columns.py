"""Columns of a catalog as they are stored: their names, their types, and NaN as missing.

DuckDB orders NaN above every number, so that a row without a price would pass `price > 5`. Whatever a table, a Parquet
file or JSON brings as NaN is stored as NULL, which passes no comparison; infinity is a number and stays one.
"""

from __future__ import annotations

from collections.abc import Set

import pyarrow as pa
import pyarrow.compute as pc

from .errors import StorageError, first_line


def check_names(table: str, names: list[str], reserved: Set[str]) -> None:
    """Check the names of the user's columns of a table.

    Raises:
        StorageError: One is empty, reserved in any spelling, or equal to another in all but case.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not name or "\0" in name:
            raise StorageError(f"a metadata column of {table!r} is called {name!r}; give it a name")
        if name.casefold() in reserved:
            raise StorageError(f"metadata column {name!r} of {table!r} has a name of Twinlens's own; rename it")
        if name.casefold() in seen:
            raise StorageError(
                f"metadata columns {seen[name.casefold()]!r} and {name!r} of {table!r} differ only in case, "
                "which SQL does not see; rename one"
            )
        seen[name.casefold()] = name


def stored(table: str, name: str, values: pa.ChunkedArray, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    """Return a column as the catalog stores it: of a type (by default the one that DuckDB can hold), NaN as null.

    Raises:
        StorageError: It cannot become that type.
    """
    kind = kind or storable(values.type)
    try:
        cast = values if values.type.equals(kind) else values.cast(kind)
    except pa.ArrowException as error:
        raise StorageError(
            f"column {name!r} of {table!r} is {values.type} and cannot become {kind}: {first_line(error)}"
        ) from error
    return pa.chunked_array([nan_as_null(chunk) for chunk in cast.chunks], kind) if _holds_floats(kind) else cast


def storable(kind: pa.DataType) -> pa.DataType:
    """Return the type that DuckDB can hold, and filters can compare, for a type of Arrow."""
    # An ENUM, made of a dictionary, cannot be compared with any other word: a filter for one would be an error.
    if pa.types.is_dictionary(kind):
        return storable(kind.value_type)
    if pa.types.is_null(kind):
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def nan_as_null(array: pa.Array) -> pa.Array:
    """Return an array with null for every NaN in it, also within lists, structs and the values of maps."""
    kind = array.type
    if not _holds_floats(kind):
        return array
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    mask = array.is_null()
    if pa.types.is_struct(kind):
        fields = [nan_as_null(array.field(number)) for number in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(kind.fields), mask=mask)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        return pa.FixedSizeListArray.from_arrays(nan_as_null(values), type=kind, mask=mask)
    offsets = pa.array(array.offsets.to_numpy(), array.offsets.type)  # a mask wants offsets that are no slice
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(offsets, array.keys, nan_as_null(array.items), type=kind, mask=mask)
    return type(array).from_arrays(offsets, nan_as_null(array.values), type=kind, mask=mask)


def _holds_floats(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return _holds_floats(kind.item_type)
    if pa.types.is_struct(kind):
        return any(_holds_floats(field.type) for field in kind.fields)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _holds_floats(kind.value_type)
    return bool(pa.types.is_floating(kind))
