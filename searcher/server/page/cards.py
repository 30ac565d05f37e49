"""What the page shows: cards of items, in sections, and what was searched with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from encoders.formats.films import film_of
from storage.schema import Collection

from ...errors import ItemNotFoundError
from ...hits import Hit, Hits, about, plain, shown_score
from ...render.photo_facts import Fact, photo_facts
from ..browse import Cluster, Facet
from ..snapshot import DULL_COLUMNS, HIDDEN_COLUMNS, Snapshot
from .page_query import PagePart, PageQuery

# A banner or a tower may not take a row for itself; inside its frame it keeps its shape.
_NARROWEST, _WIDEST = 0.5, 2.6
_UNKNOWN_RATIO = 4 / 3
_EXAMPLE = 40
_LABEL = 60
# Where a page begins to grey. Of phrases of one to three words for what is there 92 % have a hit of this probability
# among the first ten, and 78 % one of a half; for what is not there 53 % and 21 % (`lite`, 800 train photographs).
# Greying what fits is worse than showing what does not.
_UNLIKELY = 0.2
_LAST = frozenset({"row_id", "sha256", "file_bytes", "mtime_ns", "perceptual_hash"})


@dataclass(frozen=True, kw_only=True)
class Card:
    """One item as the page shows it; of a frame `film` is where its film is, and `second` when it is shown there."""

    key: str
    item_id: str
    caption: str | None
    alt: str
    link: str
    thumbnail: str
    width: int | None
    height: int | None
    ratio: float
    mark: str
    score: str = ""
    rank: int = 0
    fit: str = ""
    weak: bool = False
    copies: Sequence[str] = ()
    why: str = ""
    map: str = ""
    facts: Sequence[Fact] = ()
    film: str = ""
    second: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and cards of one collection.

    Attributes:
        title: Over the cards.
        collection: What they are of.
        cards: The items.
        about: How they were found.
        before: Where the page before this one is; empty on the first.
        more: Where the next page is; empty where there is none.
        longer: Where this page and the next are one; empty where that would be too long.
        filtered: Whether a filter left items out.
        nothing_fits: Whether a floor was asked for that no hit reaches.
        line: How many cards come before those that are unlikely to fit; None where none are, or it is not known.
    """

    title: str
    collection: Collection
    cards: Sequence[Card]
    about: str = ""
    before: str = ""
    more: str = ""
    longer: str = ""
    filtered: bool = False
    nothing_fits: bool = False
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One part of what is searched with beside the words, and the addresses without it and with it changed."""

    label: str
    image: str
    wanted: bool
    weight: str
    flip: str
    weigh: str
    remove: str


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Images that are alike: what they are about, where a text says, how many about, and a few of them."""

    name: str
    count: int
    link: str
    cards: Sequence[Card]


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
        chips: What is searched with beside the words.
        linked: Whether another site asked for it, so that nothing is searched before somebody says so.
        up: From the address to the page's own; empty where they are one.
    """

    sections: Sequence[Section] = ()
    subject: Subject | None = None
    said: str = ""
    seconds: float = 0.0
    chips: Sequence[Chip] = ()
    linked: bool = False
    up: str = ""
    topics: Sequence[Topic] = ()
    facets: Sequence[Facet] = ()


def hit_section(snapshot: Snapshot, hits: Hits, title: str, query: PageQuery, **links: str) -> Section:
    """Return a section of search results; `links` are those of `Section`."""
    line = None if hits.sort else _line(hits)  # sorted hits are greyed one by one
    weak = [_is_unlikely(hit) if hits.sort else line is not None and at >= line for at, hit in enumerate(hits)]
    cards = [
        replace(_hit_card(snapshot, hits.collection, hit, query), weak=is_weak)
        for hit, is_weak in zip(hits, weak, strict=True)
    ]
    return Section(
        title=title,
        collection=hits.collection,
        cards=cards,
        about=about(hits).partition(", ")[2],  # the page has said how many
        filtered=bool(hits.where),
        nothing_fits=hits.nothing_fits,
        line=line,
        **links,
    )


def chips(snapshot: Snapshot, query: PageQuery) -> list[Chip]:
    """Return what is searched with beside the words, as the page shows it."""
    return [_chip(snapshot, query, position) for position in range(len(query.beside))]


def _chip(snapshot: Snapshot, query: PageQuery, position: int) -> Chip:
    part = query.beside[position]
    label, image = part.value, ""
    if part.kind == "image":
        label, image = "your image", f"images/{quote(part.value, safe='')}"
    elif part.kind != "text":
        with suppress(ItemNotFoundError):
            collection, row = snapshot.find(part.value, None if part.kind == "item" else part.kind)
            card = entry_card(snapshot, collection, snapshot.entries(collection, [row])[0])
            label, image = card.caption or card.item_id, card.thumbnail if collection == "images" else ""
    return Chip(
        label=label if len(label) <= _LABEL else label[: _LABEL - 3] + "...",
        image=image,
        wanted=part.weight > 0,
        weight=f"{abs(part.weight):g}",
        flip=query.changed(position, part.flipped).link(),
        weigh=query.changed(position, part.weighed).link(),
        remove=query.changed(position, None).link(),
    )


def sample_section(snapshot: Snapshot, query: PageQuery, count: int) -> Section:
    """Return a section of items from all over the index, or of those that pass the filter of a view, for a start."""
    collection = query.into or snapshot.collections[0]
    total, title = snapshot.count(collection), "From this index"
    allowed = None
    if query.where:
        allowed = snapshot.rows_where(collection, query.where)
        total = len(allowed)
        some = f"{count} of " if total > count else ""
        title = f"{some}{total:,} {collection if total != 1 else collection[:-1]}"
    shown = min(count, total)
    rows = [position * total // shown for position in range(shown)]
    rows = rows if allowed is None else allowed[rows].tolist()
    entries = snapshot.entries(collection, rows)
    snapshot.remember(collection, [entry["item_id"] for entry in entries], rows)
    cards = [entry_card(snapshot, collection, entry) for entry in entries]
    about = f"where {query.where}" if query.where else ""
    return Section(title=title, collection=collection, cards=cards, about=about, filtered=bool(query.where))


def topics(snapshot: Snapshot) -> list[Topic]:
    """Return what the images of an index are about, the largest part first."""
    return [_topic(snapshot, cluster) for cluster in snapshot.overview.clusters]


def _topic(snapshot: Snapshot, cluster: Cluster) -> Topic:
    cards = [entry_card(snapshot, "images", entry) for entry in snapshot.entries("images", cluster.rows)]
    snapshot.remember("images", [card.item_id for card in cards], cluster.rows)
    name = cluster.name if len(cluster.name) <= _LABEL else cluster.name[: _LABEL - 3] + "..."
    return Topic(name=name, count=cluster.count, link=cards[0].link, cards=cards)


def entry_card(snapshot: Snapshot, collection: Collection, entry: Mapping[str, Any], size: str = "small") -> Card:
    """Return the card of a catalog entry."""
    facts, said = photo_facts(entry)
    hidden = {*HIDDEN_COLUMNS, *DULL_COLUMNS, *said, "rank", "score"}
    rest = ((name, value) for name, value in entry.items() if name not in hidden and value is not None)
    facts += [Fact(name, str(plain(value))) for name, value in rest]
    width, height = entry.get("width"), entry.get("height")
    item_id, caption = entry["item_id"], entry["caption"]
    film = film_of(entry.get("uri") or "")
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
        mark=str(PagePart(kind=collection, value=item_id)),
        facts=facts,
        film=f"films?{urlencode({'id': item_id}, errors='replace')}#t={film[1]:g}" if film else "",
        second=_clock(film[1]) if film else "",
    )


def _clock(seconds: float) -> str:
    """Return a time in a film as players show it, `1:02:03` or `0:12.5`."""
    whole, rest = int(seconds), f"{seconds % 1:.3f}".strip("0").rstrip(".")
    hours = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else str(whole // 60)
    return f"{hours}:{whole % 60:02}{rest}"


def columns_of(snapshot: Snapshot, collection: Collection) -> list[tuple[str, str, str]]:
    """Return name, type and an example of each column that a filter may use."""
    first = snapshot.first(collection)
    # What people filter by comes first.
    ordered = sorted(snapshot.columns(collection), key=lambda column: column[0] in _LAST)
    return [(name, kind.lower(), _example(first[name])) for name, kind in ordered]


def _hit_card(snapshot: Snapshot, collection: Collection, hit: Hit, query: PageQuery) -> Card:
    entry = {"row_id": f"-{hit.rank}", "item_id": hit.item_id, "caption": hit.caption, "uri": hit.uri}
    entry |= hit.metadata
    card = entry_card(snapshot, collection, entry)
    link = PageQuery(item=hit.item_id, of=collection, options=query.options).link(k=None, offset=None)
    fit = "" if hit.probability is None else f"{hit.probability:.0%}"
    why = "" if hit.explanation is None else f"{hit.explanation.caption} ({shown_score(hit.explanation.score)})"
    if collection == "images" and query.options.get("explain") and snapshot.encoding.key:
        asked = query.link(k=None, offset=None, explain=None).removeprefix("./").removeprefix("?")
        card = replace(card, map=f"maps?{asked}&{urlencode({'show': hit.item_id, 'v': snapshot.number})}")
    return replace(card, why=why, link=link, rank=hit.rank, score=shown_score(hit.score), fit=fit, copies=hit.copies)


def _line(hits: Hits) -> int | None:
    """Return the position after the last hit that may fit; None where that is the end."""
    last = max((position for position, hit in enumerate(hits, start=1) if not _is_unlikely(hit)), default=0)
    return last if last < len(hits) else None


def _is_unlikely(hit: Hit) -> bool:
    return hit.probability is not None and hit.probability < _UNLIKELY


def _ratio(width: Any, height: Any) -> float:
    if not width or not height:
        return _UNKNOWN_RATIO
    return round(min(max(float(width / height), _NARROWEST), _WIDEST), 3)


def _example(value: Any) -> str:
    text = "" if value is None else str(plain(value))
    return text if len(text) <= _EXAMPLE else text[: _EXAMPLE - 3] + "..."
