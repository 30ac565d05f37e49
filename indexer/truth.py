"""The exact neighbours of queries, and where among candidates they stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from storage.rerank import Ids, Scores, Vectors, exact_search, score_candidates

NOWHERE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Truth:
    """The `depth` best rows of each query, by the exact search; made by `of`.

    Where rows have equal scores any of them will do, so that a picture that is stored a thousand times cannot lower a
    recall.
    """

    vectors: Vectors
    queries: Scores
    own: Ids
    ids: Ids
    scores: Scores

    @classmethod
    def of(cls, vectors: Vectors, queries: Scores, depth: int, own: Ids) -> Truth:
        """Search for the neighbours of `queries`; `own` (nq,) holds for each a row that it may not find, or -1."""
        ids, scores = exact_search(vectors, queries, depth + 1, exclude=own)
        return cls(vectors, queries, own, ids, scores)

    def places(self, candidates: Ids) -> Ids:
        """Return (nq, depth): the place among a query's candidates of each of its best rows, `NOWHERE` if not there.

        Args:
            candidates: (nq, m) row ids, -1 where there is none; an id may come twice, and then its first place counts.
                The query's own row takes no place.
        """
        depth = self.ids.shape[1] - 1
        places = np.full((len(candidates), depth), NOWHERE, dtype=np.int64)
        rank = np.full(self.vectors.rows + 1, depth, dtype=np.int64)  # one more for -1, the last
        tied = (self.scores[:, 1:] == self.scores[:, :-1]).any(axis=1)
        for line, (found, own) in enumerate(zip(candidates, self.own, strict=True)):
            found = found[found != own] if own >= 0 else found
            if tied[line]:
                places[line] = self._tied_places(line, found)
                continue
            rank[self.ids[line, :depth]] = np.arange(depth)
            ranks = rank[found]
            hits = np.flatnonzero(ranks < depth)[::-1]  # backwards: the first place is the last to be written
            places[line, ranks[hits]] = hits
            rank[self.ids[line, :depth]] = depth
        return places

    def _tied_places(self, line: int, found: Ids) -> Ids:
        """The same by score: the first candidates with a score take the ranks with that score."""
        depth = self.ids.shape[1] - 1
        places = np.full(depth, NOWHERE, dtype=np.int64)
        scores = score_candidates(self.vectors, self.queries[line : line + 1], found[None])[0]
        again = np.ones(len(found), dtype=np.bool_)
        again[np.unique(found, return_index=True)[1]] = False
        scores[again] = -np.inf
        for score in np.unique(self.scores[line, :depth]):
            ranks = np.flatnonzero(self.scores[line, :depth] == score)
            first = np.flatnonzero(scores == score)[: len(ranks)]
            places[ranks[: len(first)]] = first
        return places
