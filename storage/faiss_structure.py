"""The structure of FAISS files, walked before FAISS reads them: every part must be one that a build writes.

A FAISS file is a tree of parts, each named by four bytes, and its reader follows whatever it finds: a quantiser may be
any other index, and inverted lists may stand in another file, which is opened and mapped. Checksums find damage, not
forgery. So the whole tree is walked here, without FAISS: each part is the one that stands there in a file of that kind,
each size is that of the index, all ids are those of rows, and nothing follows.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .schema import AnnKind

# The first four bytes of each kind's file, behind a rotation where there is one.
FOURCC: Mapping[AnnKind, bytes] = {
    "ivf-flat": b"IwSq",
    "ivf-pq": b"IwPQ",
    "ivf-pq4": b"IwPf",
    "ivf-rabitq": b"Iwrn",
    "hnsw": b"IHNs",
}
MAY_BE_ROTATED: tuple[AnnKind, ...] = ("ivf-pq", "ivf-pq4")
ROTATED = b"IxPT"
_FOUND_BY_CODES = b"IxRF"  # centroids that are found by codes and then compared

_FP16 = 4  # FAISS's number for scalar codes of float16
_BLOCK = 32  # rows that a fast scan looks at together
_MAX_LEVELS = 64
_INNER_PRODUCT = 0


class StructureError(Exception):
    """A part is not what stands there in a file that a build has written; the message names both."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes that an index must have: entries of rows in it, rows, length of a vector, inverted lists."""

    entries: int
    rows: int
    dim: int
    nlist: int


def check_structure(file: BinaryIO, kind: AnnKind, shape: Shape) -> None:
    """Check the whole structure of a FAISS file, from its beginning.

    Raises:
        StructureError: It holds another part than a build writes there, another size, or an id that no row has.
    """
    _Walk(file, kind, shape).whole()


class _Walk:
    """Goes through one file, part by part."""

    def __init__(self, file: BinaryIO, kind: AnnKind, shape: Shape) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._kind = kind
        self._shape = shape
        file.seek(0)

    def whole(self) -> None:
        first = self._file.read(4)
        if first == ROTATED and self._kind in MAY_BE_ROTATED:
            self._header(self._shape.entries)
            self._rotation()
            first = self._file.read(4)
        self._equal("index", first, FOURCC[self._kind])
        self._header(self._shape.entries)
        if self._kind == "hnsw":
            self._graph()
        else:
            self._lists()
        self._equal("end", self._file.tell(), self._size)

    def _header(self, count: int) -> None:
        dim, rows, _, _, trained, metric = self._values("<iqqq?i")
        self._equal("dim", dim, self._shape.dim)
        self._equal("rows", rows, count)
        self._equal("trained", trained, True)
        self._equal("metric", metric, _INNER_PRODUCT)

    def _rotation(self) -> None:
        dim = self._shape.dim
        self._equal("rotation", self._values("<i4s?"), (1, b"LTra", False))
        self._skip("rotation", 4, dim * dim)
        self._equal("rotation", self._values("<Qii?"), (0, dim, dim, True))

    def _lists(self) -> None:
        shape = self._shape
        lists, _ = self._values("<QQ")  # the second is a default of searches, which bring their own
        self._equal("nlist", lists, shape.nlist)
        self._centroids()
        self._equal("direct map", self._values("<bQ"), (0, 0))
        codes: dict[AnnKind, Callable[[], int]] = {
            "ivf-flat": self._scalar_codes,
            "ivf-pq": self._product_codes,
            "ivf-pq4": self._fast_product_codes,
            "ivf-rabitq": self._bit_codes,
        }
        width = codes[self._kind]()
        if self._kind in ("ivf-flat", "ivf-pq"):
            self._array_lists(width)
        else:
            self._block_lists(width)

    def _centroids(self) -> None:
        """Pass over the list centroids: vectors alone, or codes to find them by in front of them."""
        nlist, first = self._shape.nlist, self._file.read(4)
        if first == _FOUND_BY_CODES and self._kind == "ivf-pq4":
            self._header(nlist)
            self._equal("codes of centroids", self._file.read(4), b"IPfs")
            self._header(nlist)
            codes = self._product_quantizer(4)
            even, blocks = codes + codes % 2, -(-nlist // _BLOCK) * _BLOCK
            self._equal("codes of centroids", self._values("<iiiQQ"), (0, _BLOCK, 0, blocks, even))
            self._skip("codes of centroids", 1, blocks * even // 2)
            self._flat(self._file.read(4))
            (factor,) = self._values("<f")
            self._equal("candidates of centroids", 1 <= factor <= nlist, True)
        else:
            self._flat(first)

    def _flat(self, first: bytes) -> None:
        self._equal("list centroids", first, b"IxFI")
        self._header(self._shape.nlist)
        self._skip("list centroids", 4, self._shape.nlist * self._shape.dim)

    def _scalar_codes(self) -> int:
        width = self._scalar_quantizer()
        self._equal("codes", self._values("<Q?"), (width, True))
        return width

    def _scalar_quantizer(self) -> int:
        width = 2 * self._shape.dim
        kind, _, _, dim, code_size, trained = self._values("<iifQQQ")
        self._equal("codes", (kind, dim, code_size, trained), (_FP16, self._shape.dim, width, 0))
        return width

    def _product_codes(self) -> int:
        self._equal("residual", self._values("<?"), (True,))
        (width,) = self._values("<Q")
        self._equal("codes", self._product_quantizer(8), width)
        return int(width)

    def _fast_product_codes(self) -> int:
        _, width, block, even = self._values("<?QiQ")
        self._equal("settings of the scan", self._values("<iQ"), (0, 0))
        codes = self._product_quantizer(4)
        self._equal("codes", (width, block, even), ((codes + 1) // 2, _BLOCK, codes + codes % 2))
        return int(_BLOCK * even // 2)

    def _product_quantizer(self, bits: int) -> int:
        dim, codes, width = self._values("<QQQ")
        self._equal("codes", (dim, width), (self._shape.dim, bits))
        if not 1 <= codes <= dim or dim % codes:
            raise StructureError(f"{codes} codes of {dim} dimensions")
        self._skip("centroids of codes", 4, dim << bits)
        return int(codes)

    def _bit_codes(self) -> int:
        dim = self._shape.dim
        width = (dim + 7) // 8 + 8
        self._equal("codes", self._values("<QQiQ"), (dim, width, _INNER_PRODUCT, 1))
        _, size, block, *scan = self._values("<?Qiiiqi")
        self._equal("codes", (size, block), (width, _BLOCK))
        even = -(-dim // 4) + (-(-dim // 4)) % 2
        self._equal("settings of the scan", tuple(scan), (0, 0, even, 0))
        bits, centred = self._values("<B?")
        self._equal("settings of the scan", (1 <= bits <= 8, centred), (True, False))
        return _BLOCK * width

    def _array_lists(self, width: int) -> None:
        lists = self._shape.nlist
        fourcc, count, size, form, numbers = self._values("<4sQQ4sQ")
        self._equal("lists", (fourcc, count, size), (b"ilar", lists, width))
        if form == b"sprs":  # where most lists are empty: the number and the size of each other one
            sizes = self._sparse(numbers)
        else:
            self._equal("lists", (form, numbers), (b"full", lists))
            sizes = self._numbers("lists", "<u8", lists)
        self._total(sizes)
        for rows in sizes.tolist():
            self._forward(rows * width)
            self._ids(rows)

    def _sparse(self, numbers: int) -> NDArray[Any]:
        lists = self._shape.nlist
        pairs = self._numbers("lists", "<u8", numbers)
        rows, sizes = pairs[::2], pairs[1::2]
        if len(rows) != len(sizes) or (rows >= lists).any() or (rows[1:] <= rows[:-1]).any():
            raise StructureError("lists that are not there")
        return sizes

    def _block_lists(self, width: int) -> None:
        lists = self._shape.nlist
        parts = self._values("<4sQqQQ")
        self._equal("lists", (*parts[:2], *parts[3:]), (b"ilbl", lists, _BLOCK, width))
        sizes = []
        for _ in range(lists):
            (size,) = self._values("<Q")
            sizes.append(size)
            self._total(np.array(sizes[-1:], dtype=np.uint64), whole=False)
            self._ids(size)
            self._skip("codes", 1, -(-size // _BLOCK) * width)
        self._total(np.array(sizes, dtype=np.uint64))

    def _total(self, sizes: NDArray[Any], *, whole: bool = True) -> None:
        if sizes.max(initial=0) > self._shape.entries:
            raise StructureError(f"a list of {sizes.max()} rows")
        if whole:
            self._equal("rows in lists", int(sizes.sum()), self._shape.entries)

    def _ids(self, count: int) -> None:
        ids = self._numbers("ids", "<i8", count)
        if count and (ids.min() < 0 or ids.max() >= self._shape.rows):
            raise StructureError(f"ids from {ids.min()} to {ids.max()} where rows are 0 to {self._shape.rows - 1}")

    def _graph(self) -> None:
        rows = self._shape.entries
        (levels,) = self._values("<Q")
        if levels > _MAX_LEVELS:
            raise StructureError(f"a graph of {levels} levels")
        self._forward(8 * levels)  # chances of a row to be on each level: of use when rows are added
        self._equal("levels", self._values("<Q"), (levels + 1,))
        ends = self._numbers("neighbours of levels", "<i4", levels + 1)
        self._equal("levels", self._values("<Q"), (rows,))
        highest = self._numbers("levels", "<i4", rows)
        self._equal("offsets", self._values("<Q"), (rows + 1,))
        offsets = self._numbers("offsets", "<u8", rows + 1)
        (count,) = self._values("<Q")
        neighbours = self._numbers("neighbours", "<i4", count)
        entry, top, _, _, beam = self._values("<5i")
        sound = (np.array_equal(ends[:1], [0]), (np.diff(ends) > 0).all(), ((highest >= 1) & (highest <= levels)).all())
        if not all(sound):
            raise StructureError("a graph of levels that none has")
        self._linked(neighbours, offsets, ends[highest].astype(np.uint64))
        if rows and not (0 <= entry < rows and top == highest[entry] - 1 == highest.max() - 1):
            raise StructureError(f"a graph that is entered at {entry} on level {top}")
        self._equal("beam", beam, 1)
        self._equal("storage", self._file.read(4), b"IxSQ")
        self._header(rows)
        width = self._scalar_quantizer()
        self._skip("codes", 1, rows * width)

    def _linked(self, neighbours: NDArray[Any], offsets: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Check that the neighbours of each row stand one behind the other and are rows."""
        rows = self._shape.entries
        if offsets[0] != 0 or not np.array_equal(np.diff(offsets), lengths) or offsets[-1] != len(neighbours):
            raise StructureError("a graph whose parts overlap")
        if neighbours.min(initial=-1) < -1 or neighbours.max(initial=-1) >= rows:
            raise StructureError(f"a graph that leads to row {neighbours.max()} where rows are 0 to {rows - 1}")

    def _skip(self, what: str, item: int, count: int) -> None:
        """Pass over a vector that must have `count` items."""
        self._equal(what, self._values("<Q"), (count,))
        self._forward(item * count)

    def _forward(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise StructureError("its end before its data")
        self._file.seek(size, os.SEEK_CUR)

    def _numbers(self, what: str, kind: str, count: int) -> NDArray[Any]:
        if count * np.dtype(kind).itemsize > self._size - self._file.tell():
            raise StructureError(f"its end before {count} {what}")
        return np.frombuffer(self._file.read(count * np.dtype(kind).itemsize), kind)

    def _values(self, form: str) -> tuple[Any, ...]:
        data = self._file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise StructureError("its end before its data")
        return struct.unpack(form, data)

    def _equal(self, what: str, actual: object, expected: object) -> None:
        if actual != expected:
            raise StructureError(f"{what} {actual!r} where {expected!r} is expected")
