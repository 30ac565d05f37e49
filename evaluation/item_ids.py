"""Item ids of any hashable kind as row numbers, which metrics are computed with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ranks import Relevant

_FORMS = "give whole numbers, texts or tuples, the same in ranked_ids and in relevant"


def as_rows(ranked_ids: Any, relevant: Relevant) -> tuple[NDArray[np.int64], Relevant]:
    """Return rankings as (nq, m) whole numbers padded with -1, and the relevant items by the same numbers.

    Whole numbers in an array stay what they are.

    Args:
        ranked_ids: As `evaluate_ranking` takes it.
        relevant: Likewise.

    Raises:
        ValueError: They are no lists of ids, an id cannot be compared, or the two have no type of id in common.
    """
    if isinstance(ranked_ids, np.ndarray) and ranked_ids.dtype.kind in "iu":
        first = next((item for items in relevant for item in list(items)[:1]), 0)
        _check_types({type(_plain(first))}, {int})
        return ranked_ids.astype(np.int64, copy=False), relevant
    rows = [[_plain(item) for item in row] for row in _rows_of(ranked_ids)]
    truth = [{_plain(item): gain for item, gain in _gains(items)} for items in relevant]
    for what, lists in (("ranked id", rows), ("relevant item", truth)):
        _check_ids(what, lists)
    kept = [[item for item in row if not _is_padding(item)] for row in rows]
    _check_types({type(item) for items in truth for item in items}, {type(item) for row in kept for item in row})
    numbers: dict[Hashable, int] = {}
    ranked = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for line, row in zip(ranked, rows, strict=True):
        line[: len(row)] = [-1 if _is_padding(item) else numbers.setdefault(item, len(numbers)) for item in row]
    numbered = [{numbers.setdefault(item, len(numbers)): gain for item, gain in items.items()} for items in truth]
    graded = any(isinstance(items, Mapping) for items in relevant)
    return ranked, numbered if graded else [list(items) for items in numbered]


def _rows_of(ranked_ids: Any) -> list[Sequence[Any]]:
    if isinstance(ranked_ids, np.ndarray):
        if ranked_ids.ndim != 2 or ranked_ids.dtype.kind not in "OUS":
            shown = f"dtype {ranked_ids.dtype} and shape {ranked_ids.shape}"
            raise ValueError(f"ranked_ids has {shown}, and is no (nq, m) array of ids; {_FORMS}")
        return list(ranked_ids.tolist())
    if isinstance(ranked_ids, str | bytes) or not isinstance(ranked_ids, Sequence):
        raise ValueError(f"ranked_ids is of type {type(ranked_ids).__name__}; give a list of ids for each query")
    wrong = next((row for row in ranked_ids if isinstance(row, str) or not hasattr(row, "__len__")), None)
    if wrong is not None:
        raise ValueError(f"ranked_ids holds {wrong!r:.60}, which is no list; give a list of ids for each query")
    return list(ranked_ids)


def _gains(items: Any) -> list[tuple[Any, float]]:
    return list(items.items()) if isinstance(items, Mapping) else [(item, 1.0) for item in items]


def _plain(item: Any) -> Any:
    return item.item() if isinstance(item, np.generic) else item


def _is_padding(item: Any) -> bool:
    return item is None or (type(item) is int and item == -1)


def _check_ids(what: str, lists: Sequence[Any]) -> None:
    for query, ids in enumerate(lists):
        for item in ids:
            if isinstance(item, float) or not isinstance(item, Hashable):
                raise ValueError(f"{what} {item!r:.60} of query {query} is of type {type(item).__name__}; {_FORMS}")
            if what == "relevant item" and _is_padding(item):
                raise ValueError(f"{what} {item!r} of query {query} stands for no item; leave it out")


def _check_types(relevant: set[type], ranked: set[type]) -> None:
    if relevant and ranked and not relevant & ranked:
        one, other = ("/".join(sorted(kind.__name__ for kind in kinds)) for kinds in (relevant, ranked))
        raise ValueError(f"relevant holds ids of type {one} and ranked_ids of type {other}, so none is found; {_FORMS}")
