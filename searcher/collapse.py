"""Collapsing: of items that are the same but for how they were saved, a search shows one that stands for the others.

What makes two items copies is the rule by which `twinlens duplicates` tells `exact` and `resaved`; of texts, and of
images without a perceptual hash, vectors decide alone where those of the encoder can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.duplicates.grades import RESAVED, CopyRule, Sizes, copy_rule
from storage.duplicates.near_hashes import Hashes, bits_apart, unsigned
from storage.exact_search import to_float32
from storage.schema import Collection, EncoderInfo

# Captions encoded by `lite`: a missing full stop leaves 0.997 (0.988 at the worst of a hundred), and 1.3 % of captions
# have another photograph's at 0.98, which differs by a word.
_TEXTS = CopyRule(sure_bits=-1, same_size_bits=-1, bits=-1, cosine=1.0, scene_bits=-1, scene_cosine=1.0, alone=0.98)
# The same bytes have the same vector, but for the rounding of batches.
_SAME = 0.999
MOST_COLLAPSED = 2_000
CONTENT_COLUMNS = ("sha256", "width", "height", "perceptual_hash")

# Positions (n,) among what was ranked to what the catalog has of them in `CONTENT_COLUMNS`.
Facts = Callable[[NDArray[np.int64]], Sequence[Mapping[str, Any]]]


def rule_of(collection: Collection, encoder: EncoderInfo | None) -> CopyRule:
    """Return what makes two items of a collection copies."""
    return copy_rule(encoder) if collection == "images" else _TEXTS


def first_copies(vectors: NDArray[np.float16], rule: CopyRule, facts: Facts) -> NDArray[np.int64]:
    """Return for each of n ranked items the position of the first one that it is a copy of, (n,); its own for none.

    An item stands for those that are copies of it, not for the copies of copies.

    Args:
        vectors: (n, dim) unit rows, the best item first.
        rule: What makes two of them copies.
        facts: Asked only for items that some other may be a copy of, by their vectors.
    """
    wide = to_float32(vectors)
    cosines = wide @ wide.T
    alike = np.tril(cosines >= _least(rule), -1)
    first = np.arange(len(wide))
    early = np.flatnonzero(alike.any(axis=0))
    if not len(early):
        return first
    involved = np.flatnonzero(alike.any(axis=0) | alike.any(axis=1))
    known = _Known(involved, facts(involved), len(wide))
    for one in early.tolist():
        if first[one] == one:
            late = np.flatnonzero(alike[:, one] & (first == np.arange(len(first))))
            first[late[known.copies(one, late, cosines[late, one], rule)]] = one
    return first


def _least(rule: CopyRule) -> float:
    """The cosine below which no two items are copies."""
    if rule.sure_bits >= 0:
        return -2.0
    return min(rule.cosine, _SAME, _SAME if rule.alone is None else rule.alone)


class _Known:
    """What is known of some of `count` items: content, hash and shape."""

    def __init__(self, positions: NDArray[np.int64], facts: Sequence[Mapping[str, Any]], count: int) -> None:
        self._contents = -1 - np.arange(count)
        self._sizes = Sizes(widths=np.full(count, np.nan), heights=np.full(count, np.nan))
        self._hashes: Hashes = np.zeros(count, dtype=np.uint64)
        self._hashed = np.zeros(count, dtype=np.bool_)
        numbers: dict[str, int] = {}
        for position, fact in zip(positions.tolist(), facts, strict=True):
            if fact["sha256"] is not None:
                self._contents[position] = numbers.setdefault(fact["sha256"], len(numbers))
            if fact.get("width") and fact.get("height"):
                self._sizes.widths[position], self._sizes.heights[position] = fact["width"], fact["height"]
            if fact.get("perceptual_hash") is not None:
                self._hashes[position] = unsigned(np.array([fact["perceptual_hash"]]))[0]
                self._hashed[position] = True

    def copies(
        self, one: int, late: NDArray[np.int64], cosines: NDArray[np.float32], rule: CopyRule
    ) -> NDArray[np.bool_]:
        """Return which of the items at `late` are copies of the one at `one`, (m,)."""
        shape = self._sizes.take(late).beside(self._sizes.take(np.full(len(late), one)))
        both = self._hashed[late] & self._hashed[one]
        apart = np.where(both, bits_apart(self._hashes[late], self._hashes[[one]]), np.uint8(64))
        same = self._contents[late] == self._contents[one]
        copied: NDArray[np.bool_] = rule.grades(apart, cosines, shape, same) <= RESAVED
        if rule.alone is not None:
            copied |= ~both & shape.same_shape & (cosines >= rule.alone)
        return copied
