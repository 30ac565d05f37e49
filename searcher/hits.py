"""What a search brings back."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from storage.catalog import ITEM_COLUMNS
from storage.schema import Collection

from .operating_points import Choice
from .request import QueryPart

# Kept out of `Hit.metadata`, since they have fields of their own.
OWN_COLUMNS = tuple(ITEM_COLUMNS)


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
        query: What was searched with.
        collection: The half of the index that was searched.
        row_ids: (n,) int64, positions in the index; n is smaller than k where fewer items pass.
        scores: (n,) float32, exact cosines.
        choice: How the search was carried out.
        where: The filter, or None.
    """

    query: QueryPart
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
        filtered = {} if self.where is None else {"where": self.where}
        return {"query": self.query.label, **filtered, "hits": [hit.to_json() for hit in self.hits], "ann": self.ann}

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]


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


_LABEL_WIDTH = 200
_CAPTION_WIDTH = 72


def clean(text: str) -> str:
    """Return text on one line without control characters."""
    return "".join(sign for sign in " ".join(text.split()) if unicodedata.category(sign)[0] != "C")


def shown_score(score: float) -> str:
    """Return a cosine as people read it, e.g. `0.312`."""
    return f"{score:.3f}"


def about(hits: Hits) -> str:
    """Return one line: how many hits, of what, found how."""
    count = f"{len(hits)} {hits.collection if len(hits) != 1 else hits.collection[:-1]}"
    filtered = f", where {clean(hits.where)}" if hits.where else ""
    choice = hits.choice
    if choice.exact:
        return f"{count}{filtered}, exact"
    recall = "" if choice.ann_recall is None else f", ann_recall@{choice.k} {choice.ann_recall:.3f}"
    return f"{count}{filtered}, {choice.kind} nprobe {choice.nprobe} oversample {choice.oversample}{recall}"


def table(results: Sequence[Hits]) -> str:
    """Return the hits of one or more queries as aligned lines, a heading before each query's."""
    return "\n\n".join(_section(hits) for hits in results)


def _section(hits: Hits) -> str:
    heading = f"{cut(hits.query.label, _LABEL_WIDTH)}  ({about(hits)})"
    rows = [("rank", "score", "item_id", "caption")]
    rows += [(str(hit.rank), shown_score(hit.score), clean(hit.item_id), _words(hit)) for hit in hits]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:>{wide[0]}}  {row[1]:>{wide[1]}}  {row[2]:<{wide[2]}}  {row[3]}".rstrip() for row in rows]
    return "\n".join([heading, *(lines if len(hits) else ["nothing passes"])])


def _words(hit: Hit) -> str:
    location = hit.uri if hit.uri != hit.item_id else None
    return cut(hit.caption or location or "", _CAPTION_WIDTH)


def cut(text: str, width: int) -> str:
    """Return text on one line of at most `width` characters."""
    line = clean(text)
    return line if len(line) <= width else line[: width - 3] + "..."
