"""Hits in words: the line that says how a search went, and the table that a terminal shows."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from .hits import Hit, Hits

_LABEL_WIDTH = 200
_ID_WIDTH = 32
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


def table(found: Sequence[Hits]) -> str:
    """Return the hits of one or more queries as aligned lines, a heading before each query's."""
    return "\n\n".join(_section(hits) for hits in found)


def _section(hits: Hits) -> str:
    heading = f"{cut(hits.query.label, _LABEL_WIDTH)}  ({about(hits)})"
    rows = [("rank", "score", "item_id", "caption")]
    rows += [(str(hit.rank), shown_score(hit.score), cut(hit.item_id, _ID_WIDTH), _words(hit)) for hit in hits]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:>{wide[0]}}  {row[1]:>{wide[1]}}  {row[2]:<{wide[2]}}  {row[3]}".rstrip() for row in rows]
    return "\n".join([heading, *(lines if len(hits) else ["nothing passes"])])


def _words(hit: Hit) -> str:
    place = hit.uri if hit.uri != hit.item_id else None
    return cut(hit.caption or place or "", _CAPTION_WIDTH)


def cut(text: str, width: int) -> str:
    """Return text on one line of at most `width` characters."""
    line = clean(text)
    return line if len(line) <= width else line[: width - 3] + "..."
