"""Columns of a file that is mapped into memory, and what the system is told of how they are read.

A system that is told nothing reads ahead: of a file that fits memory all is there after a second of searches, but of
one that does not, each search throws out what the next one wants, and reads a hundred times what it asked for.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import CorruptIndexError
from .atomic import explained
from .layout import open_regular

_AHEAD_BYTES = 1 << 24  # that are asked for before they are wanted, where rows are read one after the other
_PIECE_BYTES = 1 << 17  # the least that a system reads at most when it is asked for more
_CGROUPS = Path("/sys/fs/cgroup")


class MappedRows(NamedTuple):
    """Stored rows as they lie in the mapped file; by default none.

    Attributes:
        batch_rows: The rows of a batch.
        is_large: Whether they are more than memory has room for, see `MappedColumn`.
        values: The whole file as float16 or int8; row `r` begins at `starts[r // batch_rows] + r * dim`.
        starts: (batches,) int64.
        scales: The whole file as float16, where a value is one byte: the scale of row `r` stands at
            `scale_starts[r // batch_rows] + r`.
        scale_starts: (batches,) int64.
    """

    batch_rows: int = 1
    is_large: bool = False
    values: NDArray[np.float16] | NDArray[np.int8] | None = None
    starts: NDArray[np.int64] | None = None
    scales: NDArray[np.float16] | None = None
    scale_starts: NDArray[np.int64] | None = None


class MappedColumn:
    """A column of rows of one width, read straight from the mapped file, in whose batches they lie without gaps.

    Attributes:
        is_large: Whether it takes more than half of the memory that there is. The system is then told that rows are
            read here and there, and of rows that are read in their order, which of them come next.
    """

    def __init__(
        self, mapped: mmap.mmap, batches: Sequence[pa.Array], batch_rows: int, width: int, dtype: np.dtype[Any]
    ) -> None:
        """Find the values of each batch; ValueError where they do not lie in the file."""
        self._batch_rows = batch_rows
        self._width = width
        self._mapped: mmap.mmap | None = mapped
        first_rows = np.arange(len(batches), dtype=np.int64) * batch_rows
        data = np.frombuffer(mapped, dtype=np.uint8)
        offsets = [_element_offset(values, data, dtype.itemsize) for values in batches]
        # Where each batch would start if it held all rows before it too: row `r` of it is at this + r * width.
        self._starts = np.array(offsets, dtype=np.int64) - first_rows * width
        self._flat: NDArray[Any] = data[: data.size // dtype.itemsize * dtype.itemsize].view(dtype)
        self._row_at = _overlapping_rows(self._flat, width)
        self.is_large = is_large(sum(map(len, batches)) * dtype.itemsize)
        if self.is_large:
            for offset, values in zip(offsets, batches, strict=True):
                self._advise(mmap.MADV_RANDOM, offset, len(values))

    def at(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return a C-contiguous copy of these rows, `rows.shape + (width,)`."""
        if rows.size == 0:
            return np.empty((*rows.shape, self._width), dtype=self._flat.dtype)
        places = self._starts[rows // self._batch_rows] + rows * self._width
        return self._fetched(places) if self.is_large else self._row_at[places]

    def span(self, start: int, count: int) -> NDArray[Any]:
        """Return rows of one batch, as they lie in the file, (count, width)."""
        first = self._starts[start // self._batch_rows] + start * self._width
        if self.is_large:
            self._fetch_ahead(start, count)
        return self._flat[first : first + count * self._width].reshape(count, self._width)

    def mapped(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the file's values, and where each batch would start in them if it held all rows before it too."""
        return self._flat, self._starts

    def close(self) -> None:
        """Let go of the file."""
        self._mapped = None
        self._starts = np.empty(0, dtype=np.int64)
        self._flat = np.empty(0, dtype=self._flat.dtype)
        self._row_at = np.empty((0, self._width), dtype=self._flat.dtype)

    def _fetched(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows that begin at these elements; while some are read the system fetches the next."""
        rows = np.empty((*places.shape, self._width), dtype=self._flat.dtype)
        flat, target, share = places.reshape(-1), rows.reshape(-1, self._width), self._share()
        self._fetch(flat[:share])
        for start in range(0, len(flat), share):
            part = slice(start, start + share)
            self._fetch(flat[part.stop : part.stop + share])
            target[part] = self._row_at[flat[part]]
        return rows

    def _fetch(self, places: NDArray[np.int64]) -> None:
        """Ask for the rows that begin at these elements, those together that lie on neighbouring pages."""
        if len(places):
            size = self._flat.itemsize
            starts = np.sort(places) * size // mmap.PAGESIZE
            stops = (np.sort(places) + self._width) * size // mmap.PAGESIZE + 1
            begun = np.flatnonzero(starts[1:] > stops[:-1]) + 1
            runs = np.stack([starts[np.append(0, begun)], stops[np.append(begun, len(starts)) - 1]], axis=1)
            for start, stop in (runs * (mmap.PAGESIZE // size)).tolist():
                self._ask(start, stop)

    def _fetch_ahead(self, start: int, count: int) -> None:
        """Ask for the rows after these, where a new share of the file begins among these."""
        share = self._share()
        begun = -(-start // share) * share
        if begun < start + count:
            first = int(self._starts[begun // self._batch_rows]) + begun * self._width
            self._ask(first, first + 2 * share * self._width)

    def _share(self) -> int:
        return max(1, _AHEAD_BYTES // (self._width * self._flat.itemsize))

    def _ask(self, first: int, last: int) -> None:
        """Ask for elements of the file, and do not wait for them."""
        piece = _PIECE_BYTES // self._flat.itemsize
        for at in range(first, min(last, len(self._flat)), piece):
            self._advise(mmap.MADV_WILLNEED, at, min(piece, last - at))

    def _advise(self, advice: int, first: int, count: int) -> None:
        """Tell the system about elements of the file; it may know no such advice, and nothing depends on it."""
        if self._mapped is None:
            return
        size = self._flat.itemsize
        start = first * size // mmap.PAGESIZE * mmap.PAGESIZE
        stop = min((first + count) * size, len(self._mapped))
        if start < stop:
            with suppress(OSError):
                self._mapped.madvise(advice, start, stop - start)


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file, read only.

    Raises:
        CorruptIndexError: It is missing, no ordinary file, or empty.
    """
    with open_regular(path.parent, path.name) as file, explained("map", path):
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise CorruptIndexError(f"{path} is empty; roll back to another version or build again") from error


def is_large(size: int) -> bool:
    """Whether so many mapped bytes are more than half of the memory that there is."""
    return size > memory_bytes() // 2


@lru_cache
def memory_bytes() -> int:
    """Return how much memory this process may have: the machine's, or what the limits of its container leave of it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        groups = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        groups = []
    return min([machine, *limits(groups, _CGROUPS)])


def limits(groups: Sequence[str], root: Path) -> Iterator[int]:
    """Yield the limits of memory, in bytes, of the control groups that a process is in, by the lines that name them.

    Both kinds: of version 1 (`4:memory:/a/b`) and of version 2 (`0::/a/b`). A group that is not there under its own
    name is that of a container, which sees it as the root.
    """
    for line in groups:
        _, kinds, place = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if kinds else (root, "memory.max")
        own = base / place.strip("/")
        for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(base))):
            with suppress(OSError, ValueError):  # not there, or `max`
                yield int((folder / name).read_text("ascii"))


def _element_offset(values: pa.Array, mapped: NDArray[np.uint8], size: int) -> int:
    """Return where the values of a batch start in the file, in elements of `size` bytes; ValueError if not there."""
    data = values.buffers()[1]
    start = data.address + size * values.offset - mapped.ctypes.data
    expected = size * len(values)
    if values.null_count or start % size or start < 0 or start + expected > mapped.size or data.size < expected:
        raise ValueError("the values of a batch lie outside the file")
    return int(start // size)


def _overlapping_rows(values: NDArray[Any], width: int) -> NDArray[Any]:
    """Return a view of overlapping rows, one at each element of the file, so that one fancy index reads any rows."""
    shape = (max(values.size - width + 1, 0), width)
    strides = (values.itemsize, values.itemsize)
    return np.lib.stride_tricks.as_strided(values, shape=shape, strides=strides, writeable=False)
