"""Which exported image belongs to which exported text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..spec import Collection
from ..version import IndexVersion

BATCH_PAIRS = 65_536
PAIR_SCHEMA = pa.schema(
    [("image_row", pa.int64()), ("text_row", pa.int64()), ("image_id", pa.string()), ("text_id", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pairs whose two ends both go out: (n, 2) row ids of the index; 16 bytes a pair are held in memory."""

    version: IndexVersion
    ends: NDArray[np.int64]
    images: NDArray[np.int64]
    texts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the pairs: rows counted within what goes out, as `build-index --pairs` takes them, and ids."""
        for start in range(0, len(self.ends), BATCH_PAIRS):
            image_rows, text_rows = self.ends[start : start + BATCH_PAIRS].T
            yield pa.record_batch(
                [
                    pa.array(np.searchsorted(self.images, image_rows).astype(np.int64)),
                    pa.array(np.searchsorted(self.texts, text_rows).astype(np.int64)),
                    pa.array(self.version.vectors("images").item_ids(image_rows), pa.string()),
                    pa.array(self.version.vectors("texts").item_ids(text_rows), pa.string()),
                ],
                schema=PAIR_SCHEMA,
            )

    def partners(self, collection: Collection, rows: NDArray[np.int64]) -> list[list[str]]:
        """Return for each row id of a collection the item ids that it is paired with."""
        if not len(self.ends):
            return [[] for _ in rows]
        own, other = (0, 1) if collection == "images" else (1, 0)
        ends = self.ends if own == 0 else self._by_text
        starts, stops = (np.searchsorted(ends[:, own], rows, side) for side in ("left", "right"))
        wanted = np.concatenate([ends[a:b, other] for a, b in zip(starts, stops, strict=True)] or [ends[:0, other]])
        ids = self.version.vectors("texts" if own == 0 else "images").item_ids(wanted).tolist()
        lengths = np.cumsum(stops - starts)
        return [ids[end - length : end] for end, length in zip(lengths, stops - starts, strict=True)]

    @cached_property
    def _by_text(self) -> NDArray[np.int64]:
        return self.ends[np.argsort(self.ends[:, 1], kind="stable")]


def read_pairs(version: IndexVersion, chosen: dict[Collection, NDArray[np.int64]]) -> Pairs:
    """Return the pairs of a version whose image and text are both among the chosen row ids, which ascend."""
    none = np.zeros(0, dtype=np.int64)
    images, texts = chosen.get("images", none), chosen.get("texts", none)
    ends = np.zeros((0, 2), dtype=np.int64)
    if len(images) and len(texts):
        table = version.catalog.table("pairs")
        ends = np.stack([table.column(name).to_numpy() for name in ("image_row", "text_row")], axis=1)
        ends = ends[_among(ends[:, 0], images) & _among(ends[:, 1], texts)]
        ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
    return Pairs(version=version, ends=ends, images=images, texts=texts)


def _among(rows: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    place = np.minimum(np.searchsorted(chosen, rows), len(chosen) - 1)
    return np.asarray(chosen[place] == rows)
