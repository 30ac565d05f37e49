"""Hits in the order of a column: the best ones, found as ever, in the order of their dates, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from storage.schema import Collection

from .errors import ParameterError, SearchError
from .hits import Hit, Hits


def sorted_by(sort: str) -> tuple[str, bool]:
    """Return the column that `taken_at` or `-taken_at` names, and whether its largest values come first."""
    return sort.removeprefix("-"), sort.startswith("-")


def check_sort(sort: str | None, columns: Sequence[str], into: Collection) -> str | None:
    """Return the column to sort by as the catalog spells it; None where there is none to sort by.

    Raises:
        SearchError: There is no such column.
    """
    if sort is None:
        return None
    wanted = sorted_by(sort)[0].casefold()
    found = next((name for name in columns if name.casefold() == wanted), None)
    if found is None:
        raise SearchError(f"sort names no column {sort[:80]!r}; {into} have {', '.join(columns)}")
    return found


def in_order(hits: Hits, sort: str | None) -> Hits:
    """Return hits in the order of a column of theirs, those without a value last; equal ones stay as they are.

    Raises:
        ParameterError: Its values have no order, as those of a struct.
    """
    if sort is None:
        return hits
    column, descending = sorted_by(sort)
    values = [_value(hit, column.casefold()) for hit in hits]
    known = [at for at, value in enumerate(values) if value is not None]
    try:
        known.sort(key=lambda at: values[at], reverse=descending)
    except TypeError as error:
        raise ParameterError(f"sort={sort!r} is a column whose values have no order; name another") from error
    order = [*known, *(at for at, value in enumerate(values) if value is None)]
    return replace(
        hits, row_ids=hits.row_ids[order], scores=hits.scores[order], sort=sort, hits=tuple(hits[at] for at in order)
    )


def _value(hit: Hit, wanted: str) -> Any:
    entry = {"item_id": hit.item_id, "uri": hit.uri, "caption": hit.caption, **hit.metadata}
    return next((value for name, value in entry.items() if name.casefold() == wanted), None)
