"""Pages of a ranking: how deep to rank for one, which of the ranked rows it shows, and how diverse they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.exact_search import to_float32

from .collapse import MOST_COLLAPSED
from .operating_points import Choice
from .request import MAX_K, SearchRequest

# Pages after the first are cut from rankings of these depths, so that those of one depth fit together.
_DEPTHS = (100, 1_000, MAX_K)
# Diverse hits are chosen among so many candidates a hit, at least so many.
_POOL_SHARE, _POOL = 4, 200

Gather = Callable[[NDArray[np.int64]], NDArray[Any]]
# Row ids (n,) and their vectors (n, dim), best first, to the position of the first that each is a copy of.
Copies = Callable[[NDArray[np.int64], NDArray[Any]], NDArray[np.int64]]


class Ranking(NamedTuple):
    """Rows found for n queries, best first.

    Attributes:
        row_ids: (n, k) int64, padded with -1.
        scores: (n, k) float32, exact cosines padded with -inf.
        choice: How they were found.
        value: (n, k), what they are ordered by, where that is not the cosine.
        words: (n, k) float32, their BM25, where words were looked up.
    """

    row_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    choice: Choice
    value: NDArray[Any] | None = None
    words: NDArray[np.float32] | None = None

    def padded(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return row ids and scores as (n, k), k or more, padded as they are."""
        short = k - self.row_ids.shape[1]
        if not short:
            return self.row_ids, self.scores
        width = ((0, 0), (0, short))
        return np.pad(self.row_ids, width, constant_values=-1), np.pad(self.scores, width, constant_values=-np.inf)


class Page(NamedTuple):
    """What is shown of a ranking.

    Attributes:
        row_ids: (k,) or fewer.
        scores: Their cosines.
        words: Their BM25, where words were looked up.
        probabilities: To fit, where the index has a calibration.
        copies: For each the row ids (m,) that it stands for, an array of arrays; None where nothing was collapsed.
    """

    row_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    words: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    copies: NDArray[np.object_] | None = None

    def above(self, floor: float) -> Page:
        """Return the page without the hits that are less probable, or whose probability is unknown."""
        known = np.zeros(len(self.row_ids)) if self.probabilities is None else self.probabilities
        kept = known >= floor
        return Page(*(None if column is None else column[kept] for column in self))  # type: ignore[arg-type]

    def lines(self) -> Iterator[tuple[int, float, float | None, float | None, NDArray[np.int64] | None]]:
        """Yield row id, cosine, BM25, probability and copies of each hit."""
        unknown = [None] * len(self.row_ids)
        further = (
            unknown if column is None else column.tolist() for column in (self.words, self.probabilities, self.copies)
        )
        return zip(self.row_ids.tolist(), self.scores.tolist(), *further, strict=True)


def page_depth(needed: int) -> int:
    """Return the depth of the ranking that pages which reach so deep are cut from."""
    return next(one for one in _DEPTHS if one >= needed)


def depth(request: SearchRequest, *, own: int = 0) -> int:
    """Return how many hits are ranked for a page; the pages after the first are cut from rankings of few depths."""
    needed = min(request.offset + request.k + own, MAX_K)
    if request.diversity or request.collapse:
        most = MOST_COLLAPSED if request.collapse else MAX_K
        return min(max(_POOL, _POOL_SHARE * needed), most)
    if request.words is not None:
        return next((one for one in _DEPTHS if one >= _POOL_SHARE * needed), MAX_K)
    return page_depth(needed) if request.offset else needed


def shown_rows(
    ranking: Ranking, request: SearchRequest, own: Sequence[Sequence[int]], gather: Gather, copies: Copies
) -> list[Page]:
    """Return what the page of each query shows.

    Args:
        ranking: Of all queries.
        request: Says which page it is, which scores are too low for it, and how unlike its hits are to be.
        own: The rows that each query was made of, which are no hits of it.
        gather: Row ids (n,) to their vectors (n, dim).
        copies: Which of them are copies, asked where the request collapses them.
    """
    pages = []
    for number, own_rows in enumerate(own):
        ids, scores = ranking.row_ids[number], ranking.scores[number]
        kept = (ids >= 0) & np.logical_and.reduce([ids != row for row in own_rows]) if own_rows else ids >= 0
        if request.min_score is not None:
            kept &= scores >= request.min_score
        chosen = np.flatnonzero(kept)
        vectors = gather(ids[chosen]) if len(chosen) and (request.diversity or request.collapse) else None
        first = None
        if vectors is not None and request.collapse:
            all_rows, first = ids[chosen], copies(ids[chosen], vectors)
            unique = np.flatnonzero(first == np.arange(len(first)))
            chosen, vectors = chosen[unique], vectors[unique]
        if vectors is not None and request.diversity:
            value = scores if ranking.value is None else ranking.value[number]
            order = diverse_order(value[chosen], vectors, request.offset + request.k, request.diversity)
            chosen = chosen[order]
        chosen = chosen[request.offset : request.offset + request.k]
        words = None if ranking.words is None else ranking.words[number][chosen]
        stands_for = None if first is None else _copies_of(ids[chosen], all_rows, first)
        pages.append(Page(ids[chosen], scores[chosen], words, copies=stands_for))
    return pages


def _copies_of(shown: NDArray[np.int64], rows: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.object_]:
    """Return for each row that is shown the others whose first is it."""
    others: dict[int, list[int]] = {}
    for position in np.flatnonzero(first != np.arange(len(first))).tolist():
        others.setdefault(int(rows[first[position]]), []).append(int(rows[position]))
    copies = np.empty(len(shown), dtype=object)
    copies[:] = [np.array(others.get(row, []), dtype=np.int64) for row in shown.tolist()]
    return copies


def diverse_order(scores: NDArray[Any], vectors: NDArray[Any], count: int, diversity: float) -> NDArray[np.int64]:
    """Return the positions of `count` candidates, or of all, each the best and least like those before it.

    Maximal marginal relevance (Carbonell and Goldstein, 1998): the next one has the largest `(1 - diversity) * score -
    diversity * likeness`, likeness being the largest cosine to any chosen one. Scores of texts and images lie elsewhere
    than cosines of two images, so both are first brought to 0 to 1: scores over the candidates, likenesses from the
    least to the best candidate up to 1.

    Args:
        scores: (n,) what they are ranked by, best first.
        vectors: (n, dim) unit rows.
        count: How many to choose.
        diversity: Above 0, at most 1.
    """
    wide = to_float32(vectors) if vectors.dtype == np.float16 else vectors
    spread = float(scores[0] - scores[-1]) or 1.0
    gain = (1 - diversity) * (scores - scores[-1]) / spread
    least = float((wide @ wide[0]).min())
    scale = diversity / max(1 - least, 1e-6)
    likeness = np.full(len(scores), -np.inf, dtype=np.float32)
    order = np.zeros(min(count, len(scores)), dtype=np.int64)
    for position in range(1, len(order)):
        last = order[position - 1]
        gain[last] = -np.inf
        np.maximum(likeness, wide @ wide[last], out=likeness)
        order[position] = int(np.argmax(gain - scale * likeness))
    return order


def may_be_fuller(ranking: Ranking, request: SearchRequest, pages: Sequence[Page], k: int) -> bool:
    """Whether a page is short because copies were collapsed, so that a deeper ranking than `k` may fill it."""
    if not request.collapse or k >= MOST_COLLAPSED or ranking.row_ids.shape[1] < k:
        return False
    short = [number for number, page in enumerate(pages) if len(page.row_ids) < request.k]
    if request.min_score is None:
        return bool(short)
    return any(ranking.scores[number].min() >= request.min_score for number in short)


def arrays(pages: Sequence[Page], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return pages as row ids (n, k) padded with -1 and scores (n, k) padded with -inf."""
    ids = np.full((len(pages), k), -1, dtype=np.int64)
    scores = np.full((len(pages), k), -np.inf, dtype=np.float32)
    for number, page in enumerate(pages):
        ids[number, : len(page.row_ids)], scores[number, : len(page.row_ids)] = page.row_ids, page.scores
    return ids, scores
