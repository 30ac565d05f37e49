"""How probable it is that a hit fits its query, by the calibration that the index was fitted with when it was built."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from storage.hit_calibration import Background, Judged, other_collection
from storage.partners import Partners
from storage.schema import Collection, Direction

from .errors import ParameterError
from .pages import Page
from .query import ResolvedQuery
from .query_encoder import Vectors
from .request import SearchRequest

if TYPE_CHECKING:
    from storage.version import IndexVersion


class Probabilities:
    """Judges hits of an open version; what that needs is read on first use. Safe from many threads."""

    def __init__(self, version: IndexVersion, location: str) -> None:
        """Judge hits in an open version, which stays its owner's; `location` is how errors name the index."""
        self._version = version
        self._location = location
        self._lock = threading.Lock()
        self._known: dict[Collection, tuple[Judged, Background]] = {}

    def check(self, direction: Direction | None, request: SearchRequest) -> None:
        """Refuse a floor of probability where nothing tells how probable a hit is.

        Raises:
            ParameterError: It is so; the message says what to do.
        """
        if request.min_probability is None or direction in self._version.manifest.calibrations:
            return
        floor = f"min_probability={request.min_probability:g}"
        known = " and ".join(self._version.manifest.calibrations)
        if known:
            raise ParameterError(
                f"{floor} is for {known} in the index {self._location}, which was not fitted for "
                f"{direction or 'vectors of unknown origin'}; give min_score"
            )
        raise ParameterError(
            f"{floor} needs an index that was fitted on pairs of image and text, and {self._location} was not; build "
            "or update it with 50 or more captioned images, or give min_score"
        )

    def judged(
        self,
        into: Collection,
        direction: Direction | None,
        request: SearchRequest,
        queries: Vectors,
        pages: Sequence[Page],
        own: Sequence[int | None],
        texts: Sequence[str | None] | None = None,
    ) -> list[Page]:
        """Return the pages with the probability of each hit, and without the hits below the floor of the request.

        Args:
            into: The collection that was searched.
            direction: What was searched with what.
            request: Says which floor there is.
            queries: (n, dim) unit vectors.
            pages: Of each query.
            own: For each query the row of the other collection that it is, or -1; None for a query that is composed,
                whose cosines the calibration knows nothing of.
            texts: What each query says, None for one that is no text; None where none is.
        """
        calibration = None if direction is None else self._version.manifest.calibrations.get(direction)
        if calibration is None:
            return list(pages)
        judge, background = self._judge(into)
        index = self._version.words(into) if calibration.with_words is not None else None
        found = []
        for query, page, row, text in zip(queries, pages, own, texts or [None] * len(pages), strict=True):
            if row is None:
                found.append(page)
                continue
            signals = judge.signals(query, page.row_ids, page.scores, background, own=row)
            coverage = None if index is None or text is None else index.coverage(text, page.row_ids)
            likely = page._replace(probabilities=calibration.probability(signals, coverage))
            found.append(likely if request.min_probability is None else likely.above(request.min_probability))
        return found

    def _judge(self, into: Collection) -> tuple[Judged, Background]:
        with self._lock:
            if into not in self._known:
                table, other = self._version.vectors(into), other_collection(into)
                pairs = self._version.catalog.table("pairs")
                others = self._version.vectors(other) if other in self._version.manifest.collections else None
                judged = Judged(table, others, Partners.of(pairs, into, table.rows))
                self._known[into] = judged, judged.background()
            return self._known[into]


def own_row(query: ResolvedQuery, into: Collection) -> int | None:
    """Return the row of the other collection that a query is, or -1; None for a composed query."""
    if query.part.kind == "composed":
        return None
    return query.row[1] if query.row is not None and query.row[0] != into else -1
