"""The inverted index of a collection: for each term the rows that have it and its share of their BM25.

BM25 (Robertson and Zaragoza, 2009) sums over the terms of a query

    idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean length)),  idf = ln(1 + (n - df + 0.5) / (df + 0.5)).

Nothing in it depends on the query but which terms, so each term's share of a row's score is computed when the index is
built, and a search adds shares (Lù, BM25S, 2024).

The file is a safetensors file of five tensors, mapped: no part of it is run or unpacked, whoever wrote it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptIndexError
from ..files.layout import open_regular
from .terms import LONGEST_TERM, terms

K1, B = 1.2, 0.75
TENSORS: Mapping[str, tuple[str, str]] = {
    "term_ends": ("I64", "<i8"),
    "row_ends": ("I64", "<i8"),
    "rows": ("U32", "<u4"),
    "shares": ("F16", "<f2"),
    "terms": ("U8", "|u1"),
}
"""Name, type in the header and numpy's, in the order of the file."""
MOST_TERMS = 64
_MAX_HEADER = 4096
# A query looks at no more entries than these, the rarest terms first: "a" and "the" of a million captions say little.
_MOST_ENTRIES = 1 << 18
_NO_ROWS: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)


Entries = tuple[NDArray[np.uint32], NDArray[np.float16]]


class Matches(NamedTuple):
    """Rows that have a term of a query.

    Attributes:
        rows: (n,) int64, ascending.
        scores: (n,) float32, their BM25.
        covered: (n,) float32, the idf of those terms that they have.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    covered: NDArray[np.float32]

    def at(self, positions: NDArray[Any]) -> Matches:
        """Return some of the rows."""
        return Matches(self.rows[positions], self.scores[positions], self.covered[positions])


class InvertedIndex:
    """The terms of a collection; mapped, read only, safe from many threads, usable when its file is removed."""

    def __init__(self, path: Path, rows: int, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.path = path
        self.rows = rows
        self._term_ends, self._row_ends = tensors["term_ends"], tensors["row_ends"]
        self._rows, self._shares, self._terms = tensors["rows"], tensors["shares"], tensors["terms"]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file at `path` and check its structure; checksums are the manifest's business.

        Raises:
            CorruptIndexError: It is missing, or is not a file that `write_inverted_index` finished.
        """
        path = Path(path)
        with open_regular(path.parent, path.name) as file:
            try:
                data = np.memmap(file, dtype=np.uint8, mode="r")
                rows, tensors = _parse(data)
                _check_sizes(tensors)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise CorruptIndexError(
                    f"{path} is no lexical index ({str(error)[:200]}); roll back to another version or build again"
                ) from error
        return cls(path, rows, tensors)

    @property
    def term_count(self) -> int:
        """How many terms there are."""
        return len(self._term_ends)

    def search(self, words: str, among: NDArray[np.int64] | None = None) -> Matches:
        """Return every row that has a term of `words`, and its BM25.

        Words are words: nothing in them is syntax. Of more than 64 terms the rarest count, and of terms that together
        stand in more than a quarter of a million rows, the rarest up to there.

        Args:
            words: What to look for.
            among: Rows that count, ascending; None for all.

        Raises:
            CorruptIndexError: The file does not hold what it should.
        """
        matches = _summed([self._entries(position) for position in self._chosen(words)], self.rows)
        if among is None:
            return matches
        return matches.at(_is_among(matches.rows, among))

    def idf(self, words: str) -> dict[str, float]:
        """Return how rare each term of `words` is: its idf, that of a term in one row for one that no row has."""
        found = {term: self._find(term) for term in dict.fromkeys(terms(words))}
        return {term: float(idf(1 if at < 0 else self._frequency(at), self.rows)) for term, at in found.items()}

    def coverage(self, words: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return how much of `words` each of these rows has: its terms' share of the idf of the first 64 terms.

        Args:
            words: What is looked for.
            rows: (n,) row ids.

        Returns:
            (n,) float32 from 0 to 1.

        Raises:
            CorruptIndexError: The file does not hold what it should.
        """
        held, whole = np.zeros(len(rows)), 0.0
        for term in islice(dict.fromkeys(terms(words)), MOST_TERMS):
            position = self._find(term)
            entries = self._rows_of(position) if position >= 0 else _NO_ROWS
            weight = float(idf(max(len(entries), 1), self.rows))
            whole += weight
            if len(entries):
                at = np.minimum(np.searchsorted(entries, rows.astype(np.uint32)), len(entries) - 1)
                held[entries[at] == rows] += weight
        return (held / max(whole, 1e-6)).astype(np.float32)

    def check(self) -> None:
        """Check every term and every entry.

        Raises:
            CorruptIndexError: Terms are not in order, rows are not there or not in order, or a share is none.
        """
        names = [self._term(position) for position in range(self.term_count)]
        ends, rows = self._row_ends, self._rows.astype(np.int64)
        firsts = np.zeros(len(rows) + 1, dtype=bool)
        firsts[np.clip(np.concatenate([[0], ends]), 0, len(rows))] = True
        if not all(one < two for one, two in pairwise([b"", *names])) or (np.diff(ends, prepend=0) < 1).any():
            wrong = "its terms do not ascend, or one has no row"
        elif rows.max(initial=0) >= self.rows or not ((np.diff(rows) > 0) | firsts[1:-1]).all():
            wrong = f"the rows of a term do not ascend from 0 to {self.rows - 1}"
        elif not (np.isfinite(self._shares) & (self._shares > 0)).all():
            wrong = "a share is not a number above 0"
        else:
            return
        raise CorruptIndexError(f"{self.path} is no lexical index ({wrong}); build again")

    def _chosen(self, words: str) -> list[int]:
        """Positions of the terms that count, the rarest first."""
        found = [at for term in dict.fromkeys(terms(words)) if (at := self._find(term)) >= 0]
        found.sort(key=self._frequency)
        ends = np.cumsum([self._frequency(at) for at in found[:MOST_TERMS]])
        return found[: max(1, int(np.searchsorted(ends, _MOST_ENTRIES, side="right")))]

    def _find(self, term: str) -> int:
        wanted = term.encode()
        at = bisect_left(range(self.term_count), wanted, key=self._term)
        return at if at < self.term_count and self._term(at) == wanted else -1

    def _term(self, position: int) -> bytes:
        start, stop = _span(self._term_ends, position)
        return bytes(self._terms[start : min(stop, start + 4 * LONGEST_TERM)])

    def _frequency(self, position: int) -> int:
        start, stop = _span(self._row_ends, position)
        return stop - start

    def _entries(self, position: int) -> Entries:
        start, stop = _span(self._row_ends, position)
        rows, shares = self._rows_of(position), self._shares[start:stop]
        if int(rows.max()) >= self.rows or not np.isfinite(shares).all():
            raise self._wrong_rows(position)
        return rows, shares

    def _rows_of(self, position: int) -> NDArray[np.uint32]:
        start, stop = _span(self._row_ends, position)
        if not 0 <= start < stop <= len(self._rows):
            raise self._wrong_rows(position)
        return self._rows[start:stop]

    def _wrong_rows(self, position: int) -> CorruptIndexError:
        return CorruptIndexError(
            f"{self.path} names rows that are not there for term {position}; verify the index, or build it again"
        )


def _summed(entries: Sequence[Entries], count: int) -> Matches:
    """Return the sums of each row that has an entry; `count` rows are in the index."""
    rows = np.concatenate([np.empty(0, dtype=np.uint32), *(rows for rows, _ in entries)])
    shares = np.concatenate([np.empty(0, dtype=np.float16), *(shares for _, shares in entries)]).astype(np.float32)
    lengths = np.array([len(rows) for rows, _ in entries], dtype=np.int64)
    weights = np.repeat(idf(lengths, count).astype(np.float32), lengths)
    order = np.argsort(rows, kind="stable")
    ordered = rows[order].astype(np.int64)
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    if not len(first):
        return Matches(ordered, shares, weights)
    return Matches(ordered[first], np.add.reduceat(shares[order], first), np.add.reduceat(weights[order], first))


def _is_among(rows: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each row is one of `among`; both ascend."""
    if not len(among):
        return np.zeros(len(rows), dtype=bool)
    at = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    found: NDArray[np.bool_] = among[at] == rows
    return found


def idf(frequency: Any, rows: int) -> Any:
    """Return the inverse document frequency of terms that stand in so many of the rows."""
    return np.log1p((rows - frequency + 0.5) / (frequency + 0.5))


def _span(ends: NDArray[np.int64], position: int) -> tuple[int, int]:
    return int(ends[position - 1]) if position else 0, int(ends[position])


def _parse(data: NDArray[np.uint8]) -> tuple[int, dict[str, NDArray[Any]]]:
    length = int(data[:8].view("<u8")[0]) if len(data) >= 8 else 0
    if not 0 < length <= min(_MAX_HEADER, len(data) - 8):
        raise ValueError("its header is not that of a safetensors file")
    header = json.loads(bytes(data[8 : 8 + length]))
    rows = int(header.pop("__metadata__")["rows"])
    if list(header) != list(TENSORS) or not 0 < rows < 1 << 32:
        raise ValueError(f"it has the tensors {list(header)[:9]} and {rows} rows")
    body, at, tensors = data[8 + length :], 0, {}
    for name, (kind, dtype) in TENSORS.items():
        start, stop = header[name]["data_offsets"]
        if (header[name]["dtype"], start) != (kind, at) or not at <= stop <= len(body):
            raise ValueError(f"its tensor {name} is of {header[name]['dtype']} from byte {start} to {stop}")
        tensors[name], at = body[start:stop].view(dtype), stop
    if at != len(body):
        raise ValueError(f"it has {len(body) - at} bytes too many")
    return rows, tensors


def _check_sizes(tensors: Mapping[str, NDArray[Any]]) -> None:
    if len(tensors["term_ends"]) != len(tensors["row_ends"]) or len(tensors["rows"]) != len(tensors["shares"]):
        raise ValueError("its tensors do not have the same lengths")
    for ends, values in (("term_ends", "terms"), ("row_ends", "rows")):
        last = int(tensors[ends][-1]) if len(tensors[ends]) else 0
        if last != len(tensors[values]):
            raise ValueError(f"its {ends} end at {last} and {values} at {len(tensors[values])}")


def serialized_header(rows: int, tensors: Sequence[NDArray[Any]]) -> bytes:
    """Return the first bytes of a file of these tensors, in the order of `TENSORS`."""
    header: dict[str, Any] = {"__metadata__": {"rows": str(rows)}}
    at = 0
    for (name, (kind, _)), tensor in zip(TENSORS.items(), tensors, strict=True):
        header[name] = {"dtype": kind, "shape": [len(tensor)], "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors of 8 bytes stand first and need that
    return len(text).to_bytes(8, "little") + text
