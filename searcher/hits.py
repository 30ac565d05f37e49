"""What a search brings back: hits, and the same as tables for Arrow, pandas, polars, notebooks and terminals."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from encoders.formats.films import file_behind
from storage.schema import ITEM_COLUMNS, Collection

from .errors import SearchError
from .operating_points import Choice
from .originals import open_original, resolve_uri
from .query import QueryPart
from .request import SearchRequest

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from PIL import Image

    from .pages import Page

# Fields of a hit that not every answer has: no column is taken for one of them.
_SOMETIMES = frozenset({"probability", "words_score", "copies", "explanation"})
# Kept out of `Hit.metadata`, since they have fields of their own.
OWN_COLUMNS = tuple(ITEM_COLUMNS)
_IN_NOTEBOOK = 24
_CARD_PIXELS = 180


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an image was found: of its captions the one nearest to the query.

    Attributes:
        item_id: Of the caption, among the texts.
        caption: Its words.
        score: Exact cosine of query and caption.
    """

    item_id: str
    caption: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One item that was found.

    Attributes:
        rank: 1 for the best.
        item_id: The user's own key of the item.
        score: Exact cosine of query and item, in [-1, 1]; not a number where words were looked up alone.
        probability: How likely it is that the item fits the query; None where the index has no calibration for it.
        uri: Where the item came from, relative to the corpus when below it.
        caption: The text of a text item; of an image its first caption; None without one.
        metadata: Every further column of the catalog.
        collection: The half of the index that it is in.
        root: The folder that `uri` is relative to; None where that is not known.
        words_score: BM25 of the words that were looked up, 0 for none of them; None where none were.
        explanation: The nearest of an image's captions; None where none was asked for, or it has no captions.
        copies: Ids of the items that it stands for, of those that the search ranked, where copies were collapsed.
        rerank_score: What a function of the caller's own gave it; None without one.
    """

    rank: int
    item_id: str
    score: float
    probability: float | None = None
    uri: str | None = None
    caption: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    collection: Collection = "images"
    root: Path | None = field(default=None, repr=False)
    words_score: float | None = None
    explanation: Explanation | None = None
    copies: tuple[str, ...] = ()
    rerank_score: float | None = None

    @property
    def path(self) -> Path | None:
        """The image file, of a frame its film, looked for now; None for a text and without one, e.g. in a tar shard."""
        path = resolve_uri(self.uri, self.root) if self.collection == "images" and self.root is not None else None
        file = None if path is None else file_behind(path)
        return file if file is not None and file.is_file() else None

    def open(self) -> Image.Image:
        """Return the image itself, upright and in RGB, read from its file or tar shard.

        Raises:
            SearchError: The hit is a text, or the image is not there any more.
        """
        if self.collection != "images":
            raise SearchError(f"the hit {self.item_id[:200]!r} is a text and no image; its words are in `caption`")
        return open_original(self.uri, self.root)

    def to_json(self) -> dict[str, Any]:
        """Return one flat JSON object: `rank`, `item_id`, `score`, `probability`, `uri`, `path`, `caption`, metadata.

        A metadata column named like one of these is called `metadata.NAME`. `probability` is left out where it is not
        known, `path` for a text and where the folder of the corpus is not known; `words_score`, `copies` and
        `explanation` are there where they were asked for.
        """
        return {name: plain(value) for name, value in self._fields().items()}

    def _fields(self) -> dict[str, Any]:
        flat: dict[str, Any] = {"rank": self.rank, "item_id": self.item_id, "score": self.score}
        flat |= {} if self.probability is None else {"probability": self.probability}
        flat |= {} if self.words_score is None else {"words_score": self.words_score}
        flat |= {} if self.rerank_score is None else {"rerank_score": self.rerank_score}
        flat |= {"copies": self.copies} if self.copies else {}
        flat["uri"] = self.uri
        if self.collection == "images" and self.root is not None:
            flat["path"] = None if (path := self.path) is None else str(path)
        flat["caption"] = self.caption
        flat |= {} if self.explanation is None else {"explanation": vars(self.explanation)}
        own = flat.keys() | _SOMETIMES
        return flat | {f"metadata.{name}" if name in own else name: value for name, value in self.metadata.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits(Sequence[Hit]):
    """The hits of one query, best first unless they were sorted; equal scores in the order of the index.

    Attributes:
        query: What was searched with.
        collection: The half of the index that was searched.
        row_ids: (n,) int64, positions in the index; n is smaller than k where fewer items pass.
        scores: (n,) float32, exact cosines.
        choice: How the search was carried out.
        where: The filter, or None.
        min_score: The floor below which hits were left out, or None.
        min_probability: The floor of probability below which they were, or None.
        words: The words that were looked up, or None.
        offset: How many hits were left out before the first.
        sort: The column whose order they are in, as it was asked for, or None.
    """

    query: QueryPart
    collection: Collection
    row_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    choice: Choice
    where: str | None
    min_score: float | None = None
    min_probability: float | None = None
    offset: int = 0
    words: str | None = None
    sort: str | None = None
    hits: tuple[Hit, ...] = field(repr=False)

    @property
    def item_ids(self) -> NDArray[np.object_]:
        """The users' keys of the items, (n,) str objects."""
        ids = np.empty(len(self.hits), dtype=object)
        ids[:] = [hit.item_id for hit in self.hits]
        return ids

    @property
    def nothing_fits(self) -> bool:
        """Whether a floor was asked for, of score or probability, and no hit reaches it."""
        return not self.hits and not self.offset and (self.min_score, self.min_probability) != (None, None)

    @property
    def ann(self) -> dict[str, Any]:
        """How the search was carried out: kind, exact, nprobe, oversample, ann_recall as measured at k, and why."""
        return self.choice.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return `{"query", "hits", "ann"}` in JSON's own types, and what was asked for.

        `where`, `min_score`, `min_probability`, `words`, `sort` and `offset` are there where they were given, with a
        floor also `nothing_fits`.
        """
        filtered: dict[str, Any] = {} if self.where is None else {"where": self.where}
        filtered |= {} if self.min_score is None else {"min_score": self.min_score}
        filtered |= {} if self.min_probability is None else {"min_probability": self.min_probability}
        if filtered.keys() & {"min_score", "min_probability"}:
            filtered["nothing_fits"] = self.nothing_fits
        filtered |= {} if self.words is None else {"words": self.words}
        filtered |= {} if self.sort is None else {"sort": self.sort}
        filtered |= {"offset": self.offset} if self.offset else {}
        return {"query": self.query.label, **filtered, "hits": [hit.to_json() for hit in self.hits], "ann": self.ann}

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table, a row a hit: the fields of `Hit.to_json`, dates and numbers in types of their own."""
        import pyarrow as pa

        rows = [hit._fields() for hit in self.hits]
        names = dict.fromkeys(name for row in rows for name in row) or dict.fromkeys(("rank", "item_id", "score"))
        return pa.table({name: _array([row.get(name) for row in rows]) for name in names})

    def to_pandas(self) -> pd.DataFrame:
        """Return `to_arrow` as a pandas data frame; pandas is to be installed."""
        _check_installed("pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """Return `to_arrow` as a polars data frame; polars is to be installed."""
        _check_installed("polars")
        import polars as pl

        return pl.DataFrame(pl.from_arrow(self.to_arrow()))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a card a hit, images as thumbnails."""
        cards = "".join(map(_card, self.hits[:_IN_NOTEBOOK]))
        more = len(self.hits) - _IN_NOTEBOOK
        left = f"<p>and {more} more</p>" if more > 0 else ""
        heading = f"<b>{escape(cut(self.query.label, _LABEL_WIDTH))}</b> ({escape(about(self))})"
        flow = "display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start"
        return f'<div><p>{heading}</p><div style="{flow}">{cards or nothing(self)}</div>{left}</div>'

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


def hits_of(
    request: SearchRequest,
    query: QueryPart,
    page: Page,
    entries: Mapping[int, Mapping[str, Any]],
    into: Collection,
    choice: Choice,
    root: Path | None,
) -> Hits:
    """Return the hits of a page from its rows, their scores, and the catalog's entries of them."""
    hits = tuple(
        replace(
            _hit(rank, score, entries[row], into, root),
            words_score=word,
            probability=probability,
            copies=() if copies is None else tuple(entries[copy]["item_id"] for copy in copies.tolist()),
        )
        for rank, (row, score, word, probability, copies) in enumerate(page.lines(), start=request.offset + 1)
    )
    if query.kind == "composed" and choice.exact:
        choice = replace(choice, reason="no setting was measured for composed queries")
    return Hits(
        query=query,
        collection=into,
        row_ids=page.row_ids,
        scores=page.scores,
        choice=choice,
        where=request.where,
        min_score=request.min_score,
        min_probability=request.min_probability,
        offset=request.offset,
        words=request.words,
        hits=hits,
    )


def _hit(rank: int, score: float, entry: Mapping[str, Any], collection: Collection, root: Path | None) -> Hit:
    metadata = {name: value for name, value in entry.items() if name not in OWN_COLUMNS}
    own = {name: entry[name] for name in ("item_id", "uri", "caption")}
    return Hit(rank=rank, score=score, metadata=metadata, collection=collection, root=root, **own)


def _card(hit: Hit) -> str:
    """Return a hit as HTML, an image as a thumbnail inside it."""
    words = f"{hit.rank}. {shown_score(hit.score)} {escape(clean(hit.item_id))}<br>{escape(_words(hit))}"
    caption = f'<figcaption style="font-size:12px;overflow-wrap:anywhere">{words}</figcaption>'
    image = _thumbnail(hit) if hit.collection == "images" else ""
    return f'<figure style="margin:0;width:{_CARD_PIXELS}px">{image}{caption}</figure>'


def _thumbnail(hit: Hit) -> str:
    import base64
    import io

    try:
        image = hit.open()
    except SearchError:
        return '<div style="padding:40px 0;text-align:center;border:1px solid">the image is not there</div>'
    image.thumbnail((2 * _CARD_PIXELS, 2 * _CARD_PIXELS))  # twice, for screens with small pixels
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=82)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(hit.item_id)}" style="max-width:100%">'


def _array(values: list[Any]) -> pa.Array:
    """Return values of a catalog column as an Arrow array; what Arrow has no type for as text."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None else str(plain(value)) for value in values], pa.string())


def _check_installed(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise SearchError(f"{package} is not installed; run pip install {package}, or use to_arrow()")


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
    """Return a cosine as people read it, e.g. `0.312`; a dash where there is none."""
    return "-" if math.isnan(score) else f"{score:.3f}"


def about(hits: Hits) -> str:
    """Return one line: how many hits, of what, found how."""
    count = f"{len(hits)} {hits.collection if len(hits) != 1 else hits.collection[:-1]}"
    filtered = f", where {clean(hits.where)}" if hits.where else ""
    filtered += "" if hits.min_score is None else f", score at least {hits.min_score:g}"
    filtered += "" if hits.min_probability is None else f", probability at least {hits.min_probability:g}"
    if hits.words is not None and hits.words != hits.query.label:
        filtered += f", and by the words {cut(hits.words, 40)!r}"
    if hits.sort is not None:
        filtered += f", sorted by {clean(hits.sort.removeprefix('-'))}{', descending' if hits.sort[:1] == '-' else ''}"
    choice = hits.choice
    if choice.kind == "words":
        return f"{count}{filtered}, by words alone"
    stored = "" if choice.score_within is None else f", scores within {choice.score_within:.3f} of float16's"
    if choice.exact:
        return f"{count}{filtered}, exact{stored}"
    recall = "" if choice.ann_recall is None else f", ann_recall@{choice.k} {choice.ann_recall:.3f}"
    return f"{count}{filtered}, {choice.kind} nprobe {choice.nprobe} oversample {choice.oversample}{recall}{stored}"


def table(results: Sequence[Hits]) -> str:
    """Return the hits of one or more queries as aligned lines, a heading before each query's."""
    return "\n\n".join(_section(hits) for hits in results)


def _section(hits: Hits) -> str:
    heading = f"{cut(hits.query.label, _LABEL_WIDTH)}  ({about(hits)})"
    by = (hits.sort or "").removeprefix("-")
    rows = [("rank", "score", "probability", "item_id", by, "path", "caption")]
    floor = hits.min_probability is not None  # who asks for none has no use for the figure
    rows += [
        (
            str(hit.rank),
            shown_score(hit.score),
            _share(hit, floor),
            clean(hit.item_id),
            _sorted_by(hit, by),
            _path(hit),
            _words(hit),
        )
        for hit in hits
    ]
    # A column that says nothing of any hit is left out.
    kept = [column for column in range(7) if column not in (2, 4, 5) or any(row[column] for row in rows[1:])]
    wide = {column: max(len(row[column]) for row in rows) for column in kept}
    lines = [
        "  ".join(row[one].rjust(wide[one]) if one < 3 else row[one].ljust(wide[one]) for one in kept).rstrip()
        for row in rows
    ]
    return "\n".join([heading, *(lines if len(hits) else [nothing(hits)])])


def nothing(hits: Hits) -> str:
    """Return why there are no hits, in a few words."""
    if hits.offset:
        return f"there are no hits after the first {hits.offset:,} or fewer"
    if hits.min_probability is not None:
        return f"nothing in this index fits: no hit has a probability of {hits.min_probability:g} or more"
    return "nothing passes" if hits.min_score is None else f"nothing scores {hits.min_score:g} or more"


def _share(hit: Hit, shown: bool) -> str:
    return f"{hit.probability:.2f}" if shown and hit.probability is not None else ""


def _sorted_by(hit: Hit, column: str) -> str:
    value = next((value for name, value in hit.metadata.items() if name.casefold() == column.casefold()), None)
    return "" if value is None else cut(str(plain(value)), _CAPTION_WIDTH)


def _path(hit: Hit) -> str:
    """Return the file of an image as one may open it from here; empty where it is not there."""
    path = hit.path
    if path is None:
        return ""
    here = Path.cwd()
    return clean(str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path))


def _words(hit: Hit) -> str:
    if hit.explanation is not None:
        return f"{shown_score(hit.explanation.score)} {cut(hit.explanation.caption, _CAPTION_WIDTH)}"
    location = hit.uri if hit.uri != hit.item_id and hit.path is None else None
    return cut(hit.caption or location or "", _CAPTION_WIDTH)


def cut(text: str, width: int) -> str:
    """Return text on one line of at most `width` characters."""
    line = clean(text)
    return line if len(line) <= width else line[: width - 3] + "..."
