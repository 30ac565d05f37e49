"""Hybrid search: vectors and words together, ranked by one value of which each gives a part.

The value of an item is its cosine, in standard deviations of the query's cosines over the collection, and to that
`WORDS_WEIGHT` times how well its words cover the query: the mean of the squares of two shares of the idf of all words
of the query, its BM25 and the idf of those words that it has. A word that no caption has counts as the rarest, so that
a sentence of which the captions know "a" and "in" stays with the vectors, and a name or number goes to the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.exact_search import score_candidates
from storage.lexical.inverted_index import InvertedIndex, Matches
from storage.vectors import VectorTable

from .errors import SearchError
from .operating_points import Choice
from .pages import Ranking

# R@10 of vectors, words, reciprocal ranks (k 60) and this, over 2,000 photographs of Flickr8k train with `lite`: a
# caption as the query and the four others indexed, 21, 76, 58, 78; names and numbers in captions, 13, 100, 99, 100.
# Over 600 photographs with vectors of CLIP and one other caption each, 99.6, 82, 96, 100. `benchmarks/hybrid.py`
# reports on dev.
WORDS_WEIGHT = 16.0
_ALONE = Choice(kind="words", exact=True, reason="words alone are looked up, and no vector is compared")


def needed_words(index: InvertedIndex | None, location: str) -> InvertedIndex:
    """Return the lexical index of a collection.

    Raises:
        SearchError: It has none.
    """
    if index is None:
        raise SearchError(
            f"the index {location} has no lexical index, as it was built before there were any; "
            "run build-index with --update on its corpus, or build it again"
        )
    return index


def best_matches(matches: Matches, k: int) -> Matches:
    """Return the `k` rows with the largest BM25, best first, equal ones by lower row id."""
    if len(matches.rows) > k:
        least = np.partition(matches.scores, -k)[-k]
        matches = matches.at(np.flatnonzero(matches.scores >= least))
    return matches.at(np.argsort(-matches.scores, kind="stable")[:k])


def ranked_by_words(matches: Matches, queries: int, k: int) -> Ranking:
    """Return the ranking by words alone, the same for each of `queries`; cosines are not a number."""
    best = best_matches(matches, k)
    rows, words = np.tile(best.rows, (queries, 1)), np.tile(best.scores, (queries, 1))
    return Ranking(rows, np.full(rows.shape, np.nan, dtype=np.float32), _ALONE, value=words, words=words)


def fused(
    ranking: Ranking,
    matches: Matches,
    most: float,
    queries: NDArray[np.float32],
    spread: NDArray[np.float32],
    table: VectorTable,
) -> Ranking:
    """Return the rows that vectors found and as many of those that words found best, in the order of both together.

    Args:
        ranking: By the vectors.
        matches: All rows that have a word.
        most: The idf of all words of the query.
        queries: (n, dim) unit rows.
        spread: (n,) standard deviations of their cosines over the collection.
        table: The vectors of the collection.
    """
    best = best_matches(matches, max(1, ranking.row_ids.shape[1])).rows
    lines = [
        _fused_line(ids[ids >= 0], best, matches, most, query, float(deviation), table)
        for ids, query, deviation in zip(ranking.row_ids, queries, spread, strict=True)
    ]
    width = max((len(ids) for ids, *_ in lines), default=0)
    padding = ((-1, np.int64), (-np.inf, np.float32), (-np.inf, np.float64), (0, np.float32))
    ids, scores, value, words = (
        _padded([line[column] for line in lines], width, fill, kind) for column, (fill, kind) in enumerate(padding)
    )
    return Ranking(ids, scores, ranking.choice, value=value, words=words)


def _fused_line(
    found: NDArray[np.int64],
    best: NDArray[np.int64],
    matches: Matches,
    most: float,
    query: NDArray[np.float32],
    deviation: float,
    table: VectorTable,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    rows = np.sort(np.concatenate([found, best[~np.isin(best, found)]]))
    scores = np.clip(score_candidates(table, query[None], rows[None])[0], -1, 1)
    words, covered = np.zeros((2, len(rows)), dtype=np.float32)
    at = np.minimum(np.searchsorted(matches.rows, rows), max(len(matches.rows) - 1, 0))
    known = np.flatnonzero(matches.rows[at] == rows) if len(matches.rows) else at[:0]
    words[known], covered[known] = matches.scores[at[known]], matches.covered[at[known]]
    by_words = (np.square(words / most, dtype=np.float64) + np.square(covered / most)) / 2
    value = scores / max(deviation, 1e-6) + WORDS_WEIGHT * by_words
    order = np.argsort(-value, kind="stable")
    return rows[order], scores[order], value[order], words[order]


def _padded(lines: Sequence[NDArray[Any]], width: int, fill: float, kind: type) -> NDArray[Any]:
    table: NDArray[Any] = np.full((len(lines), width), fill, dtype=kind)
    for number, line in enumerate(lines):
        table[number, : len(line)] = line
    return table
