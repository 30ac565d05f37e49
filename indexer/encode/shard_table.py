"""The rows of one shard: everything an item needs to become a row of an index, or a rejection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from storage.catalog_writer import IMAGE_COLUMNS
from storage.schema import ImageInfo

from ..corpus.item import Item, Rejection
from ..errors import BuildError
from .reuse import text_sha256

DIGEST_KEY = b"twinlens.shard.digest"

ITEM_FIELDS = (
    pa.field("collection", pa.string()),
    *(pa.field(name, kind) for name, kind in IMAGE_COLUMNS.items() if name != "row_id"),
    pa.field("image_ids", pa.list_(pa.string())),
    pa.field("stage", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)
ITEM_NAMES = tuple(field.name for field in ITEM_FIELDS)


class ShardTable:
    """Collects the rows of one shard in source order; vectors may come later and in any order."""

    def __init__(self, dim: int, metadata: pa.Schema, digest: str) -> None:
        self._schema = pa.schema([*ITEM_FIELDS, *metadata], {DIGEST_KEY: digest.encode()})
        self._metadata, self._dim = metadata, dim
        self._rows: list[dict[str, Any]] = []
        self._vectors: dict[int, np.ndarray] = {}

    def add_image(self, item: Item, info: ImageInfo) -> int:
        """Append an image and return its position in the shard."""
        return self._append(item, **{name: getattr(info, name) for name in ImageInfo.columns()})

    def add_text(self, item: Item) -> int:
        """Append a text and return its position in the shard."""
        text = str(item.content)
        return self._append(item, caption=text, sha256=text_sha256(text), image_ids=list(item.image_ids))

    def reject(self, rejection: Rejection) -> None:
        """Append an item that cannot be indexed."""
        self._rows.append(_rejected_row(rejection))

    def set_vectors(self, places: Sequence[int], vectors: np.ndarray) -> None:
        """Give vectors, (n, dim), to the rows at `places`; a row with a vector that is not finite is rejected."""
        finite = np.isfinite(vectors).all(axis=1)
        for place, vector, good in zip(places, vectors, finite, strict=True):
            if good:
                self._vectors[place] = vector.astype(np.float16)
            else:
                row = self._rows[place]
                row.update(stage="encode", reason="not_finite", detail="the encoder gave NaN or infinity")

    def finish(self) -> pa.Table:
        """Return the shard as a table; raises `BuildError` where metadata does not fit its declared type."""
        columns = [self._column(field) for field in self._schema]
        flat = np.zeros((len(self._rows), self._dim), dtype=np.float16)
        for place, vector in self._vectors.items():
            flat[place] = vector
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), self._dim)
        schema = self._schema.append(pa.field("vector", vectors.type))
        return pa.Table.from_arrays([*columns, vectors], schema=schema)

    def _append(self, item: Item, **facts: Any) -> int:
        self._rows.append(
            {
                "collection": item.collection,
                "item_id": item.item_id,
                "uri": item.uri,
                "split": item.split,
                **facts,
                "metadata": item.metadata,
            }
        )
        return len(self._rows) - 1

    def _column(self, field: pa.Field) -> pa.Array:
        if field.name in ITEM_NAMES:
            return pa.array([row.get(field.name) for row in self._rows], field.type)
        try:
            return pa.array([row["metadata"].get(field.name) for row in self._rows], field.type)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise BuildError(
                f"metadata column {field.name!r} holds a value that is not {field.type}: {error}; "
                "mend the value or leave the column out"
            ) from error


def _rejected_row(rejection: Rejection) -> dict[str, Any]:
    return {
        "collection": rejection.collection,
        "item_id": rejection.item_id,
        "uri": rejection.uri,
        "stage": rejection.stage,
        "reason": rejection.reason,
        "detail": rejection.detail,
        "metadata": {},
    }
