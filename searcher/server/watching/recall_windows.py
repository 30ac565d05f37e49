"""What the latest compared searches found, by direction and recall asked for, and whether that is too little."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from evaluation.share_interval import share_interval
from storage.schema import Direction

# One interval is shown and decided by. At 0.99 a setting that finds just what was asked for, 0.95, was taken for one
# that finds less in 9 of 100 simulated runs of 10,000 compared queries; at 0.95 it would be 24.
LEVEL = 0.99
# Compared queries that an estimate is made of, the latest: traffic changes, and what was found long ago says little.
WINDOW = 2_000
# Looked at after so many compared queries, and whenever there are twice as many: each look may be wrong by chance.
FIRST_LOOK = 15
# Callers may ask for any recall and any k; the labels of a metric are of a fixed set. A search counts for the highest
# of these that it asks for, and in the first depth that holds its hits.
ASKED = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
DEPTHS = (10, 100, 1_000, 10_000)


class Cell(NamedTuple):
    """Searches that are measured together.

    Attributes:
        direction: What was searched with what.
        ann_recall: The recall that all of them ask for at least, one of `ASKED`.
        k: The depth that holds their hits, one of `DEPTHS`.
    """

    direction: Direction
    ann_recall: float
    k: int

    @property
    def labels(self) -> tuple[str, str, str]:
        """The same as labels of a metric."""
        return self.direction, f"{self.ann_recall:g}", str(self.k)


class Estimate(NamedTuple):
    """The recall of the searches of a cell.

    Attributes:
        mean: Share of the exact hits that were found, mean over the queries.
        low: Lower end of its interval, of `LEVEL`.
        high: Upper end.
        queries: How many it is made of.
    """

    mean: float
    low: float
    high: float
    queries: int


def cell_of(direction: Direction, ann_recall: float, depth: int) -> Cell | None:
    """Return where a search counts; None where it asks for less than any recall that is watched."""
    asked = max((one for one in ASKED if one <= ann_recall), default=None)
    k = next((one for one in DEPTHS if one >= depth), None)
    return None if asked is None or k is None else Cell(direction, asked, k)


class RecallWindow:
    """The latest compared queries of one cell."""

    def __init__(self) -> None:
        self._latest: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._seen = 0
        self._next_look = FIRST_LOOK

    def add(self, share: float, hits: int) -> None:
        """Count a query in, of whose `hits` exact hits this share was found."""
        self._latest.append((share, hits))
        self._seen += 1

    @property
    def estimate(self) -> Estimate:
        """What the queries so far say; there must be one."""
        shares, hits = np.array(self._latest).T
        low, high = share_interval(shares, float(hits.mean()), LEVEL)
        return Estimate(float(shares.mean()), low, high, len(shares))

    def is_under(self, asked: float) -> bool:
        """Whether the recall is surely under what was asked for; looks only when enough has come since it last did."""
        if self._seen < self._next_look:
            return False
        self._next_look = self._seen + min(self._seen, WINDOW // 2)
        return self.estimate.high < asked
