"""Partners: the items of the other collection that belong to each row of one, by the pairs of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from .schema import Collection

if TYPE_CHECKING:
    import pyarrow as pa

Ids = NDArray[np.int64]
# Of an item with more, as a label that a thousand images share, these are enough to compare with.
_MOST_PARTNERS = 16


class Partners:
    """The partners of every row of one collection, at most 16 each, in the order of the pairs."""

    def __init__(self, own: Ids, other: Ids, rows: int) -> None:
        """Take pairs as two columns (p,): rows of this collection, which has `rows` of them, and of the other."""
        in_order = bool((own[1:] >= own[:-1]).all())  # of the images as a build writes them
        self._others = np.asarray(other if in_order else other[np.argsort(own, kind="stable")], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=rows))])

    @classmethod
    def of(cls, pairs: pa.Table, collection: Collection, rows: int) -> Self:
        """Take the table `pairs` of a catalog, for the rows of a collection."""
        image, text = (pairs.column(name).to_numpy().astype(np.int64) for name in ("image_row", "text_row"))
        return cls(image, text, rows) if collection == "images" else cls(text, image, rows)

    def counts(self) -> Ids:
        """Return how many partners each row has, (rows,), also beyond 16."""
        return np.diff(self._starts)

    def among(self, rows: Ids) -> tuple[Ids, Ids]:
        """Return the partners of rows (n,): for each the position in `rows` that it belongs to, ascending, and its row.

        Both are (m,) int64.
        """
        starts = self._starts[rows]
        counts = np.minimum(self._starts[rows + 1] - starts, _MOST_PARTNERS)
        positions = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
        steps = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        return positions, self._others[np.repeat(starts, counts) + steps]
