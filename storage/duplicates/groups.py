"""Groups of images that are alike: each has a best image, and every other is alike to that one.

Likeness is not transitive: from image to image a chain may lead anywhere. So nothing joins a group over a third image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .grades import EXACT
from .pairs import AlikePairs, ImageFacts, Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One image of a group beside the best one.

    Attributes:
        row: Its row id.
        grade: Position in `GRADES`: how it is alike to the best one.
        apart: Bits in which their hashes differ; of a mirrored image after that was taken back.
        cosine: Of their vectors.
    """

    row: int
    grade: int
    apart: int
    cosine: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Images that are alike.

    Attributes:
        best: Row id of the one with most pixels, then most bytes, then the oldest file.
        members: The others, those nearest to it first.
    """

    best: int
    members: tuple[Member, ...]

    @property
    def grade(self) -> int:
        """The loosest grade in it, a position in `GRADES`."""
        return max(member.grade for member in self.members)


def grouped(facts: ImageFacts, pairs: AlikePairs) -> list[Group]:
    """Return the groups, the largest first, each image in one at most.

    From the best image on, each that has no group yet leads one of those that are alike to it and have none; an image
    with the same bytes as another goes where that one goes.
    """
    leader, link = _led(facts, pairs)
    joined = np.flatnonzero(link >= 0)
    order = np.lexsort((pairs.cosines[link[joined]] * -1, pairs.apart[link[joined]], leader[joined]))
    joined = joined[order]
    starts = np.flatnonzero(np.diff(leader[joined], prepend=-1))
    groups = [
        Group(best=int(leader[part[0]]), members=tuple(_member(pairs, int(link[row]), int(row)) for row in part))
        for part in np.split(joined, starts[1:])
        if len(part)
    ]
    rank = np.empty(len(facts.order), dtype=np.int64)
    rank[facts.order] = np.arange(len(rank))
    return sorted(groups, key=lambda group: (-len(group.members), rank[group.best]))


def _member(pairs: AlikePairs, pair: int, row: int) -> Member:
    return Member(
        row=row, grade=int(pairs.grades[pair]), apart=int(pairs.apart[pair]), cosine=float(pairs.cosines[pair])
    )


def _led(facts: ImageFacts, pairs: AlikePairs) -> tuple[Rows, NDArray[np.int64]]:
    """For each image its leader, itself as a rule, and the pair by which it has another one, or -1."""
    count = len(facts.order)
    leader, link = np.arange(count), np.full(count, -1, dtype=np.int64)
    exact = pairs.grades == EXACT
    rank = np.empty(count, dtype=np.int64)
    rank[facts.order] = np.arange(count)
    loose = np.flatnonzero(~exact)
    loose = loose[np.lexsort((pairs.grades[loose], rank[pairs.better[loose]]))]
    starts = np.flatnonzero(np.diff(rank[pairs.better[loose]], prepend=-1))
    for part in np.split(loose, starts[1:]) if len(loose) else ():
        best = pairs.better[part[0]]
        if link[best] >= 0:
            continue
        free = part[link[pairs.other[part]] < 0]
        # An image that leads already is better than this one, and so never the other of a pair with it.
        free = free[::-1]  # of two pairs the one of the closer grade is the last
        leader[pairs.other[free]], link[pairs.other[free]] = best, free
    copies = np.flatnonzero(exact)
    better, other = pairs.better[copies], pairs.other[copies]
    leader[other] = leader[better]
    link[other] = np.where(link[better] >= 0, link[better], copies)
    return leader, link
