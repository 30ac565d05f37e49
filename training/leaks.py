"""Leaks: validation items that stand in the training examples too, and recall without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.duplicates.grades import RESAVED, CopyRule, SameShape
from storage.duplicates.near_hashes import bits_apart, near_between, unsigned
from storage.duplicates.texts import repeated

from .batches import Items, Pairing
from .selection import Recall

Embed = Callable[[np.ndarray], np.ndarray]
"""From rows of a side to their vectors, (n, dim), by the model before it is trained."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """Validation items that are among the training items as well.

    Attributes:
        left: (n,) rows of left validation items.
        right: (n,) rows of right validation items; those of `left` where both sides are one.
        of: How many items there are of each side.
        kinds: What the sides are.
        without: Recall of what was saved on the others; None where nothing leaks, or nothing is left.
    """

    left: np.ndarray
    right: np.ndarray
    of: tuple[int, int]
    kinds: tuple[str, str]
    without: Recall | None = None

    @property
    def any(self) -> bool:
        """Whether something leaks."""
        return bool(len(self.left) or len(self.right))

    def kept(self, val: Pairing) -> tuple[np.ndarray, np.ndarray, Pairing] | None:
        """Return left rows, right rows and pairs of what does not leak; None where no pair is left.

        A left item that leaks goes with the right items that belong to no other, a right item goes alone.
        """
        left, right = (
            ~np.isin(np.arange(size), rows) for size, rows in zip(self.of, (self.left, self.right), strict=True)
        )
        if val.families is None:
            stays = left[val.positives[:, 0]]
            right[np.setdiff1d(val.positives[~stays, 1], val.positives[stays, 1])] = False
        rows = val.positives[left[val.positives[:, 0]] & right[val.positives[:, 1]]]
        if not len(rows):
            return None
        kept = np.flatnonzero(left), np.flatnonzero(right)
        rest = Pairing(
            left=val.left.take(kept[0]),
            right=val.right.take(kept[1]),
            positives=np.stack([np.searchsorted(kept[side], rows[:, side]) for side in (0, 1)], axis=1),
            negatives=np.empty((0, 2), dtype=np.int64),
            families=None if val.families is None else val.families[kept[0]],
        )
        return *kept, rest

    def to_json(self) -> dict[str, Any]:
        """Return counts by side, and the recall without."""
        sides = {"left": (self.left, self.of[0]), "right": (self.right, self.of[1])}
        counts = {name: {"count": len(rows), "of": of} for name, (rows, of) in sides.items()}
        return {**counts, "without": self.without and self.without.to_json()}

    def to_text(self) -> str:
        """Return how many there are, in a sentence."""
        sides = [(self.left, self.of[0], self.kinds[0]), (self.right, self.of[1], self.kinds[1])]
        told = [f"{len(rows):,} of {of:,} {kind}s" for rows, of, kind in sides[: len({*self.kinds})]]
        return f"{' and '.join(told)} of validation stand in the training examples too"


def leaked(rule: CopyRule, train: Items, val: Items, embed: tuple[Embed, Embed]) -> np.ndarray:
    """Return the rows of validation items that the training items hold too, (n,) ascending.

    Texts are the same in the same words, images by content, or by hash and vector as copies are.

    Args:
        rule: What tells copies among images.
        train: Items of one side.
        val: Validation items of the same side.
        embed: Vectors of some training and of some validation items.
    """
    if val.kind == "text":
        texts = [[str(content) for content in items.contents] for items in (val, train)]
        return np.array(repeated(*texts), dtype=np.int64)
    known = frozenset(train.keys)
    same = np.array([row for row, key in enumerate(val.keys) if key in known], dtype=np.int64)
    (val_rows, val_hashes), (train_rows, train_hashes) = (_hashed(items) for items in (val, train))
    i, j = near_between(val_hashes, train_hashes, rule.bits)
    if not len(i):
        return same
    cosines = np.vecdot(_of_pairs(embed[1], val_rows[i]), _of_pairs(embed[0], train_rows[j]))
    apart, unknown = bits_apart(val_hashes[i], train_hashes[j]), SameShape.unknown(len(i))
    copied = rule.grades(apart, cosines, unknown, np.zeros(len(i), dtype=np.bool_)) <= RESAVED
    return np.union1d(same, val_rows[i[copied]])


def _hashed(items: Items) -> tuple[np.ndarray, np.ndarray]:
    """The rows of images with a hash, and the hashes."""
    rows = np.array([row for row, one in enumerate(items.hashes) if one is not None], dtype=np.int64)
    return rows, unsigned(np.array([one for one in items.hashes if one is not None], dtype=np.int64))


def _of_pairs(embed: Embed, rows: np.ndarray) -> np.ndarray:
    distinct, at = np.unique(rows, return_inverse=True)
    vectors: np.ndarray = embed(distinct)[at]
    return vectors
