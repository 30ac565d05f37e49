"""All pairs of 64-bit hashes within a Hamming distance, without comparing all with all.

By the pigeonhole principle two hashes that differ in at most d bits agree on e whole blocks where both are cut into d +
e: so hashes are sorted by each choice of e blocks, and only those that agree there are compared (multi-index hashing,
Norouzi et al., CVPR 2012). More blocks that must agree make fewer comparisons and more sorts; the cheaper way is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]

BITS = 64
# What a sort costs a row, in comparisons; and a comparison within a sorted run beside one of a plain product.
_SORT, _RUN = 40.0, 3.0
_MOST_BLOCKS = 16
_BLOCK = 1 << 22  # comparisons at a time
_MOST_PRODUCTS = 1 << 32  # which take 20 s


def unsigned(hashes: NDArray[np.int64]) -> Hashes:
    """Return hashes as the catalog keeps them, signed, as the 64 bits that they are."""
    return np.ascontiguousarray(hashes, dtype=np.int64).view(np.uint64)


def mirrored(hashes: Hashes) -> Hashes:
    """Return what the perceptual hashes of the mirrored images are, to a few bits.

    Mirroring turns the sign of every odd horizontal frequency, and these are every other bit.
    """
    return hashes ^ np.uint64(0x5555_5555_5555_5555)


def near_pairs(hashes: Hashes, distance: int) -> Iterator[Pairs]:
    """Yield the pairs of (n,) hashes that differ in at most `distance` bits, each once, as positions i < j.

    Equal hashes are pairs too: give each one once where there may be many. Memory grows with the hashes and with what
    is yielded at a time.

    Args:
        hashes: (n,) uint64.
        distance: 0 to 63. A million random hashes take a quarter of a minute at 8 on one core, ten times that at 12.
    """
    agree = cheapest(len(hashes), distance)
    if agree == 0:
        yield from _all(hashes, distance)
        return
    masks = _masks(distance + agree)
    for chosen in combinations(range(len(masks)), agree):
        yield from _within_runs(hashes, distance, masks, chosen)


def near_between(left: Hashes, right: Hashes, distance: int) -> Pairs:
    """Return the pairs (position in `left`, position in `right`) that differ in at most `distance` bits.

    Of equal hashes in `right` the first stands for all. A few are compared with all, a thousand with a million in 5 s;
    many are found by `near_pairs` of both sides.
    """
    if not (len(left) and len(right)):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    values, group, sizes = np.unique(left, return_inverse=True, return_counts=True)
    others, first = np.unique(right, return_index=True)
    i, j = _joined([*_between(values, others, distance)])
    starts = np.cumsum(sizes) - sizes
    members = np.argsort(group, kind="stable")
    within = np.arange(sizes[i].sum()) - np.repeat(np.cumsum(sizes[i]) - sizes[i], sizes[i])
    return members[np.repeat(starts[i], sizes[i]) + within], np.repeat(first[j], sizes[i])


def _between(left: Hashes, right: Hashes, distance: int) -> Iterator[Pairs]:
    """Yield the near pairs of two sides, neither of which has equal hashes."""
    if len(left) * len(right) > _MOST_PRODUCTS:
        for i, j in near_pairs(np.concatenate([left, right]), distance):
            across = (i < len(left)) & (j >= len(left))
            yield i[across], j[across] - len(left)
        return
    size = max(1, _BLOCK // len(right))
    for start in range(0, len(left), size):
        rows, columns = np.nonzero(np.bitwise_count(left[start : start + size, None] ^ right[None]) <= distance)
        yield rows + start, columns


def bits_apart(left: Hashes, right: Hashes) -> NDArray[np.uint8]:
    """Return in how many bits hashes differ, element by element."""
    apart: NDArray[np.uint8] = np.bitwise_count(left ^ right)
    return apart


def cheapest(rows: int, distance: int) -> int:
    """Return how many blocks must agree for the fewest operations; 0 where comparing all with all is cheaper."""
    costs = {0: rows * rows / 2}
    for agree in range(1, _MOST_BLOCKS - distance + 1):
        blocks = distance + agree
        runs = rows * rows / 2 / 2 ** (BITS * agree / blocks)
        costs[agree] = comb(blocks, agree) * (_SORT * rows + _RUN * runs)
    return min(costs, key=lambda agree: costs[agree])


def _all(hashes: Hashes, distance: int) -> Iterator[Pairs]:
    size = max(1, _BLOCK // max(1, len(hashes)))
    for start in range(0, len(hashes), size):
        apart = np.bitwise_count(hashes[start : start + size, None] ^ hashes[None, start:])
        rows, columns = np.nonzero(apart <= distance)
        later = columns > rows
        if later.any():
            yield rows[later] + start, columns[later] + start


def _masks(blocks: int) -> Hashes:
    """The bits of each of so many blocks, as even as they can be."""
    edges = [BITS * number // blocks for number in range(blocks + 1)]
    return np.array([(1 << high) - (1 << low) for low, high in pairwise(edges)], dtype=np.uint64)


def _within_runs(hashes: Hashes, distance: int, masks: Hashes, chosen: tuple[int, ...]) -> Iterator[Pairs]:
    """Yield the pairs that agree on the chosen blocks and on no earlier choice of blocks."""
    keys = hashes & np.bitwise_or.reduce(masks[list(chosen)])
    order = np.argsort(keys)
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[order][1:] != keys[order][:-1]]))
    lengths = np.diff(np.append(starts, len(hashes)))
    ends = np.repeat(starts + lengths, lengths)
    at, offset = np.flatnonzero(ends - np.arange(len(hashes)) > 1), 1
    while len(at):
        near = at[np.bitwise_count(ordered[at] ^ ordered[at + offset]) <= distance]
        if len(near):
            first = near[_is_first(ordered[near] ^ ordered[near + offset], masks, chosen)]
            left, right = order[first], order[first + offset]
            yield np.minimum(left, right), np.maximum(left, right)
        offset += 1
        at = at[at + offset < ends[at]]


def _is_first(apart: Hashes, masks: Hashes, chosen: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether the chosen blocks are the first ones on which two hashes agree, given what differs between them."""
    before = [block for block in range(chosen[-1]) if block not in chosen]
    if not before:
        return np.ones(len(apart), dtype=np.bool_)
    differ: NDArray[np.bool_] = ((apart[:, None] & masks[before]) != 0).all(axis=1)
    return differ


def _joined(found: list[Pairs]) -> Pairs:
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    left, right = (np.concatenate([pairs[side] for pairs in found]) for side in (0, 1))
    return left, right
