"""The centres of lists: spherical k-means, begun along the few axes that hold most of what there is to tell.

A round of k-means compares every vector with every centre in all dimensions, and ten of them are the dearest part of a
build's training. In a sample that is turned to its principal axes a quarter of the coordinates hold most of the spread,
so that eight rounds over these and two over all find centres that are as good, in half of the time (docs/ann.md).
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from storage.rerank import Ids, Scores

ROUNDS = 10  # where all are over all dimensions
_COARSE_ROUNDS, _FINE_ROUNDS = 8, 2
_COARSE_SHARE = 4  # of the coordinates
_SPREAD_SHARE = 2 / 3  # that they must hold, and do not unless the sample is turned
_FEWEST = 32  # coordinates that are worth a start of their own
_SUMMED_LISTS = 256


def train_centres(sample: Scores, nlist: int, seed: int) -> Scores:
    """Return (nlist, dim) float32 centres of unit length.

    Args:
        sample: (n, dim) unit vectors, n >= nlist.
        nlist: How many centres.
        seed: The same seed gives the same centres.
    """
    widest = _widest(sample)
    if widest is None:
        return _clustered(sample, nlist, seed, ROUNDS)
    narrow = np.ascontiguousarray(sample[:, widest])
    centres = _clustered(narrow, nlist, seed, _COARSE_ROUNDS)
    lists = _flat(centres).search(narrow, 1)[1].reshape(-1)
    del narrow
    return _clustered(sample, nlist, seed, _FINE_ROUNDS, _means(sample, lists, nlist, seed))


def _widest(sample: Scores) -> Ids | None:
    """The coordinates of the largest spread, in their order; None where they do not say enough."""
    count = sample.shape[1] // _COARSE_SHARE
    squares = np.einsum("ij,ij->j", sample, sample, dtype=np.float64) / len(sample)
    spreads = squares - sample.mean(axis=0, dtype=np.float64) ** 2
    chosen = np.sort(np.argsort(-spreads, kind="stable")[:count])
    enough = count >= _FEWEST and spreads[chosen].sum() >= _SPREAD_SHARE * spreads.sum()
    return chosen if enough else None


def _clustered(sample: Scores, nlist: int, seed: int, rounds: int, start: Scores | None = None) -> Scores:
    # Centres of unit length: without, a list of scattered rows has a short centre, which an inner product never picks.
    clustering = faiss.Clustering(sample.shape[1], nlist)
    clustering.spherical, clustering.niter, clustering.seed = True, rounds, seed % (1 << 31)
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, len(sample)
    if start is not None:
        faiss.copy_array_to_vector(start.reshape(-1), clustering.centroids)
    clustering.train(sample, _flat(None, sample.shape[1]))
    return np.asarray(faiss.vector_to_array(clustering.centroids)).reshape(nlist, -1)


def _flat(centres: Scores | None, dim: int = 0) -> Any:
    index = faiss.IndexFlatIP(dim if centres is None else centres.shape[1])
    if centres is not None:
        index.add(centres)
    return index


def _means(sample: Scores, lists: Ids, nlist: int, seed: int) -> Scores:
    """The mean of each list's vectors, to unit length; a list without any gets a vector of the sample."""
    order, sizes = np.argsort(lists, kind="stable"), np.bincount(lists, minlength=nlist)
    ends = np.cumsum(sizes)
    means = sample[np.random.default_rng([seed, 13]).choice(len(sample), nlist, replace=False)]
    for first in range(0, nlist, _SUMMED_LISTS):  # not all at once, which would take a second copy of the sample
        filled = first + np.flatnonzero(sizes[first : first + _SUMMED_LISTS])
        if not len(filled):
            continue
        begin, end = ends[filled[0]] - sizes[filled[0]], ends[filled[-1]]
        sums = np.add.reduceat(sample[order[begin:end]], ends[filled] - sizes[filled] - begin, axis=0)
        means[filled] = sums
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.ascontiguousarray(means / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
