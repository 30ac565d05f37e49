"""What the page shows: cards of items, in sections, and what was searched with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from storage.schema import Collection

from ...hits import Hit, Hits, about, plain, shown_score
from ..snapshot import DULL_COLUMNS, HIDDEN_COLUMNS, Snapshot
from .page_query import PageQuery

# A banner or a tower may not take a row for itself; inside its frame it keeps its shape.
_NARROWEST, _WIDEST = 0.5, 2.6
_UNKNOWN_RATIO = 4 / 3
_EXAMPLE = 40
_LAST = frozenset({"row_id", "sha256", "file_bytes", "mtime_ns"})


@dataclass(frozen=True, kw_only=True)
class Card:
    """One item as the page shows it."""

    key: str
    item_id: str
    caption: str | None
    alt: str
    link: str
    thumbnail: str
    width: int | None
    height: int | None
    ratio: float
    score: str = ""
    rank: int = 0
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and cards of one collection."""

    title: str
    collection: Collection
    cards: Sequence[Card]
    about: str = ""
    more: str = ""
    filtered: bool = False
    min_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was searched with, where it is more than words: an item or an image."""

    title: str
    card: Card | None = None
    image: str = ""
    captions: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class View:
    """All that the page shows for one address.

    Attributes:
        linked: Whether another site asked for it, so that nothing is searched before somebody says so.
        up: From the address to the page's own; empty where they are one.
    """

    sections: Sequence[Section] = ()
    subject: Subject | None = None
    said: str = ""
    seconds: float = 0.0
    linked: bool = False
    up: str = ""


def hit_section(snapshot: Snapshot, hits: Hits, title: str, more: str, query: PageQuery) -> Section:
    """Return a section of search results."""
    cards = [_hit_card(snapshot, hits.collection, hit, query) for hit in hits]
    return Section(
        title=title,
        collection=hits.collection,
        cards=cards,
        about=about(hits).partition(", ")[2],  # the page has said how many
        more=more,
        filtered=bool(hits.where),
        min_score=hits.min_score,
    )


def sample_section(snapshot: Snapshot, count: int) -> Section:
    """Return a section of items from all over the index, for a start."""
    collection = snapshot.collections[0]
    total = snapshot.count(collection)
    shown = min(count, total)
    rows = [position * total // shown for position in range(shown)]
    entries = snapshot.entries(collection, rows)
    snapshot.remember(collection, [entry["item_id"] for entry in entries], rows)
    cards = [entry_card(snapshot, collection, entry) for entry in entries]
    return Section(title="From this index", collection=collection, cards=cards)


def entry_card(snapshot: Snapshot, collection: Collection, entry: Mapping[str, Any], size: str = "small") -> Card:
    """Return the card of a catalog entry."""
    hidden = {*HIDDEN_COLUMNS, *DULL_COLUMNS, "rank", "score"}
    facts = [(name, str(plain(value))) for name, value in entry.items() if name not in hidden and value is not None]
    width, height = entry.get("width"), entry.get("height")
    item_id, caption = entry["item_id"], entry["caption"]
    shown = {"id": item_id, "v": snapshot.number} | ({} if size == "small" else {"size": size})
    return Card(
        key=f"{collection[0]}{entry['row_id']}",
        item_id=item_id,
        caption=caption,
        alt=caption or item_id,
        link=PageQuery(item=item_id, of=collection).link(),
        thumbnail=f"thumbnails?{urlencode(shown, errors='replace')}",
        width=width if width and height else None,
        height=height if width and height else None,
        ratio=_ratio(width, height),
        facts=facts,
    )


def columns_of(snapshot: Snapshot, collection: Collection) -> list[tuple[str, str, str]]:
    """Return name, type and an example of each column that a filter may use."""
    first = snapshot.first(collection)
    # What people filter by comes first.
    ordered = sorted(snapshot.columns(collection), key=lambda column: column[0] in _LAST)
    return [(name, kind.lower(), _example(first[name])) for name, kind in ordered]


def _hit_card(snapshot: Snapshot, collection: Collection, hit: Hit, query: PageQuery) -> Card:
    entry = {"row_id": f"-{hit.rank}", "item_id": hit.item_id, "caption": hit.caption, **hit.metadata}
    card = entry_card(snapshot, collection, entry)
    link = PageQuery(item=hit.item_id, of=collection, options=query.options).link(k=None)
    return Card(**{**vars(card), "link": link, "rank": hit.rank, "score": shown_score(hit.score)})


def _ratio(width: Any, height: Any) -> float:
    if not width or not height:
        return _UNKNOWN_RATIO
    return round(min(max(float(width / height), _NARROWEST), _WIDEST), 3)


def _example(value: Any) -> str:
    text = "" if value is None else str(plain(value))
    return text if len(text) <= _EXAMPLE else text[: _EXAMPLE - 3] + "..."
