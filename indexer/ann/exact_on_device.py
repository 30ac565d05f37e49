"""Exact search on a GPU: the device finds what can be among the best, and the stored rows are scored as ever."""

from __future__ import annotations

from typing import Any

import numpy as np

from storage.exact_search import Ids, Ranking, Scores, Vectors, exact_search, rerank

from .kmeans import full_precision

_ROWS = 1 << 16  # sent at a time, as float16
_SCORES = 1 << 28  # float32 values of a block of scores: a gigabyte
_SPARE = 32  # more rows than asked for, among which rounding and equal scores may shift the order


def exact_search_on(vectors: Vectors, queries: Scores, k: int, exclude: Ids, *, device: str) -> Ranking:
    """Return what `exact_search` does, to the last bit, most of the work done on a device.

    The device compares in float32, in an order of adding of its own, and keeps more rows than are asked for; their
    scores are made by `rerank`. A query whose rows might not be all of the best, because more than 32 others score
    nearly the same, is compared again on the CPU.

    Args:
        vectors: The stored vectors, unit length.
        queries: (nq, dim) unit vectors.
        k: How many rows a query.
        exclude: (nq,) for each query one row id that it may not find, or -1.
        device: Torch's name of the device.

    Raises:
        MemoryError: The device has not enough memory.
    """
    kept = min(k + _SPARE, vectors.rows)
    if not len(queries) or not kept:
        return exact_search(vectors, queries, k, exclude=exclude)
    height = max(1, _SCORES // min(_ROWS, vectors.rows))
    parts = [_rough(vectors, queries[top : top + height], kept, device) for top in range(0, len(queries), height)]
    ids, least = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    ids[ids == exclude[:, None]] = -1
    found, scores = rerank(vectors, queries, ids, k)
    if kept < vectors.rows:
        slack = np.float32(4 * vectors.dim * 2.0**-24)
        unsure = np.flatnonzero(~(scores[:, -1] - slack > least))
        if unsure.size:
            found[unsure], scores[unsure] = exact_search(vectors, queries[unsure], k, exclude=exclude[unsure])
    return found, scores


def _rough(vectors: Vectors, queries: Scores, kept: int, device: str) -> tuple[Ids, Scores]:
    """The rows that score best on the device, (nq, kept), and the lowest score among each query's."""
    import torch

    with full_precision():
        asked = torch.from_numpy(np.ascontiguousarray(queries)).to(device)
        best: Any = asked.new_empty((len(queries), 0)), torch.empty((len(queries), 0), dtype=torch.int64, device=device)
        for start in range(0, vectors.rows, _ROWS):
            rows = np.arange(start, min(start + _ROWS, vectors.rows), dtype=np.int64)
            block = torch.from_numpy(vectors.gather(rows)).to(device).float()
            ids = torch.from_numpy(rows).to(device).expand(len(queries), -1)
            scores = torch.cat([best[0], asked @ block.T], dim=1)
            top = scores.topk(min(kept, scores.shape[1]), dim=1)
            best = top.values, torch.cat([best[1], ids], dim=1).gather(1, top.indices)
        return best[1].cpu().numpy(), best[0][:, -1].cpu().numpy()
