"""Which items meet in a step: distinct images, some captions of each, and what is known not to match."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .errors import ExamplesError
from .examples import CaptionedImages, Content, ContentKey, Kind, PairSet, content_keys

# Two to tell apart on each side.
FEWEST_TO_SPLIT = 4
FEWEST_TO_MEASURE = 32
Sides = tuple[tuple[Kind, Sequence[Content]], tuple[Kind, Sequence[Content]]]


@dataclass(frozen=True, kw_only=True)
class Items:
    """Distinct contents of one kind; `keys` are equal exactly where contents are, `hashes` of images are perceptual."""

    kind: Kind
    contents: Sequence[Content]
    keys: Sequence[str]
    hashes: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.contents)

    def take(self, rows: np.ndarray) -> Items:
        """Return some of the items."""
        chosen = rows.tolist()
        contents, keys, hashes = ([values[i] for i in chosen] for values in (self.contents, self.keys, self.hashes))
        return Items(kind=self.kind, contents=contents, keys=keys, hashes=hashes)


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Two sides and the pairs between them.

    Attributes:
        left: Items of one side; of captioned images the images.
        right: Items of the other side; where both are of one kind, the same items in the same order.
        positives: (p, 2) int64 rows (left, right) that belong together, sorted, each once.
        negatives: (q, 2) rows that are known not to; may be none.
        families: (n,) where both sides are of one kind: items that matches connect, at whatever distance, share a
            number. They are no negatives of each other.
        unreadable: What was left out, a line each.
    """

    left: Items
    right: Items
    positives: np.ndarray
    negatives: np.ndarray
    families: np.ndarray | None = None
    unreadable: tuple[str, ...] = ()

    @cached_property
    def partners(self) -> list[np.ndarray]:
        """For each left item the right items that belong to it."""
        return _by_left(self.positives, len(self.left))

    @cached_property
    def known_negatives(self) -> list[np.ndarray]:
        """For each left item the right items that are known not to belong to it."""
        return _by_left(self.negatives, len(self.left))

    @cached_property
    def with_partners(self) -> np.ndarray:
        """The left items that have a partner."""
        return np.unique(self.positives[:, 0])

    @property
    def tells_apart(self) -> bool:
        """Whether some left item and some right item are negatives of each other."""
        if self.families is None:
            return len(self.positives) < len(self.left) * len(self.right)
        return len(self.negatives) > 0 or bool((self.families != self.families[0]).any())

    def block(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (n, m) bool `positives` and `ignored` of some left and some right items."""
        known = self.positives[:, 0] * len(self.right) + self.positives[:, 1]
        positives = np.isin(left[:, None] * len(self.right) + right, known)
        if self.families is None:
            return positives, np.zeros_like(positives)
        known = self.negatives[:, 0] * len(self.right) + self.negatives[:, 1]
        negatives = np.isin(left[:, None] * len(self.right) + right, known)
        return positives, (self.families[left][:, None] == self.families[right]) & ~positives & ~negatives

    def split(self, share: float, seed: int) -> tuple[Pairing, Pairing]:
        """Return (train, val): no left item of one is in the other, and of one kind no family either.

        Raises:
            ExamplesError: There are fewer than four such items.
        """
        groups = np.arange(len(self.left)) if self.families is None else self.families
        names = np.unique(groups[self.with_partners])
        if len(names) < FEWEST_TO_SPLIT:
            what = f"{len(names)} distinct {self.left.kind}s with partners"
            raise ExamplesError(f"{what} are too few to hold some back for validation; give 4 or more, or give val")
        held = min(len(names) - 2, max(2, round(share * len(names))))
        inside = np.isin(groups, np.random.default_rng(seed).permutation(names)[:held])
        return self._only(~inside), self._only(inside)

    def groups(self, seed: int) -> list[np.ndarray]:
        """Return the left rows that have partners, in a random order; of one kind a family each, else one row each."""
        if self.families is None:
            return list(np.random.default_rng((seed, 1)).permutation(self.with_partners)[:, None])
        names = np.random.default_rng((seed, 1)).permutation(np.unique(self.families[self.with_partners]))
        return [np.flatnonzero(self.families == name) for name in names]

    def companions(self, left: np.ndarray) -> np.ndarray:
        """Return the right rows that are known to belong, or not to belong, to some left rows."""
        return np.unique(
            np.concatenate([known[row] for row in left for known in (self.partners, self.known_negatives)])
        )

    def part(self, left: np.ndarray) -> tuple[Pairing, tuple[np.ndarray, np.ndarray]]:
        """Return what some left rows and their companions make, and the rows that these are, ascending."""
        kept = np.zeros(len(self.left), dtype=np.bool_)
        kept[left] = True
        return self._only(kept), self._kept_rows(kept)

    def _only(self, kept_left: np.ndarray) -> Pairing:
        sides = self._kept_rows(kept_left)
        numbered = [
            np.stack([np.searchsorted(sides[side], rows[:, side]) for side in (0, 1)], 1)
            for rows in self._pairs_of(kept_left)
        ]
        families = None if self.families is None else self.families[sides[0]]
        left, right = self.left.take(sides[0]), self.right.take(sides[1])
        return Pairing(left=left, right=right, positives=numbered[0], negatives=numbered[1], families=families)

    def _kept_rows(self, kept_left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.families is not None:
            kept = np.flatnonzero(kept_left)
            return kept, kept
        pairs = np.concatenate(self._pairs_of(kept_left))
        return np.unique(pairs[:, 0]), np.unique(pairs[:, 1])

    def _pairs_of(self, kept_left: np.ndarray) -> list[np.ndarray]:
        pairs = [rows[kept_left[rows[:, 0]]] for rows in (self.positives, self.negatives)]
        return pairs if self.families is None else [rows[kept_left[rows[:, 1]]] for rows in pairs]


def pair_captions(examples: CaptionedImages, role: str = "train") -> Pairing:
    """Return images (left) and captions (right); images that cannot be decoded are left out and named.

    Raises:
        ExamplesError: No image is left, or more than 5 % cannot be decoded.
    """
    captions = [caption for texts in examples.captions for caption in texts]
    image_rows = np.repeat(np.arange(len(examples)), [len(texts) for texts in examples.captions])
    sides: Sides = (("image", examples.images), ("text", captions))
    links = np.stack([image_rows, np.arange(len(captions)), np.ones_like(image_rows)], axis=1)
    pairing = _pairing(sides, links, role)
    return replace(pairing, unreadable=examples.left_out + pairing.unreadable)


def pair_pairs(pairs: PairSet, role: str = "train") -> Pairing:
    """Return the items of both sides and how they are labelled; a pair labelled both ways counts as a match.

    Raises:
        ExamplesError: No pair is labelled 1, or images cannot be decoded.
    """
    labels = np.ones(len(pairs), np.int64) if pairs.labels is None else np.asarray(pairs.labels, np.int64)
    rows = np.arange(len(pairs))
    sides: Sides = ((pairs.left_kind, pairs.left), (pairs.right_kind, pairs.right))
    return _pairing(sides, np.stack([rows, rows, labels], axis=1), role)


def _pairing(sides: Sides, links: np.ndarray, role: str) -> Pairing:
    """Return the pairing of (p, 3) links: left row, right row, label."""
    readable_keys = [content_keys(kind, contents, role) for kind, contents in sides]
    problems = tuple(problem for _, lines in readable_keys for problem in lines)
    readable = [
        readable_keys[0][0][left] is not None and readable_keys[1][0][right] is not None for left, right, _ in links
    ]
    links = links[np.array(readable, dtype=bool)]
    one_kind = sides[0][0] == sides[1][0]
    pools = [_Pool(sides[0][0])]
    pools.append(pools[0] if one_kind else _Pool(sides[1][0]))
    numbered = [
        [pools[side].number(readable_keys[side][0][row], sides[side][1][row]) for row in links[:, side]]
        for side in (0, 1)
    ]
    rows = np.stack([np.array(numbered[0], np.int64), np.array(numbered[1], np.int64), links[:, 2]], axis=1)
    if one_kind:
        rows = _both_ways(rows)
    positives, negatives = (np.unique(rows[rows[:, 2] == label][:, :2], axis=0) for label in (1, 0))
    if not len(positives):
        raise ExamplesError(f"the {role} examples hold no two different contents that match; give pairs that do")
    return Pairing(
        left=pools[0].items(),
        right=pools[1].items(),
        positives=positives,
        negatives=negatives[~_in_rows(negatives, positives)],
        families=_families(positives, len(pools[0].contents)) if one_kind else None,
        unreadable=problems,
    )


class _Pool:
    """Contents, each once."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.contents: list[Content] = []
        self.numbers: dict[ContentKey, int] = {}

    def number(self, key: ContentKey | None, content: Content) -> int:
        """Return the number of a content, which is new or known."""
        number = self.numbers.setdefault(key or ContentKey(""), len(self.contents))
        if number == len(self.contents):
            self.contents.append(content)
        return number

    def items(self) -> Items:
        keys, hashes = zip(*self.numbers, strict=True)
        return Items(kind=self.kind, contents=self.contents, keys=keys, hashes=hashes)


def _both_ways(rows: np.ndarray) -> np.ndarray:
    """Return each pair in both directions, without pairs of a content with itself."""
    both = np.concatenate([rows, rows[:, [1, 0, 2]]])
    return np.asarray(both[both[:, 0] != both[:, 1]])


def _by_left(pairs: np.ndarray, count: int) -> list[np.ndarray]:
    ends = np.cumsum(np.bincount(pairs[:, 0], minlength=count)) if len(pairs) else np.zeros(count, np.int64)
    return np.split(pairs[:, 1], ends)[:count]


def _in_rows(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    width = int(known.max(initial=0)) + int(rows.max(initial=0)) + 1
    return np.isin(rows[:, 0] * width + rows[:, 1], known[:, 0] * width + known[:, 1])


def _families(pairs: np.ndarray, count: int) -> np.ndarray:
    """Number the connected parts: each item takes the lowest number around it until nothing changes."""
    numbers = np.arange(count)
    while True:
        before = numbers.copy()
        np.minimum.at(numbers, pairs[:, 0], before[pairs[:, 1]])
        numbers = numbers[numbers]
        if np.array_equal(numbers, before):
            return numbers


# Labelled negatives of one item that are drawn into a step.
NEGATIVES_DRAWN = 2


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one step.

    Attributes:
        left: (n,) distinct left rows.
        right: (m,) distinct right rows.
        views: (n,) which view of each left item: 0 the plain one.
        positives: (n, m) bool.
        ignored: (n, m) bool, neither positive nor negative.
    """

    left: np.ndarray
    right: np.ndarray
    views: np.ndarray
    positives: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Batches of a pairing; an epoch's batches depend on nothing but the seed and its number.

    Attributes:
        pairing: What to draw from.
        batch_size: Left items a batch; divided evenly, so no batch is much smaller than the others.
        captions: Partners drawn for each left item.
        views: Augmented views to draw from beside the plain one; 0 for the plain one only.
        fresh: Whether each epoch has augmented views of its own.
        seed: The same seed draws the same.
    """

    pairing: Pairing
    batch_size: int
    captions: int
    views: int
    fresh: bool
    seed: int

    @property
    def steps(self) -> int:
        """Steps an epoch; each has two left items or more, as one alone has no negatives."""
        count = len(self.pairing.with_partners)
        return max(1, min(round(count / self.batch_size), count // 2))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on."""
        rng = np.random.default_rng((self.seed, number))
        order = np.array_split(rng.permutation(self.pairing.with_partners), self.steps)
        for step in range(start, self.steps):
            yield self._batch(order[step], number, np.random.default_rng((self.seed, number, step)))

    def _batch(self, left: np.ndarray, number: int, rng: np.random.Generator) -> Batch:
        pairing = self.pairing
        chosen = [_some(pairing.partners[row], self.captions, rng) for row in left]
        chosen += (
            [_some(pairing.known_negatives[row], NEGATIVES_DRAWN, rng) for row in left]
            if len(pairing.negatives)
            else []
        )
        right = np.unique(np.concatenate(chosen))
        views = rng.integers(0, self.views + 1, len(left)) if self.views else np.zeros(len(left), np.int64)
        if self.fresh:
            views = np.where(views > 0, views + number * self.views, 0)
        positives, ignored = pairing.block(left, right)
        return Batch(left=left, right=right, views=views, positives=positives, ignored=ignored)


@dataclass(frozen=True, kw_only=True)
class Announced:
    """The batches of a sampler, each announced before the `ahead` batches in front of it are taken.

    Attributes:
        sampler: Draws them.
        announce: Is told of each batch of an epoch, in order, so that its images can be decoded meanwhile.
        ahead: How many batches lie between; 0 announces a batch right before it is taken.
    """

    sampler: Sampler
    announce: Callable[[Batch], None]
    ahead: int

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.sampler.steps

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on."""
        announced: deque[Batch] = deque()
        for batch in self.sampler.epoch(number, start):
            self.announce(batch)
            announced.append(batch)
            if len(announced) > self.ahead:
                yield announced.popleft()
        yield from announced


def _some(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else rng.choice(rows, count, replace=False)
