"""What the page shows: sections of cards, made of hits or of catalog entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from searcher.hits import Hit, Hits, plain
from searcher.summary import about, shown_score
from storage.spec import Collection

from .generation import DULL_COLUMNS, HIDDEN_COLUMNS, Generation
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


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was searched with, where it is more than words: an item or a picture."""

    title: str
    card: Card | None = None
    picture: str = ""
    captions: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class View:
    """All that the page shows for one address."""

    sections: Sequence[Section] = ()
    subject: Subject | None = None
    said: str = ""
    seconds: float = 0.0
    columns: Mapping[str, Any] = field(default_factory=dict)


def hit_section(generation: Generation, hits: Hits, title: str, more: str, query: PageQuery) -> Section:
    """Return a section of search results."""
    cards = [_hit_card(generation, hits.collection, hit, query) for hit in hits]
    return Section(
        title=title,
        collection=hits.collection,
        cards=cards,
        about=about(hits).partition(", ")[2],  # the page has said how many
        more=more,
        filtered=bool(hits.where),
    )


def sample_section(generation: Generation, count: int) -> Section:
    """Return a section of items from all over the index, for a start."""
    collection = generation.collections[0]
    total = generation.count(collection)
    rows = sorted({place * total // count for place in range(min(count, total))})
    entries = generation.entries(collection, rows)
    generation.remember(collection, [entry["item_id"] for entry in entries], rows)
    cards = [entry_card(generation, collection, entry) for entry in entries]
    return Section(title="From this index", collection=collection, cards=cards)


def entry_card(generation: Generation, collection: Collection, entry: Mapping[str, Any], size: str = "small") -> Card:
    """Return the card of a catalog entry."""
    hidden = {*HIDDEN_COLUMNS, *DULL_COLUMNS, "rank", "score"}
    facts = [(name, str(plain(value))) for name, value in entry.items() if name not in hidden and value is not None]
    width, height = entry.get("width"), entry.get("height")
    item_id, caption = entry["item_id"], entry["caption"]
    shown = {"id": item_id, "v": generation.number} | ({} if size == "small" else {"size": size})
    return Card(
        key=f"{collection[0]}{entry['row_id']}", item_id=item_id, caption=caption, alt=caption or item_id,
        link=PageQuery(item=item_id, of=collection).link(),
        thumbnail=f"thumbnails?{urlencode(shown, errors='replace')}",
        width=width if width and height else None, height=height if width and height else None,
        ratio=_ratio(width, height), facts=facts,
    )  # fmt: skip


def columns_of(generation: Generation, collection: Collection) -> list[tuple[str, str, str]]:
    """Return name, type and an example of each column that a filter may use."""
    first = generation.first(collection)
    # What people filter by comes first.
    ordered = sorted(generation.columns(collection), key=lambda column: column[0] in _LAST)
    return [(name, kind.lower(), _example(first[name])) for name, kind in ordered]


def _hit_card(generation: Generation, collection: Collection, hit: Hit, query: PageQuery) -> Card:
    entry = {"row_id": f"-{hit.rank}", "item_id": hit.item_id, "caption": hit.caption, **hit.metadata}
    card = entry_card(generation, collection, entry)
    link = PageQuery(item=hit.item_id, of=collection, where=query.where, into=query.into).link()
    return Card(**{**vars(card), "link": link, "rank": hit.rank, "score": shown_score(hit.score)})


def _ratio(width: Any, height: Any) -> float:
    if not width or not height:
        return _UNKNOWN_RATIO
    return round(min(max(float(width / height), _NARROWEST), _WIDEST), 3)


def _example(value: Any) -> str:
    text = "" if value is None else str(plain(value))
    return text if len(text) <= _EXAMPLE else text[: _EXAMPLE - 3] + "..."
