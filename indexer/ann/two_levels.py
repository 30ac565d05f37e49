"""Many centroids of inverted lists in two levels: groups first, and within a group its own centroids.

With as many lists as a quick search asks for, k-means that compares each row with each centroid becomes the most
expensive part of a build. Here a row is compared with some hundred groups, and with the centroids of the nearest of
these. Measured on 300,000 CLIP-like vectors and 4,096 lists: a third of the time, and about as many entries to read for
the same recall (docs/ann.md).
"""

from __future__ import annotations

import math

import numpy as np

from storage.exact_search import Ids, Scores

from .kmeans import ROUNDS, clustered, means, nearest_centroids, widest

MANY = 2048  # lists from which on two levels are quicker
_GROUPS_COMPARED = 8  # of which the centroids are compared with a row: 99.2 % of rows get the list nearest of all
_ROUNDS_IN_GROUPS = 8
_ROUNDS_OVER_ALL = 2
_ROWS_A_GROUP = 256  # that the groups are found by
_BLOCK = 16384


class TwoLevels:
    """Finds the nearest of many centroids.

    Args:
        centroids: (nlist, dim) float32, unit length.
        seed: The same seed gives the same groups.
    """

    def __init__(self, centroids: Scores, seed: int) -> None:
        self._groups = clustered(centroids, _group_count(len(centroids)), seed, ROUNDS)
        group = nearest_centroids(centroids, self._groups)
        self._members = [np.flatnonzero(group == number) for number in range(len(self._groups))]
        self._centroids = [centroids[members] for members in self._members]

    def lists_of(self, rows: Scores) -> Ids:
        """Return (n,) int64: for each row the centroid with the largest inner product in the groups nearest to it."""
        lists = np.empty(len(rows), dtype=np.int64)
        for start in range(0, len(rows), _BLOCK):
            lists[start : start + _BLOCK] = self._lists_of(rows[start : start + _BLOCK])
        return lists

    def _lists_of(self, rows: Scores) -> Ids:
        near = self._near(rows)
        order = np.argsort(near.reshape(-1), kind="stable")
        ends = np.searchsorted(near.reshape(-1)[order], np.arange(len(self._groups) + 1))
        best, lists = np.full(len(rows), -np.inf, dtype=np.float32), np.zeros(len(rows), dtype=np.int64)
        for group, members in enumerate(self._members):
            asking = order[ends[group] : ends[group + 1]] // near.shape[1]
            if not len(asking) or not len(members):
                continue
            scores = rows[asking] @ self._centroids[group].T
            first = scores.argmax(axis=1)
            score = scores[np.arange(len(asking)), first]
            better = score > best[asking]
            best[asking[better]], lists[asking[better]] = score[better], members[first[better]]
        return lists

    def _near(self, rows: Scores) -> Ids:
        """(n, groups) the groups nearest to each row, in no order."""
        if len(self._groups) <= _GROUPS_COMPARED:
            return np.broadcast_to(np.arange(len(self._groups)), (len(rows), len(self._groups)))
        return np.argpartition(rows @ -self._groups.T, _GROUPS_COMPARED - 1, axis=1)[:, :_GROUPS_COMPARED]


def train_many_centroids(sample: Scores, nlist: int, seed: int) -> Scores:
    """Return (nlist, dim) float32 centroids of unit length, as `train_centroids` does.

    Args:
        sample: (n, dim) unit vectors, n >= nlist.
        nlist: How many centroids.
        seed: The same seed gives the same centroids.
    """
    columns = widest(sample)
    narrow = sample if columns is None else np.ascontiguousarray(sample[:, columns])
    centroids = _within_groups(sample, narrow, nlist, seed)
    for _ in range(_ROUNDS_OVER_ALL):
        centroids = means(sample, TwoLevels(centroids, seed).lists_of(sample), nlist, seed)
    return centroids


def _within_groups(sample: Scores, narrow: Scores, nlist: int, seed: int) -> Scores:
    """Centroids of each group's rows, as many as its share of the sample."""
    count = _group_count(nlist)
    picked = np.random.default_rng([seed, 17]).choice(len(narrow), min(len(narrow), _ROWS_A_GROUP * count), False)
    group = nearest_centroids(narrow, clustered(narrow[np.sort(picked)], count, seed, ROUNDS))
    shares = _shares(np.bincount(group, minlength=count), nlist)
    found = []
    for number in np.flatnonzero(shares):
        rows, lists = np.flatnonzero(group == number), int(shares[number])
        own = narrow[rows]
        nearest = nearest_centroids(own, clustered(own, lists, seed, _ROUNDS_IN_GROUPS))
        found.append(means(sample[rows], nearest, lists, seed))
    return np.concatenate(found)


def _group_count(nlist: int) -> int:
    return 1 << math.ceil(math.log2(nlist) / 2)


def _shares(sizes: Ids, total: int) -> Ids:
    """Share out `total` lists by size, at most one a row: the rests decide who gets one more."""
    exact = sizes / sizes.sum() * total
    shares: Ids = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    return shares
