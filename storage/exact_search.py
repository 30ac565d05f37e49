"""Exact search over the stored vectors: the re-rank of candidates, and the brute-force scan of every row.

Every score that leaves an index is `inner_products` of the float32 query and the vector as stored, whose values are
numbers of float16, in one order of adding on every processor. So a row has one score whatever the path, and hits come
in one order: score downwards, then row id upwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Scores = NDArray[np.float32]
Ranking = tuple[Ids, Scores]
# float32 values of work space a step. Small steps stay in the cache and cost no page faults, which decides for one
# query (5 ms against 12 over 20,000 x 512); for many queries the matrix product wants larger ones.
_BLOCK_VALUES = 1 << 20
_BATCH_BLOCK_VALUES = 1 << 22
_BATCH = 16
_MAX_QUERIES = 1024
_MIN_SCORE = np.finfo(np.float32).min  # above the -inf of an excluded row
_SIGN_AND_BITS = np.array(0x8FFFE000, dtype=np.uint32).view(np.int32)[()]
EXPONENT_SHIFT = np.float32(2.0**112)
_SUMS = 64  # that a score is added up in: as many as fill a processor's lanes several times
_CONVERT_VALUES = 1 << 18  # float32 values a step: 1 MiB, so that the four passes stay in the cache


class Vectors(Protocol):
    """What the exact arithmetic needs of a table of stored vectors."""

    @property
    def rows(self) -> int:
        """How many vectors there are."""

    @property
    def dim(self) -> int:
        """Their length."""

    def gather(self, row_ids: Ids) -> NDArray[np.float16]:
        """Vectors of these rows, in this order, as one C-contiguous array `row_ids.shape + (dim,)`."""

    def gather_float32(self, row_ids: Ids, *, scaled: bool = False) -> NDArray[np.float32]:
        """The same as float32; `scaled`: times 2^-112, see `to_scaled_float32`."""

    def chunks(self, size: int = ...) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All vectors in row order: (first row, (n, dim) float32)."""


def score_candidates(vectors: Vectors, queries: NDArray[Any], candidates: Ids) -> Scores:
    """Return the exact score of each candidate, (nq, m) float32 in the order given; -inf where the candidate is -1.

    The work space is a few MiB, whatever nq and m.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32) * EXPONENT_SHIFT
    if candidates.size * vectors.dim <= _BLOCK_VALUES:
        return _block_scores(vectors, queries, candidates)
    scores = np.empty(candidates.shape, dtype=np.float32)
    width = max(1, min(candidates.shape[1], _BLOCK_VALUES // vectors.dim))
    height = max(1, _BLOCK_VALUES // (width * vectors.dim))
    for top in range(0, candidates.shape[0], height):
        for left in range(0, candidates.shape[1], width):
            block = np.s_[top : top + height, left : left + width]
            scores[block] = _block_scores(vectors, queries[top : top + height], candidates[block])
    return scores


def _block_scores(vectors: Vectors, shifted: Scores, candidates: Ids) -> Scores:
    """Exact scores of a block; the queries come times 2^112, see `to_scaled_float32`."""
    scores = inner_products(vectors.gather_float32(np.maximum(candidates, 0), scaled=True), shifted[:, None, :])
    scores[candidates < 0] = -np.inf
    return scores


def inner_products(rows: Scores, queries: Scores) -> Scores:
    """Return the inner product of each row with its query, in an order of adding that is the same everywhere.

    Products are rounded to float32. The 64 sums of every 64th of them are taken from front to back, and then halved:
    sum `i` and sum `i + 32`, `i + 16`, and so on. `list_scan.c` does the same, to the last bit.

    Args:
        rows: (..., dim) float32, which is used up: the products take its place.
        queries: Of a shape that NumPy can bring to that of `rows`.
    """
    *lines, dim = rows.shape
    parts = -(-dim // _SUMS)
    products = np.multiply(rows, queries, out=rows)
    if dim % _SUMS:
        products = np.zeros((*lines, parts * _SUMS), dtype=np.float32)
        products[..., :dim] = rows
    sums: Scores = np.add.reduce(products.reshape(*lines, parts, _SUMS), axis=-2)
    width = _SUMS
    while width > 1:
        width //= 2
        sums = sums[..., :width] + sums[..., width:]
    return sums[..., 0]


def rerank(vectors: Vectors, queries: NDArray[Any], candidates: Ids, k: int) -> Ranking:
    """Return the best `k` candidates of each query by exact cosine.

    Args:
        vectors: The stored vectors, unit length.
        queries: (nq, dim), unit length.
        candidates: (nq, m) row ids, -1 where there is none; the same id may come twice.
        k: How many to keep.

    Returns:
        Row ids (nq, k) int64, padded with -1, and scores (nq, k) float32, padded with -inf; best first, equal scores
        by lower row id, no id twice.
    """
    # Ascending ids read the file from front to back, and equal scores then come by row id.
    candidates = np.sort(candidates, axis=1)
    candidates[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = -1
    return _best(candidates, score_candidates(vectors, queries, candidates), k)


def exact_search(
    vectors: Vectors, queries: NDArray[Any], k: int, rows: Ids | None = None, exclude: Ids | None = None
) -> Ranking:
    """Compare each query with every row, or with `rows` alone, and return the best `k`.

    Args:
        vectors: The stored vectors, unit length.
        queries: (nq, dim), unit length.
        k: How many to keep.
        rows: Row ids to look at, ascending; None for all.
        exclude: (nq,) for each query one row id that it may not find (itself), or -1.

    Returns:
        Row ids and scores in the form and order of `rerank`.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    excluded = np.full(len(queries), -1, dtype=np.int64) if exclude is None else np.ascontiguousarray(exclude, np.int64)
    best = _empty_ranking(len(queries), k)
    if not len(queries) or k < 1:
        return best
    if len(queries) <= _BATCH and (compared := getattr(vectors, "compared", None)):  # a table of stored vectors
        ranking: Ranking | None = compared(queries, k, rows, None if exclude is None else excluded)
        if ranking is not None:
            return ranking
    height = min(len(queries), _MAX_QUERIES)
    values = _BLOCK_VALUES if height <= _BATCH else _BATCH_BLOCK_VALUES
    size = max(64, values // max(height, vectors.dim))
    for top in range(0, len(queries), height):
        part = slice(top, top + height)
        for ids, block in _blocks(vectors, rows, size):
            merged = _scan(queries[part], ids, block, (best[0][part], best[1][part]), excluded[part])
            best[0][part], best[1][part] = merged
    return best


def _empty_ranking(queries: int, k: int) -> Ranking:
    return np.full((queries, k), -1, dtype=np.int64), np.full((queries, k), -np.inf, dtype=np.float32)


def _blocks(vectors: Vectors, rows: Ids | None, size: int) -> Iterator[tuple[Ids, NDArray[np.float32]]]:
    if rows is None:
        for start, block in vectors.chunks(size):
            yield np.arange(start, start + len(block), dtype=np.int64), block
        return
    for start in range(0, len(rows), size):
        ids = rows[start : start + size]
        yield ids, vectors.gather_float32(ids)


def _scan(queries: Scores, ids: Ids, block: Scores, best: Ranking, excluded: Ids) -> Ranking:
    """Merge one block of rows into the best so far."""
    rough = queries @ block.T
    column = np.minimum(np.searchsorted(ids, excluded), len(ids) - 1)  # ids ascend
    hit = np.flatnonzero(ids[column] == excluded)
    rough[hit, column[hit]] = -np.inf
    # Matrix and row-wise products round differently, each by at most dim * 2^-24 for unit vectors: whatever could
    # still be among the best is scored again, row by row, so that the block size never shows in a score.
    slack = np.float32(4 * block.shape[1] * 2.0**-24)
    floor = _floor(rough, best[1])
    row, column = np.nonzero(rough >= np.maximum(floor - slack, _MIN_SCORE)[:, None])
    return _merge(best, row, ids[column], _pair_scores(queries, block, row, column))


def _floor(rough: Scores, best: Scores) -> Scores:
    """A score for each query that k known rows reach: nothing below it can be among the best k."""
    known, k = best[:, -1], best.shape[1]
    few = np.count_nonzero(rough >= known[:, None]) <= 4 * rough.shape[0] * k
    if few or rough.shape[1] <= k:
        return known
    return np.maximum(known, -np.partition(-rough, k - 1, axis=1)[:, k - 1])


def _pair_scores(queries: Scores, block: Scores, row: Ids, column: Ids) -> Scores:
    scores = np.empty(len(row), dtype=np.float32)
    step = max(1, _BLOCK_VALUES // block.shape[1])
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        scores[part] = inner_products(block[column[part]], queries[row[part]])
    return scores


def _merge(best: Ranking, row: Ids, ids: Ids, scores: Scores) -> Ranking:
    """The best k of each query among those known and the new pairs (query, row id, score)."""
    queries, k = best[0].shape
    row = np.concatenate([np.repeat(np.arange(queries), k), row])
    ids = np.concatenate([best[0].reshape(-1), ids])
    scores = np.concatenate([best[1].reshape(-1), scores])
    order = np.lexsort((ids, -scores, row))
    row, ids, scores = row[order], ids[order], scores[order]
    rank = np.arange(len(row)) - np.searchsorted(row, np.arange(queries))[row]
    keep = rank < k  # each query brought k entries, real or padding, so k remain
    return ids[keep].reshape(queries, k), scores[keep].reshape(queries, k)


def _best(ids: Ids, scores: Scores, k: int) -> Ranking:
    """Sort each line by score downwards, id upwards (`ids` ascend already but for -1, whose score is -inf)."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    if len(ids) == 1 and order.shape[1] == k:
        return ids[:, order[0]], scores[:, order[0]]
    line = np.arange(len(ids))[:, None]
    if order.shape[1] == k:
        return ids[line, order], scores[line, order]
    padded = _empty_ranking(len(ids), k)
    padded[0][:, : order.shape[1]] = ids[line, order]
    padded[1][:, : order.shape[1]] = scores[line, order]
    return padded


def to_float32(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the same numbers as float32, exactly; `vectors` is C-contiguous, of any shape, and finite.

    The bits of a float16 are moved to where float32 keeps its own, which is off by a factor of 2^112 because the two
    exponents are biased by 15 and 127; one multiplication corrects that, subnormal numbers included. Infinity and NaN
    become large finite numbers: no stored vector has them.
    """
    wide = np.empty(vectors.shape, dtype=np.float32)
    source, target = vectors.reshape(-1).view(np.int16), wide.reshape(-1)
    for start in range(0, source.size, _CONVERT_VALUES):
        block = target[start : start + _CONVERT_VALUES]
        _move_bits(source[start : start + _CONVERT_VALUES], block.view(np.int32))
        block *= EXPONENT_SHIFT
    return wide


def to_scaled_float32(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the same numbers times 2^-112, exactly, in three passes: for a few rows that stay in the cache.

    A product with `EXPONENT_SHIFT` times a query is then to the last bit the product of `to_float32` with the query: a
    power of two changes no rounding, as long as nothing leaves the range of float32, and unit vectors are far from it.
    """
    bits = np.empty(vectors.shape, dtype=np.int32)
    _move_bits(vectors.view(np.int16), bits)
    return bits.view(np.float32)


def _move_bits(source: NDArray[np.int16], bits: NDArray[np.int32]) -> None:
    bits[...] = source  # extends the sign, which then sits in bit 31 after the shift
    bits <<= 13
    bits &= _SIGN_AND_BITS
