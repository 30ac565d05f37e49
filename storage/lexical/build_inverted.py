"""Building an inverted index: from the texts of each row to the file that `InvertedIndex` maps."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..files.atomic import checkpoint, explained
from .inverted_index import K1, B, idf, serialized_header
from .terms import terms

_CHUNK = 1 << 16  # texts that are split at a time
_SLICE = 1 << 20  # keys that are counted at a time
_RANGE = 1 << 20  # terms whose order is found at a time
_SAMPLES = 64  # of them tell where a range ends
_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1


def write_inverted_index(path: Path, rows: int, texts: Iterable[tuple[NDArray[np.int64], pa.ChunkedArray]]) -> None:
    """Write the inverted index of a collection to a new file, durably; equal texts give equal bytes.

    Takes some 14 bytes of memory for each word while it works, and 60 for each different one.

    Args:
        path: The file, which must not exist yet.
        rows: Rows of the collection, at least 1.
        texts: Row ids (n,) and n texts of them, null for none; a row may have any number, in any order.

    Raises:
        StorageError: The disk is full, or the file is there.
    """
    parts = [_keys(row_ids, part) for row_ids, column in texts for row_ids, part in _chunks(row_ids, column)]
    parts = [part for part in parts if len(part[1])]
    names, ranks = _ranks([own for own, _ in parts])
    keys = [own for _, own in parts]
    del parts
    together = _ranked(keys, ranks)
    del ranks
    tensors = [_ends(names), *_tensors(rows, len(names), together), np.frombuffer(_bytes(names), dtype=np.uint8)]
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


def _keys(row_ids: NDArray[np.int64], texts: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the different terms of some texts, sorted, and a key a word: the place of its term there, then row id."""
    words = pc.utf8_split_whitespace(texts)
    rows = row_ids[np.asarray(pc.list_parent_indices(words))]
    encoded = pc.list_flatten(words).dictionary_encode()
    found = [terms(word) for word in encoded.dictionary.to_pylist()]
    lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    own, numbers = _sorted(pa.array(list(chain.from_iterable(found)), pa.large_string()).dictionary_encode())
    codes = np.asarray(encoded.indices)
    repeats = lengths[codes]
    # Where the terms of each word start among all, and which of them each key takes.
    starts = np.repeat((np.cumsum(lengths) - lengths)[codes] - (np.cumsum(repeats) - repeats), repeats)
    keys: NDArray[np.int64] = numbers[starts + np.arange(len(starts))].astype(np.int64) << _ROW_BITS
    return own, keys | np.repeat(rows, repeats)


def _ranks(parts: list[pa.Array]) -> tuple[pa.Array, list[NDArray[np.int32]]]:
    """Return all different terms of sorted parts, sorted, and for each part where its own are among them.

    A range of the alphabet at a time, since finding equal terms takes several times their own memory.
    """
    ranks = [np.empty(len(part), dtype=np.int32) for part in parts]
    names: list[pa.Array] = []
    known, starts = 0, [0] * len(parts)
    for ends in _range_ends(parts):
        slices = [part[start:end] for part, start, end in zip(parts, starts, ends, strict=True)]
        found, own = _sorted(pa.concat_arrays(slices).dictionary_encode())
        own += known
        at = 0
        for rank, start, end in zip(ranks, starts, ends, strict=True):
            rank[start:end] = own[at : (at := at + end - start)]
        names.append(found)
        known, starts = known + len(found), ends
    return pa.concat_arrays(names) if names else pa.array([], pa.large_string()), ranks


def _sorted(encoded: pa.DictionaryArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """Return the different values in the order of their bytes, and where each value of the array is among them."""
    order = pc.sort_indices(encoded.dictionary)
    ranks = np.empty(len(order), dtype=np.int32)
    ranks[np.asarray(order)] = np.arange(len(order))
    return encoded.dictionary.take(order), ranks[np.asarray(encoded.indices)]


def _range_ends(parts: list[pa.Array]) -> Iterable[list[int]]:
    """Where in each sorted part ranges of some `_RANGE` terms end; equal terms are in the same range."""
    step = max(1, _RANGE // _SAMPLES)
    sample = sorted(chain.from_iterable(part[::step].to_pylist() for part in parts))
    for bound in sample[_SAMPLES::_SAMPLES]:
        yield [bisect_left(part, bound, key=lambda term: term.as_py()) for part in parts]
    if parts:
        yield [len(part) for part in parts]


def _ranked(keys: list[NDArray[np.int64]], ranks: list[NDArray[np.int32]]) -> NDArray[np.int64]:
    """Return all keys with the rank of each term among all in place of its number, ascending."""
    together = np.empty(sum(map(len, keys)), dtype=np.int64)
    at = 0
    while keys:
        part, own = keys.pop(), ranks.pop()
        together[at : at + len(part)] = own[part >> _ROW_BITS].astype(np.int64) << _ROW_BITS | part & _ROW_MASK
        at += len(part)
    together.sort()
    return together


def _tensors(rows: int, names: int, keys: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Return `row_ends`, `rows` and `shares`, from all keys, some at a time."""
    slices = [(start, min(start + _SLICE, len(keys))) for start in range(0, len(keys), _SLICE)]
    lengths, frequencies = np.zeros(rows, dtype=np.int32), np.zeros(names, dtype=np.int64)
    for start, stop in slices:
        part = keys[start:stop]
        np.add.at(lengths, part & _ROW_MASK, np.int32(1))
        np.add.at(frequencies, part[_first(keys, start, stop)] >> _ROW_BITS, 1)
    norms = (K1 * (1 - B + B * lengths / max(lengths.mean(), 1))).astype(np.float64)
    rarity = idf(frequencies, rows)
    entries = int(frequencies.sum())
    rows_of, shares = np.empty(entries, dtype="<u4"), np.empty(entries, dtype="<f2")
    # A share is above 0 also where rounding would make it none: a row that has a term is found by it.
    least, at = np.finfo(np.float16).smallest_subnormal, 0
    for start, stop in slices:
        first = start + _first(keys, start, stop)
        part = keys[first]
        term, row = part >> _ROW_BITS, part & _ROW_MASK
        counts = _counts(keys, first, stop)
        found = slice(at, at := at + len(first))
        rows_of[found] = row
        shares[found] = np.maximum((rarity[term] * counts * (K1 + 1) / (counts + norms[row])).astype(np.float16), least)
    return [np.cumsum(frequencies).astype("<i8"), rows_of, shares]


def _first(keys: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Where in a slice of ascending keys the first of each stands, but not of one that goes on from before it."""
    before = keys[start - 1] if start else -1
    return np.flatnonzero(np.diff(keys[start:stop], prepend=before))


def _counts(keys: NDArray[np.int64], first: NDArray[np.int64], stop: int) -> NDArray[np.int64]:
    """How often the key at each of these places comes; the last may go on behind the slice that ends at `stop`."""
    if not len(first):
        return first
    last = keys[first[-1]]
    end = stop + int(np.searchsorted(keys[stop:], last, side="right"))
    return np.diff(first, append=end)


def _ends(names: pa.Array) -> NDArray[np.int64]:
    """Where in the bytes of all each name ends."""
    if not len(names):
        return np.empty(0, dtype="<i8")
    return np.frombuffer(names.buffers()[1], dtype="<i8", count=len(names) + 1, offset=8 * names.offset)[1:]


def _bytes(names: pa.Array) -> Any:
    held = names.buffers()[2] if len(names) else None
    return b"" if held is None else memoryview(held)[: int(_ends(names)[-1])]
