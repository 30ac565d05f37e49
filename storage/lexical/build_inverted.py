"""Building an inverted index: from the texts of each row to the file that `InvertedIndex` maps."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..files.atomic import checkpoint, explained
from .inverted_index import K1, TENSORS, B, idf, serialized_header
from .terms import terms

_CHUNK = 1 << 16
_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1


def write_inverted_index(path: Path, rows: int, texts: Iterable[tuple[NDArray[np.int64], pa.ChunkedArray]]) -> None:
    """Write the inverted index of a collection to a new file, durably; equal texts give equal bytes.

    Takes some 9 bytes of memory for each word while it works.

    Args:
        path: The file, which must not exist yet.
        rows: Rows of the collection, at least 1.
        texts: Row ids (n,) and n texts of them, null for none; a row may have any number, in any order.

    Raises:
        StorageError: The disk is full, or the file is there.
    """
    known: dict[str, int] = {}
    keys = [_keys(known, row_ids, part) for row_ids, column in texts for row_ids, part in _chunks(row_ids, column)]
    names = sorted(known)
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[[known[name] for name in names]] = np.arange(len(names))
    tensors = _tensors(rows, names, _ranked(keys, ranks))
    with explained("write", path), path.open("xb") as file:
        file.write(serialized_header(rows, tensors))
        for tensor in tensors:
            file.write(tensor.data.cast("B") if len(tensor) else b"")
        checkpoint("words.written")
        file.flush()
        os.fsync(file.fileno())


def _chunks(row_ids: NDArray[np.int64], column: pa.ChunkedArray) -> Iterable[tuple[NDArray[np.int64], Any]]:
    for start in range(0, len(row_ids), _CHUNK):
        part = column.slice(start, _CHUNK)
        yield row_ids[start : start + _CHUNK], part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part


def _keys(known: dict[str, int], row_ids: NDArray[np.int64], texts: pa.Array) -> NDArray[np.int64]:
    """Return one key a term of each text: number of the term, then row id, in one integer."""
    words = pc.utf8_split_whitespace(texts)
    rows = row_ids[np.asarray(pc.list_parent_indices(words))]
    encoded = pc.list_flatten(words).dictionary_encode()
    found = [terms(word) for word in encoded.dictionary.to_pylist()]
    lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    numbers = np.fromiter((known.setdefault(term, len(known)) for term in chain.from_iterable(found)), dtype=np.int64)
    codes = np.asarray(encoded.indices)
    repeats = lengths[codes]
    # Where the terms of each word start among all, and which of them each key takes.
    starts = np.repeat((np.cumsum(lengths) - lengths)[codes] - (np.cumsum(repeats) - repeats), repeats)
    keys: NDArray[np.int64] = numbers[starts + np.arange(len(starts))] << _ROW_BITS | np.repeat(rows, repeats)
    return keys


def _ranked(keys: list[NDArray[np.int64]], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all keys with the rank of each term in place of its number, ascending."""
    together = np.empty(sum(map(len, keys)), dtype=np.int64)
    at = 0
    while keys:
        part = keys.pop()
        together[at : at + len(part)] = ranks[part >> _ROW_BITS] << _ROW_BITS | part & _ROW_MASK
        at += len(part)
    together.sort()
    return together


def _tensors(rows: int, names: list[str], keys: NDArray[np.int64]) -> list[NDArray[Any]]:
    lengths = np.bincount(keys & _ROW_MASK, minlength=rows)
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(first, append=len(keys))
    entries = keys[first]
    term, row = entries >> _ROW_BITS, entries & _ROW_MASK
    frequencies = np.bincount(term, minlength=len(names))
    norms = K1 * (1 - B + B * lengths / max(lengths.mean(), 1))
    shares = idf(frequencies, rows)[term] * counts * (K1 + 1) / (counts + norms[row])
    encoded = [name.encode() for name in names]
    # A share is above 0 also where rounding would make it none: a row that has a term is found by it.
    least = np.finfo(np.float16).smallest_subnormal
    values = {
        "term_ends": np.cumsum([len(name) for name in encoded]),
        "row_ends": np.cumsum(frequencies),
        "rows": row,
        "shares": np.maximum(shares.astype(np.float16), least),
        "terms": np.frombuffer(b"".join(encoded), dtype=np.uint8),
    }
    return [np.ascontiguousarray(values[name], dtype=dtype) for name, (_, dtype) in TENSORS.items()]
