"""The lexical index of a draft: what each image and each text can be found by with words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.catalog import RESERVED_NAMES, Catalog
from storage.files.layout import CATALOG, words_name
from storage.lexical.build_inverted import write_inverted_index
from storage.schema import COLLECTIONS, Collection

from .errors import BuildError
from .progress import Progress


def write_words(
    folder: Path, columns: Sequence[str], progress: Progress, collections: Sequence[Collection] = COLLECTIONS
) -> None:
    """Write the lexical index of collections to the folder of a draft, whose catalog is there.

    An item is found by its id, its caption and these columns; an image by the captions of all texts of it. Where a file
    lies (`uri`) is not in it, as a server keeps that to itself.

    Args:
        folder: That of the draft.
        columns: Metadata columns; each must be in a collection, and each of their values counts as a text.
        progress: Told what is going on.
        collections: Which; those that the draft has not are left out.

    Raises:
        BuildError: No collection has such a column.
        StorageError: The disk refuses.
    """
    progress.note("indexing words")
    with Catalog.open(folder / CATALOG) as catalog:
        check_columns(columns, [name for half in COLLECTIONS for name, _ in catalog.columns(half)])
        for collection in collections:
            if rows := catalog.counts[collection]:
                write_inverted_index(folder / words_name(collection), rows, _texts(catalog, collection, columns))


def check_columns(columns: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a column for words that no collection has, before anything is encoded.

    Raises:
        BuildError: There is one; the message says which there are.
    """
    own = [name for name in dict.fromkeys(known) if name not in RESERVED_NAMES]
    for name in columns:
        if name not in own:
            raise BuildError(
                f"words_columns names {name!r}, which is no metadata column of the corpus; "
                f"there are {', '.join(own) or 'none'}"
            )


def _texts(
    catalog: Catalog, collection: Collection, columns: Sequence[str]
) -> Iterator[tuple[NDArray[np.int64], pa.ChunkedArray]]:
    present = [name for name, _ in catalog.columns(collection)]
    chosen = [name for name in dict.fromkeys(columns) if name in present]
    table = catalog.table(collection, ["item_id", "caption", *chosen])
    rows = np.arange(table.num_rows)
    for name in ("item_id", *chosen):
        yield rows, _as_text(table.column(name))
    if collection == "images":
        pairs, captions = catalog.table("pairs"), catalog.table("texts", ["caption"]).column("caption")
        paired = np.asarray(pairs.column("image_row"))
        yield paired, captions.take(pairs.column("text_row"))
        rows = rows[np.bincount(paired, minlength=len(rows)) == 0]
    yield rows, table.column("caption").take(pa.array(rows))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    try:
        return pc.cast(column, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.chunked_array([pa.array(map(_plain, column.to_pylist()), pa.string())])


def _plain(value: Any) -> str | None:
    """Return a value that Arrow has no text for: the values of a list or a struct, one after the other."""
    if isinstance(value, dict):
        value = list(value.values())
    return (
        " ".join(filter(None, map(_plain, value))) if isinstance(value, list) else None if value is None else str(value)
    )
