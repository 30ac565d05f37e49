"""Centroids of inverted lists: spherical k-means, begun along the few axes that hold most of the variance.

A round of k-means compares every vector with every centroid in all dimensions, and ten rounds are the most expensive
part of a build's training. In a sample rotated to its principal axes a quarter of the coordinates hold most of the
variance, so that eight rounds over these and two over all find centroids as good, in half of the time (docs/ann.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from storage.exact_search import Ids, Ranking, Scores, Vectors, exact_search, rerank, to_float32

if TYPE_CHECKING:
    import torch


ROUNDS = 10  # where all are over all dimensions
_COARSE_ROUNDS, _FINE_ROUNDS = 8, 2
_COARSE_SHARE = 4  # of the coordinates
_SPREAD_SHARE = 2 / 3  # that they must hold, and do not unless the sample is turned
_FEWEST = 32  # coordinates that are worth a start of their own
_SUMMED_LISTS = 256


def train_centroids(sample: Scores, nlist: int, seed: int) -> Scores:
    """Return (nlist, dim) float32 centroids of unit length.

    Args:
        sample: (n, dim) unit vectors, n >= nlist.
        nlist: How many centroids.
        seed: The same seed gives the same centroids.
    """
    widest = _widest(sample)
    if widest is None:
        return _clustered(sample, nlist, seed, ROUNDS)
    narrow = np.ascontiguousarray(sample[:, widest])
    centroids = _clustered(narrow, nlist, seed, _COARSE_ROUNDS)
    lists = _flat(centroids).search(narrow, 1)[1].reshape(-1)
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
    # Unit length: a list of scattered rows would have a short centroid, which an inner product never picks.
    clustering = faiss.Clustering(sample.shape[1], nlist)
    clustering.spherical, clustering.niter, clustering.seed = True, rounds, seed % (1 << 31)
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, len(sample)
    if start is not None:
        faiss.copy_array_to_vector(start.reshape(-1), clustering.centroids)
    clustering.train(sample, _flat(None, sample.shape[1]))
    return np.asarray(faiss.vector_to_array(clustering.centroids)).reshape(nlist, -1)


def _flat(centroids: Scores | None, dim: int = 0) -> Any:
    index = faiss.IndexFlatIP(dim if centroids is None else centroids.shape[1])
    if centroids is not None:
        index.add(centroids)
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


# Candidates beyond k, to be scored again: rounding on the device reorders neighbours, so that some may lie behind.
_SPARE = 16
_BLOCK_ROWS = 1 << 18  # half a gigabyte of float32 at 512 dimensions
_QUERIES = 1 << 12
_SCORES = 1 << 28  # float32 values of a block of scores: a gigabyte


def exact_neighbours(
    vectors: Vectors, queries: NDArray[Any], k: int, *, device: str = "cuda", exclude: Ids | None = None
) -> Ranking:
    """Return what `exact_search` returns, to the last bit: the best `k` rows of each query by the stored vectors.

    The device finds a few more candidates than k, in float32; the CPU scores those as it scores every hit. Queries
    where rounding may hide a neighbour (many equal vectors) are searched again on the CPU.

    Args:
        vectors: The stored vectors, unit length; they pass through the device block by block.
        queries: (nq, dim), unit length.
        k: How many to keep.
        device: Torch's name of the device.
        exclude: (nq,) for each query one row id that it may not find (itself), or -1.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if not len(queries) or k < 1 or not vectors.rows:
        return exact_search(vectors, queries, k, exclude=exclude)
    excluded = np.full(len(queries), -1, dtype=np.int64) if exclude is None else np.asarray(exclude)
    parts = [slice(top, top + _QUERIES) for top in range(0, len(queries), _QUERIES)]
    result = [_neighbours(vectors, queries[part], k, device, excluded[part]) for part in parts]
    return np.concatenate([ids for ids, _ in result]), np.concatenate([scores for _, scores in result])


def list_centroids(sample: Scores, nlist: int, *, device: str = "cuda", rounds: int = 10, seed: int = 0) -> Scores:
    """Return (nlist, dim) float32 centroids of unit length by spherical k-means; the same for the same seed and device.

    Args:
        sample: (n, dim) unit vectors, n >= nlist; they stay on the device.
        nlist: How many centroids.
        device: Torch's name of the device.
        rounds: More find little; FAISS takes 10 too.
        seed: Of the rows that the centroids start from.
    """
    import torch

    with _full_precision():
        rows = torch.from_numpy(np.ascontiguousarray(sample)).to(device)
        start = np.random.default_rng([seed, 5]).choice(len(sample), nlist, replace=False)
        centroids = rows[torch.from_numpy(np.sort(start)).to(device)].clone()
        for _ in range(rounds):
            centroids = _updated(rows, centroids)
        result: Scores = centroids.cpu().numpy()
    return result


def lists_of(vectors: Scores, centroids: Scores, *, device: str = "cuda") -> Ids:
    """Return (n,) int64: for each row the centroid with the largest inner product, the first of equals."""
    import torch

    with _full_precision():
        known = torch.from_numpy(np.ascontiguousarray(centroids)).to(device)
        lists: Ids = _nearest(torch.from_numpy(np.ascontiguousarray(vectors)).to(device), known).cpu().numpy()
    return lists


def add_to_lists(index: Any, vectors: Scores, ids: Ids, lists: Ids) -> None:
    """Add rows to the lists of an inverted-file index that were found for them; FAISS computes the codes alone.

    Args:
        index: A trained `faiss.IndexIVF` that is filled entry by entry; not a FastScan one, whose blocks would take
            wrong codes.
        vectors: (n, dim) unit vectors.
        ids: (n,) the row ids.
        lists: (n,) from `lists_of`.
    """
    import faiss

    # FAISS takes bare pointers: the arrays must have the very types, and names that live until it is done.
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    ids, lists = np.ascontiguousarray(ids, dtype=np.int64), np.ascontiguousarray(lists, dtype=np.int64)
    index.add_core(len(ids), faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(lists))


def _neighbours(vectors: Vectors, queries: Scores, k: int, device: str, excluded: Ids) -> Ranking:
    candidates, floor = _candidates(vectors, queries, min(k + _SPARE, vectors.rows), device, excluded)
    ids, scores = rerank(vectors, queries, candidates, k)
    # As in `exact_search`: two ways to sum a product of unit vectors differ by at most this much.
    slack = np.float32(4 * vectors.dim * 2.0**-24)
    unsure = np.flatnonzero(np.isfinite(floor) & (floor >= scores[:, -1] - slack))
    if candidates.shape[1] < vectors.rows and unsure.size:
        ids[unsure], scores[unsure] = exact_search(vectors, queries[unsure], k, exclude=excluded[unsure])
    return ids, scores


def _candidates(vectors: Vectors, queries: Scores, count: int, device: str, excluded: Ids) -> tuple[Ids, Scores]:
    """Return (nq, count) row ids, -1 for none, and (nq,) the lowest score among them."""
    import torch

    with _full_precision():
        wide_queries, self_ids = torch.from_numpy(queries).to(device), torch.from_numpy(excluded).to(device)
        best = torch.full((len(queries), count), -torch.inf, device=device)
        ids = torch.full((len(queries), count), -1, dtype=torch.int64, device=device)
        for start, block in _blocks(vectors, len(queries), device):
            scores = wide_queries @ block.T
            within = (self_ids >= start) & (self_ids < start + len(block))
            scores[within, self_ids[within] - start] = -torch.inf
            top, position = scores.topk(min(count, len(block)))
            best, order = torch.cat([best, top], 1).topk(count)
            ids = torch.cat([ids, position + start], 1).gather(1, order)
        ids[best == -torch.inf] = -1
        result: tuple[Ids, Scores] = ids.cpu().numpy(), best[:, -1].cpu().numpy()
    return result


def _blocks(vectors: Vectors, queries: int, device: str) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield all vectors as (first row, (n, dim) float32 on the device); float16 crosses the bus."""
    import torch

    size = max(1024, min(_BLOCK_ROWS, _SCORES // max(queries, 1)))
    for start in range(0, vectors.rows, size):
        rows = vectors.gather(np.arange(start, min(start + size, vectors.rows), dtype=np.int64))
        if device == "cpu":
            yield start, torch.from_numpy(to_float32(rows))
        else:
            yield start, torch.from_numpy(rows).pin_memory().to(device, non_blocking=True).float()


def _updated(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return the mean direction of the rows nearest to each centroid.

    A centroid without rows becomes the row that is farthest from its own centroid.
    """
    import torch

    nearest = _nearest(rows, centroids)
    sums = torch.zeros_like(centroids).index_add_(0, nearest, rows)
    empty = torch.bincount(nearest, minlength=len(centroids)) == 0
    if empty.any():
        far = (rows * centroids[nearest]).sum(1)
        sums[empty] = rows[far.topk(int(empty.sum()), largest=False).indices]
    return torch.nn.functional.normalize(sums, dim=1)


def _nearest(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    import torch

    size = max(1, _SCORES // len(centroids))
    return torch.cat([(part @ centroids.T).argmax(1) for part in torch.split(rows, size)])


@contextmanager
def _full_precision() -> Iterator[None]:
    """Compute float32 products as float32: with TF32 a GPU keeps 10 of their 23 bits."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
