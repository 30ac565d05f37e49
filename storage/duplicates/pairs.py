"""The pairs of images of an index that are alike, each with its grade: exact, resaved or similar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..version import IndexVersion
from .grades import EXACT, RESAVED, SIMILAR, CopyRule, Sizes, copy_rule
from .near_hashes import Hashes, bits_apart, mirrored, near_between, near_pairs, unsigned

Rows = NDArray[np.int64]
# Up to so many images every pair is looked at for `similar`, which takes 12 s; beyond, those whose hashes differ in no
# more bits than copies do.
EXHAUSTIVE = 50_000
# Of images with one and the same hash, which are icons or blank forms more often than copies, so many are compared with
# all the others: the best ones.
_MOST_ALIKE = 64
_AT_ONCE = 1 << 14
COLUMNS = ("sha256", "width", "height", "file_bytes", "mtime_ns")
HASH = "perceptual_hash"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFacts:
    """What tells copies among the images of a version, by row.

    Attributes:
        contents: (n,) a number for the content, equal for equal bytes.
        hashes: (n,) perceptual hashes; 0 where there is none.
        hashed: (n,) whether there is one.
        sizes: Widths and heights.
        order: (n,) rows from the best: most pixels, then most bytes, then the oldest file, then the first row.
    """

    contents: Rows
    hashes: Hashes
    hashed: NDArray[np.bool_]
    sizes: Sizes
    order: Rows

    @classmethod
    def read(cls, version: IndexVersion) -> ImageFacts:
        """Read the facts of all images of a version, some 60 bytes each."""
        catalog = version.catalog
        known = {name for name, _ in catalog.columns("images")}
        wanted = [name for name in (*COLUMNS, HASH) if name in known]
        table = catalog.table("images", wanted)
        widths, heights = (_numbers(table, name, np.nan) for name in ("width", "height"))
        keys = (
            _numbers(table, "mtime_ns", np.inf),
            -_numbers(table, "file_bytes", 0),
            -np.nan_to_num(widths * heights),
        )
        column = table.column(HASH) if HASH in wanted else pa.nulls(len(table), pa.int64())
        return cls(
            contents=_numbered(table.column("sha256")),
            hashes=unsigned(np.asarray(pc.fill_null(column, 0))),
            hashed=np.asarray(pc.is_valid(column)),
            sizes=Sizes(widths=widths, heights=heights),
            order=np.lexsort(keys),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class AlikePairs:
    """Pairs of images, the better one of each first.

    Attributes:
        better: (p,) rows.
        other: (p,) rows.
        grades: (p,) positions in `GRADES`.
        apart: (p,) bits in which the hashes differ, of a mirrored pair those to the mirrored one; 0 of equal bytes.
        cosines: (p,) of their vectors.
    """

    better: Rows
    other: Rows
    grades: NDArray[np.uint8]
    apart: NDArray[np.uint8]
    cosines: NDArray[np.float32]


def alike_pairs(version: IndexVersion, facts: ImageFacts, loosest: int) -> AlikePairs:
    """Return the pairs of images up to a grade, a position in `GRADES`.

    Of images with the same bytes the best one stands for all: each other one makes a pair with it alone.
    """
    rank = np.empty(len(facts.order), dtype=np.int64)
    rank[facts.order] = np.arange(len(rank))
    first, copies = _by_content(facts, rank)
    found = [_exact(first[copies], copies)]
    if loosest != EXACT:
        distinct = facts.order[(first == np.arange(len(first)))[facts.order] & facts.hashed[facts.order]]
        found += _Comparison(version=version, facts=facts, rows=distinct, loosest=loosest).pairs()
    return AlikePairs(
        better=np.concatenate([one.better for one in found]),
        other=np.concatenate([one.other for one in found]),
        grades=np.concatenate([one.grades for one in found]),
        apart=np.concatenate([one.apart for one in found]),
        cosines=np.concatenate([one.cosines for one in found]),
    )


def copies_between(version: IndexVersion, facts: ImageFacts, left: Rows, right: Rows) -> tuple[Rows, Rows]:
    """Return the pairs of an image of `left` and a copy of it in `right`, exact or resaved, as row ids.

    Args:
        version: An open version.
        facts: Those of its images.
        left: Row ids.
        right: Row ids, none of them in `left`.
    """
    rule = copy_rule(version.manifest.encoder)
    sides = [rows[facts.hashed[rows]] for rows in (left, right)]
    i, j = near_between(facts.hashes[sides[0]], facts.hashes[sides[1]], rule.bits)
    one, other = sides[0][i], sides[1][j]
    apart = bits_apart(facts.hashes[one], facts.hashes[other])
    shape = facts.sizes.take(one).beside(facts.sizes.take(other))
    grades = rule.grades(apart, cosines_between(version, one, other), shape, np.zeros(len(one), dtype=np.bool_))
    copied = grades <= RESAVED
    i, j = equal_between(facts.contents[left], facts.contents[right])
    return np.concatenate([left[i], one[copied]]), np.concatenate([right[j], other[copied]])


def equal_between(left: Rows, right: Rows) -> tuple[Rows, Rows]:
    """Return the positions of values of `left` that `right` has, and where each first stands there."""
    values, first = np.unique(right, return_index=True)
    if not len(values):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    at = np.minimum(np.searchsorted(values, left), len(values) - 1)
    found = np.flatnonzero(values[at] == left)
    return found, first[at[found]]


def cosines_between(version: IndexVersion, left: Rows, right: Rows) -> NDArray[np.float32]:
    """Return the cosine of images `left[i]` and `right[i]`, (n,) float32."""
    table = version.vectors("images")
    cosines = np.empty(len(left), dtype=np.float32)
    for start in range(0, len(left), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        cosines[part] = np.vecdot(*(table.gather_float32(rows[part]) for rows in (left, right)))
    return cosines


def candidates(hashes: Hashes, distance: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield pairs i < j of (n,) hashes that differ in at most `distance` bits, equal ones among them.

    Of many equal hashes the first 64, which are the best ones, are compared with the others alone; a pair may come
    twice.
    """
    values, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    members = np.argsort(group, kind="stable")
    starts = np.cumsum(sizes) - sizes
    few = np.minimum(sizes, _MOST_ALIKE)
    same = np.flatnonzero(sizes > 1)
    for left, right in chain([(same, same)], near_pairs(values, distance)):
        many = (sizes[right] > _MOST_ALIKE) & (left != right)
        whole, best = np.concatenate([left, right[many]]), np.concatenate([right, left[many]])
        for part in _portions(sizes[whole] * few[best]):
            i, j = _crossed((starts[whole[part]], sizes[whole[part]]), (starts[best[part]], few[best[part]]))
            i, j = members[i], members[j]
            kept = i != j
            yield np.minimum(i, j)[kept], np.maximum(i, j)[kept]


def _portions(products: Rows) -> Iterator[slice]:
    """Yield slices of products, (n,), each of which sums to little more than `_AT_ONCE`."""
    edges = np.flatnonzero(np.diff(np.cumsum(products) // _AT_ONCE, prepend=-1))
    for start, stop in zip(edges, np.append(edges, len(products))[1:], strict=True):
        yield slice(int(start), int(stop))


def _crossed(left: tuple[Rows, Rows], right: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
    """Return every pair of a position in range n of `left` and one in range n of `right`; ranges are start and size."""
    sizes = left[1] * right[1]
    group = np.repeat(np.arange(len(sizes)), sizes)
    within = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return left[0][group] + within // right[1][group], right[0][group] + within % right[1][group]


def _by_content(facts: ImageFacts, rank: Rows) -> tuple[Rows, Rows]:
    """The best row with the same bytes as each, and the rows for which that is another."""
    _, leading, group = np.unique(facts.contents[facts.order], return_index=True, return_inverse=True)
    first = np.empty(len(rank), dtype=np.int64)
    first[facts.order] = facts.order[leading[group]]
    return first, np.flatnonzero(first != np.arange(len(first)))


def _exact(better: Rows, other: Rows) -> AlikePairs:
    count = len(better)
    return AlikePairs(
        better=better,
        other=other,
        grades=np.full(count, EXACT, dtype=np.uint8),
        apart=np.zeros(count, dtype=np.uint8),
        cosines=np.ones(count, dtype=np.float32),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Comparison:
    """Compares the images of a version; `rows` are those with a hash and content of their own, from the best."""

    version: IndexVersion
    facts: ImageFacts
    rows: Rows
    loosest: int

    def pairs(self) -> Iterator[AlikePairs]:
        """Yield the resaved and similar pairs."""
        hashes, distance = self.facts.hashes[self.rows], self._distance
        for i, j in candidates(hashes, distance):
            yield self._graded(i, j, bits_apart(hashes[i], hashes[j]))
        if self.loosest != SIMILAR:
            return
        turned, count = mirrored(hashes), len(hashes)
        for i, j in candidates(np.concatenate([hashes, turned]), distance):
            across = (i < j - count) & (i < count)
            i, j = i[across], j[across] - count
            apart = bits_apart(hashes[i], turned[j])
            nearer = apart < bits_apart(hashes[i], hashes[j])
            yield self._graded(i[nearer], j[nearer], apart[nearer], turned=True)

    @property
    def rule(self) -> CopyRule:
        """What tells copies here."""
        return copy_rule(self.version.manifest.encoder)

    @property
    def _distance(self) -> int:
        return self.rule.reach(self.loosest if len(self.rows) <= EXHAUSTIVE else RESAVED)

    def _graded(self, i: Rows, j: Rows, apart: NDArray[np.uint8], *, turned: bool = False) -> AlikePairs:
        better, other = self.rows[i], self.rows[j]
        cosines = cosines_between(self.version, better, other)
        shape = self.facts.sizes.take(better).beside(self.facts.sizes.take(other))
        grades = self.rule.grades(apart, cosines, shape, np.zeros(len(i), dtype=np.bool_))
        if turned:
            grades = np.maximum(grades, SIMILAR)
        kept = grades <= self.loosest
        return AlikePairs(
            better=better[kept], other=other[kept], grades=grades[kept], apart=apart[kept], cosines=cosines[kept]
        )


def _numbers(table: pa.Table, name: str, absent: float) -> NDArray[np.float64]:
    column = pc.fill_null(table.column(name).cast(pa.float64(), safe=False), absent)
    return np.asarray(column)


def _numbered(texts: pa.ChunkedArray) -> Rows:
    """A number for each text, equal for equal ones; each that is missing has a number of its own."""
    codes = np.asarray(pc.fill_null(texts.combine_chunks().dictionary_encode().indices, -1)).astype(np.int64)
    missing = np.flatnonzero(codes < 0)
    codes[missing] = -1 - missing
    return codes
