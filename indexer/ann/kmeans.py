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

from storage.exact_search import Ids, Scores

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
    columns = widest(sample)
    if columns is None:
        return clustered(sample, nlist, seed, ROUNDS)
    narrow = np.ascontiguousarray(sample[:, columns])
    centroids = clustered(narrow, nlist, seed, _COARSE_ROUNDS)
    lists = nearest_centroids(narrow, centroids)
    del narrow
    return clustered(sample, nlist, seed, _FINE_ROUNDS, means(sample, lists, nlist, seed))


def nearest_centroids(rows: Scores, centroids: Scores) -> Ids:
    """Return (n,) int64: for each row the centroid with the largest inner product."""
    lists: Ids = _flat(centroids).search(rows, 1)[1].reshape(-1)
    return lists


def widest(sample: Scores) -> Ids | None:
    """Return the coordinates of the largest spread, in their order; None where they do not say enough."""
    count = sample.shape[1] // _COARSE_SHARE
    squares = np.einsum("ij,ij->j", sample, sample, dtype=np.float64) / len(sample)
    spreads = squares - sample.mean(axis=0, dtype=np.float64) ** 2
    chosen = np.sort(np.argsort(-spreads, kind="stable")[:count])
    enough = count >= _FEWEST and spreads[chosen].sum() >= _SPREAD_SHARE * spreads.sum()
    return chosen if enough else None


def clustered(sample: Scores, nlist: int, seed: int, rounds: int, start: Scores | None = None) -> Scores:
    """Return (nlist, dim) centroids of unit length by k-means, each row compared with each centroid."""
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


def means(sample: Scores, lists: Ids, nlist: int, seed: int) -> Scores:
    """Return the mean of each list's vectors, to unit length; a list without any gets a vector of the sample."""
    order, sizes = np.argsort(lists, kind="stable"), np.bincount(lists, minlength=nlist)
    ends = np.cumsum(sizes)
    found = sample[np.random.default_rng([seed, 13]).choice(len(sample), nlist, replace=False)]
    for first in range(0, nlist, _SUMMED_LISTS):  # not all at once, which would take a second copy of the sample
        filled = first + np.flatnonzero(sizes[first : first + _SUMMED_LISTS])
        if not len(filled):
            continue
        begin, end = ends[filled[0]] - sizes[filled[0]], ends[filled[-1]]
        sums = np.add.reduceat(sample[order[begin:end]], ends[filled] - sizes[filled] - begin, axis=0)
        found[filled] = sums
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.ascontiguousarray(found / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


_SCORES = 1 << 28  # float32 values of a block of scores: a gigabyte
_SUMMED_ROWS = 1 << 18  # that are put into the order of their lists at once


def list_centroids(sample: Scores, nlist: int, *, device: str = "cuda", rounds: int = 10, seed: int = 0) -> Scores:
    """Return (nlist, dim) float32 centroids of unit length by spherical k-means; the same for the same seed and device.

    Args:
        sample: (n, dim) unit vectors, n >= nlist; they stay on the device.
        nlist: How many centroids.
        device: Torch's name of the device.
        rounds: More find little; FAISS takes 10 too.
        seed: Of the rows that the centroids start from.

    Raises:
        MemoryError: The device has not enough memory.
    """
    import torch

    with full_precision():
        rows = torch.from_numpy(np.ascontiguousarray(sample)).to(device)
        start = np.random.default_rng([seed, 5]).choice(len(sample), nlist, replace=False)
        centroids = rows[torch.from_numpy(np.sort(start)).to(device)].clone()
        for _ in range(rounds):
            centroids = _updated(rows, centroids)
        result: Scores = centroids.cpu().numpy()
    return result


def lists_of(vectors: Scores, centroids: Scores, *, device: str = "cuda") -> Ids:
    """Return (n,) int64: for each row the centroid with the largest inner product, the first of equals.

    Raises:
        MemoryError: The device has not enough memory.
    """
    import torch

    with full_precision():
        known = torch.from_numpy(np.ascontiguousarray(centroids)).to(device)
        lists: Ids = nearest(torch.from_numpy(np.ascontiguousarray(vectors)).to(device), known).cpu().numpy()
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


def _updated(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return the mean direction of the rows nearest to each centroid.

    A centroid without rows becomes the row that is farthest from its own centroid.
    """
    import torch

    closest = nearest(rows, centroids)
    sums = sums_of_lists(rows, closest, len(centroids))
    empty = torch.bincount(closest, minlength=len(centroids)) == 0
    if empty.any():
        far = (rows * centroids[closest]).sum(1)
        sums[empty] = rows[far.topk(int(empty.sum()), largest=False).indices]
    return torch.nn.functional.normalize(sums, dim=1)


def sums_of_lists(rows: torch.Tensor, lists: torch.Tensor, count: int) -> torch.Tensor:
    """Return (count, dim): the sum of the rows of each list, added in their order.

    `index_add_` adds by atomics on a GPU, in an order that differs from run to run, and so do its last bits.
    """
    import torch

    sums = rows.new_zeros((count, rows.shape[1]))
    for part, of_part in zip(torch.split(rows, _SUMMED_ROWS), torch.split(lists, _SUMMED_ROWS), strict=True):
        order = torch.argsort(of_part, stable=True)
        sizes = torch.bincount(of_part, minlength=count)
        sums += torch.segment_reduce(part[order], "sum", lengths=sizes, axis=0, unsafe=True)
    return sums


def nearest(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return (n,) int64: `lists_of` for tensors that are on the device."""
    import torch

    size = max(1, _SCORES // len(centroids))
    return torch.cat([(part @ centroids.T).argmax(1) for part in torch.split(rows, size)])


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products as float32: with TF32 a GPU keeps 10 of their 23 bits.

    Raises:
        MemoryError: The device has not enough memory.
    """
    import torch

    matmul: Any = torch.backends.cuda.matmul
    # Torch has two switches, and of a program that has used the newer one it does not let the older one be read.
    switch: tuple[str, Any] = ("allow_tf32", False)
    try:
        before = matmul.allow_tf32
    except RuntimeError:
        switch, before = ("fp32_precision", "ieee"), matmul.fp32_precision
    setattr(matmul, *switch)
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    finally:
        setattr(matmul, switch[0], before)
