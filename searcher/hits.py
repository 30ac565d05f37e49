"""What a search brings back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from storage.spec import Collection

from .points import Choice
from .query import Query

# Kept out of `Hit.metadata`, since they have fields of their own.
OWN_COLUMNS = ("row_id", "item_id", "uri", "caption")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One item that was found.

    Attributes:
        rank: 1 for the best.
        item_id: The user's own key of the item.
        score: Exact cosine of query and item, in [-1, 1].
        uri: Where the item came from, relative to the corpus when below it.
        caption: The text of a text item; of an image its first caption; None without one.
        metadata: Every further column of the catalog.
    """

    rank: int
    item_id: str
    score: float
    uri: str | None = None
    caption: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return one flat JSON object; a metadata column named like a field of ours is called `metadata.NAME`."""
        flat: dict[str, Any] = {
            "rank": self.rank,
            "item_id": self.item_id,
            "score": self.score,
            "uri": self.uri,
            "caption": self.caption,
        }
        for name, value in self.metadata.items():
            flat[f"metadata.{name}" if name in flat else name] = plain(value)
        return flat


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits(Sequence[Hit]):
    """The hits of one query, best first; equal scores in the order of the index.

    Attributes:
        query: What was asked.
        collection: The half of the index that was searched.
        row_ids: (n,) int64, positions in the index; n is smaller than k where fewer items pass.
        scores: (n,) float32, exact cosines.
        choice: How the search was carried out.
        where: The filter, or None.
    """

    query: Query
    collection: Collection
    row_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    choice: Choice
    where: str | None
    hits: tuple[Hit, ...] = field(repr=False)

    @property
    def item_ids(self) -> NDArray[np.object_]:
        """The users' keys of the items, (n,) str objects."""
        ids = np.empty(len(self.hits), dtype=object)
        ids[:] = [hit.item_id for hit in self.hits]
        return ids

    @property
    def ann(self) -> dict[str, Any]:
        """How the search was carried out: kind, exact, nprobe, oversample, ann_recall as measured at k, and why."""
        return self.choice.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return `{"query", "hits", "ann"}` made of JSON's own types, and `where` where there was one."""
        asked = {} if self.where is None else {"where": self.where}
        return {"query": self.query.label, **asked, "hits": [hit.to_json() for hit in self.hits], "ann": self.ann}

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]


def plain(value: Any) -> Any:
    """Return a value of a catalog in JSON's own types: times and UUIDs as text, NaN and infinity as null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(part) for part in value]
    return str(value)
