"""Queries that one of several indexes alone answers, with what the others gave instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import exact_top_k
from evaluation.paired import DIRECTIONS, FirstRanks
from storage.schema import TARGETS, Collection, Direction

from .entrants import Entrant
from .ground_truth import Rows

_MOST_RIGHT = 5


def sole_answers(entrants: Sequence[Entrant], ranks: Sequence[FirstRanks], most: int) -> list[dict[str, Any]]:
    """Return for each index and direction the queries that it alone answers: a relevant item is first there alone.

    Args:
        entrants: Indexes that hold the same items and pairs.
        ranks: Theirs, in the order of the items of the first index.
        most: Examples of each; those that the others ranked worst, each image at most once.

    Returns:
        For each index by direction `count`, `of` so many queries, and `examples`: the `query`, up to five `right`
        items, and `instead`: for each other index its `label`, the `item` that it put first and the `rank` of the best
        right one. An item is `item_id`, `uri` and `caption`.
    """
    found: list[dict[str, Any]] = [{} for _ in entrants]
    for name in DIRECTIONS:
        direction: Direction = name  # type: ignore[assignment]
        table = np.stack([one.ranks[direction] for one in ranks])
        rows, clusters = ranks[0].query_rows[direction], ranks[0].clusters[direction]
        for number in range(len(entrants)):
            others = np.delete(table, number, axis=0).min(axis=0)
            alone = np.flatnonzero((table[number] == 1) & (others > 1))
            worst = alone[np.argsort(-others[alone], kind="stable")]
            chosen = _one_an_image(worst, clusters, most)
            examples = _Examples(entrants, direction, number).of(rows[chosen], table[:, chosen])
            found[number][direction] = {"count": len(alone), "of": len(rows), "examples": examples}
    return found


def _one_an_image(queries: Rows, clusters: Rows | None, most: int) -> Rows:
    if clusters is None:
        return queries[:most]
    _, first = np.unique(clusters[queries], return_index=True)
    return queries[np.sort(first)[:most]]


class _Examples:
    """Puts the queries of one direction that one index alone answers into words."""

    def __init__(self, entrants: Sequence[Entrant], direction: Direction, number: int) -> None:
        self.entrants = entrants
        self.number = number
        self.target: Collection = TARGETS[direction]
        self.source: Collection = "texts" if self.target == "images" else "images"

    def of(self, rows: Rows, ranks: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Return an example for each of n queries.

        Args:
            rows: (n,) positions of the queries in their gallery.
            ranks: (indexes, n) the rank of the first right item.
        """
        if not len(rows):
            return []
        first = self.entrants[0]
        instead = {
            number: self._first_hits(entrant, rows)
            for number, entrant in enumerate(self.entrants)
            if number != self.number
        }
        return [
            {
                "query": query,
                "right": first.items(self.target, self._right(int(row))),
                "instead": [
                    {"label": self.entrants[number].label, "item": items[at], "rank": int(ranks[number, at])}
                    for number, items in instead.items()
                ],
            }
            for at, (row, query) in enumerate(zip(rows, first.items(self.source, rows), strict=True))
        ]

    def _right(self, row: int) -> Rows:
        images, texts = self.entrants[0].truth.pairs.T
        sources, targets = (texts, images) if self.target == "images" else (images, texts)
        return np.sort(targets[sources == row])[:_MOST_RIGHT]

    def _first_hits(self, entrant: Entrant, rows: Rows) -> list[dict[str, Any]]:
        first = self.entrants[0]
        base, queries = entrant.vectors(self.target, first), entrant.vectors(self.source, first, rows)
        hits, _ = exact_top_k(base, queries, 1)
        return first.items(self.target, hits[:, 0])
