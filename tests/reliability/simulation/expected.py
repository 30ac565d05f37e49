"""What the versions of a simulated index must hold: plain Python values, and exact search over them by numpy."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from filter_fuzz import WORDS, Row, fact
from numpy.typing import NDArray

from storage.one_byte import decode_float16, encode
from storage.schema import AnnKind, Collection

Ids = NDArray[np.int64]
NAMES = (*(f"photo-{number}" for number in range(24)), "it's", "日本.jpg", "a b/c.png", "%", "ünï", '"q"')
SHADES = ("red", "green", "blue", "dark", "light")


@dataclass(frozen=True, kw_only=True)
class Half:
    """One collection: for each row its item id, vector (n, dim) float16, caption, checksum and metadata."""

    ids: tuple[str, ...]
    vectors: NDArray[np.float16]
    captions: tuple[str | None, ...]
    hashes: tuple[str, ...]
    facts: tuple[Row, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def ranking(self, queries: NDArray[np.float32], k: int, rows: Sequence[int] | None = None) -> tuple[Ids, Any]:
        """The best `k` of these rows for each query, padded with -1 and -inf: scores down, then row ids up."""
        allowed = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        ids = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for line, query in enumerate(queries):
            found = self.scores(query)[allowed]
            order = np.lexsort((allowed, -found))[:k]
            ids[line, : len(order)], scores[line, : len(order)] = allowed[order], found[order]
        return ids, scores

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """The cosine of every row with a query, added up in the order that the page on the format states."""
        products = self.vectors.astype(np.float32) * query
        sums = np.zeros((len(products), 64), dtype=np.float32)
        for start in range(0, products.shape[1], 64):
            part = products[:, start : start + 64]
            sums[:, : part.shape[1]] += part
        for half in (32, 16, 8, 4, 2, 1):
            sums = sums[:, :half] + sums[:, half:]
        return sums[:, 0]

    def copies(self) -> set[frozenset[str]]:
        """The groups of two or more items whose bytes are equal."""
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for item_id, digest in zip(self.ids, self.hashes, strict=True):
            groups[digest].append(item_id)
        return {frozenset(group) for group in groups.values() if len(group) > 1}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What one version holds.

    Attributes:
        halves: Its collections.
        pairs: Row of an image, row of a text.
        rejected: Items that could not be indexed.
        kinds: Approximate index of each collection.
        towers: Bytes of the encoder's towers by the name of their file.
        words: Whether there is a lexical index.
        lost: For each collection, where a value takes one byte, how much of a vector that took; else empty.
        corpus: For a version built from the folder of images: path to checksum.
    """

    halves: Mapping[Collection, Half]
    pairs: frozenset[tuple[int, int]] = frozenset()
    rejected: int = 0
    kinds: Mapping[Collection, AnnKind] = field(default_factory=dict)
    towers: Mapping[str, bytes] = field(default_factory=dict)
    words: bool = False
    lost: Mapping[Collection, float] = field(default_factory=dict)
    corpus: Mapping[str, str] | None = None

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return next(iter(self.halves.values())).vectors.shape[1]

    def in_one_byte(self) -> Content:
        """The same with vectors that are stored at one byte a value."""
        encoded = {name: encode(half.vectors) for name, half in self.halves.items()}
        halves = {
            name: replace(half, vectors=decode_float16(encoded[name].numbers, encoded[name].scales))
            for name, half in self.halves.items()
        }
        return replace(self, halves=halves, lost={name: one.lost for name, one in encoded.items()})

    def rows(self, collection: Collection) -> int:
        """How many items a collection has."""
        return len(self.halves[collection]) if collection in self.halves else 0


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Rows at unit length."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def made_up(chance: random.Random) -> Content:
    """A content of ready-made vectors: 4 to 16 dimensions, up to 30 rows a half, now and then equal vectors."""
    dim = chance.choice((4, 5, 8, 16))
    halves: dict[Collection, Half] = {"images": _half(chance, dim, chance.randrange(1, 25), facts=True)}
    if chance.random() < 0.8:
        halves["texts"] = _half(chance, dim, chance.randrange(1, 31))
    pairs = frozenset()
    if "texts" in halves:
        rows = [range(len(halves["images"])), range(len(halves["texts"]))]
        pairs = frozenset((chance.choice(rows[0]), chance.choice(rows[1])) for _ in range(chance.randrange(12)))
    return _dressed(chance, Content(halves=halves, pairs=pairs, rejected=chance.choice((0, 0, 1, 3))))


def changed(chance: random.Random, before: Content) -> Content:
    """A content after an update: images added, changed, removed, and others under another id."""
    half = before.halves["images"]
    rows = [row for row in range(len(half)) if chance.random() < 0.8] or [0]
    fresh = _half(chance, before.dim, chance.randrange(1, 6), facts=True)
    known = {half.ids[row] for row in rows}
    added = [row for row in range(len(fresh)) if fresh.ids[row] not in known]
    ids = [half.ids[row] for row in rows]
    free = [name for name in NAMES if name not in known and name not in fresh.ids]
    if free and chance.random() < 0.5:
        ids[chance.randrange(len(ids))] = chance.choice(free)
    vectors = np.concatenate([half.vectors[rows], fresh.vectors[added]])
    if chance.random() < 0.5:
        vectors[chance.randrange(len(rows))] = fresh.vectors[0]
    images = Half(
        ids=(*ids, *(fresh.ids[row] for row in added)),
        vectors=vectors,
        captions=_both(half.captions, rows, fresh.captions, added),
        hashes=_both(half.hashes, rows, fresh.hashes, added),
        facts=_both(half.facts, rows, fresh.facts, added),
    )
    place = {row: number for number, row in enumerate(rows)}
    pairs = frozenset((place[image], text) for image, text in before.pairs if image in place)
    halves: dict[Collection, Half] = {**before.halves, "images": images}
    return _dressed(chance, Content(halves=halves, pairs=pairs, rejected=before.rejected))


def _both(left: Sequence[Any], rows: Sequence[int], right: Sequence[Any], others: Sequence[int]) -> tuple[Any, ...]:
    return (*(left[row] for row in rows), *(right[row] for row in others))


def _half(chance: random.Random, dim: int, rows: int, *, facts: bool = False) -> Half:
    vectors = unit(np.random.default_rng(chance.getrandbits(64)).standard_normal((rows, dim))).astype(np.float16)
    if rows > 2 and chance.random() < 0.3:  # equal scores are then told apart by the row
        vectors[chance.randrange(rows)] = vectors[chance.randrange(rows)]
    kinds = chance.choice((3, 1000))  # few contents: copies
    return Half(
        ids=tuple(chance.sample(NAMES, rows)),
        vectors=vectors,
        captions=tuple(_caption(chance) for _ in range(rows)),
        hashes=tuple(hashlib.sha256(b"%d" % chance.randrange(kinds)).hexdigest() for _ in range(rows)),
        facts=tuple(fact(chance) for _ in range(rows)) if facts else (),
    )


def _caption(chance: random.Random) -> str | None:
    if chance.random() < 0.2:
        return None
    return " ".join(chance.choice((*SHADES, *WORDS)) for _ in range(chance.randrange(1, 4)))


def _dressed(chance: random.Random, content: Content) -> Content:
    """The content with approximate indexes, a lexical index and towers, or without."""
    towers: dict[str, bytes] = {}
    if chance.random() < 0.2:
        towers = {"text_tower/weights.safetensors": chance.randbytes(200), "text_tower/tokenizer.json": b"{}"}
    dressed = Content(
        halves=content.halves,
        pairs=content.pairs,
        rejected=content.rejected,
        kinds={name: chance.choice(("flat", "hnsw")) for name in content.halves},
        towers=towers,
        words=chance.random() < 0.3,
    )
    return dressed.in_one_byte() if len("".join(content.halves["images"].ids)) % 4 == 0 else dressed
