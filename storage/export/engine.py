"""What the exports into vector engines share: points to send in batches, and a run that leaves all or nothing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .rows import PAIRED, Pairs, Rows

BATCH_BYTES = 4 * 2**20
MAX_POINTS = 1000


class VectorEngine(ABC):
    """A running vector engine that takes rows under temporary names and makes them visible at the end, all at once.

    Use it in `with`: where the block fails, what it wrote is removed; the connection is closed either way.
    """

    _client: Any

    @abstractmethod
    def write(self, rows: Rows, pairs: Pairs) -> None:
        """Take all rows of one collection; readers of the engine do not see them yet."""

    @abstractmethod
    def publish(self) -> None:
        """Make what was written visible under its name."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove what was written and is not published."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._discard()
        finally:
            self._client.close()


@dataclass(frozen=True, kw_only=True)
class Points:
    """Some rows: row ids (n,), vectors (n, dim), and a dict of JSON values a row, its item id and pairs among them."""

    row_ids: list[int]
    vectors: NDArray[Any]
    payloads: list[dict[str, Any]]


def points(rows: Rows, pairs: Pairs) -> Iterator[Points]:
    """Yield all rows, in batches of some megabytes: engines refuse large messages."""
    size = max(1, min(MAX_POINTS, BATCH_BYTES // (rows.dim * rows.numbers.itemsize)))
    # The catalog is read in larger steps than the engine is sent.
    for tables, (row_ids, vectors) in zip(_slices(rows, size), rows.blocks(size), strict=True):
        partners = pairs.partners(rows.collection, row_ids)
        payloads = [
            {**{name: plain(value) for name, value in row.items()}, "collection": rows.collection, PAIRED: others}
            for row, others in zip(tables.to_pylist(), partners, strict=True)
        ]
        yield Points(row_ids=row_ids.tolist(), vectors=vectors, payloads=payloads)


def plain(value: Any) -> Any:
    """Return a value of the catalog as JSON has it; what JSON lacks (dates, decimals) as text, NaN as null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _slices(rows: Rows, size: int) -> Iterator[pa.Table]:
    for table in rows.metadata_batches(size * max(1, 16_384 // size)):
        yield from (table.slice(start, size) for start in range(0, table.num_rows, size))
