"""Leaks between splits: items of the measured split that stand in another one too, and what recall is without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.duplicates.pairs import ImageFacts, copies_between
from storage.duplicates.texts import normalized
from storage.schema import COLLECTIONS, Collection
from storage.version import IndexVersion

from .ground_truth import GroundTruth, Rows, split_column

_EXAMPLES = 10
_NO_SPLIT = "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class SideLeaks:
    """The leaks of one collection.

    Attributes:
        positions: (n,) positions in the gallery of the items that stand outside of the split too, ascending.
        others: (n,) for each the row id of one such item outside.
        splits: How many of them stand in each other split.
        rows: Row ids of the gallery.
    """

    positions: Rows
    others: Rows
    splits: dict[str, int]
    rows: Rows

    @classmethod
    def of(
        cls, version: IndexVersion, collection: Collection, column: str, rows: Rows, pairs: tuple[Rows, Rows]
    ) -> SideLeaks:
        """Take the pairs of an item of a split and a duplicate of it outside.

        Args:
            version: An open version.
            collection: `images` or `texts`.
            column: The one with the splits.
            rows: Row ids of the split, ascending.
            pairs: Row ids of the items, and of their duplicates, (p,) each.
        """
        here, there = pairs
        leaked, first = np.unique(here, return_index=True)
        names = [entry[column] for entry in version.catalog.rows(collection, there, [column])]
        counted = Counter(name for _, name in {*zip(here.tolist(), names, strict=True)})
        splits = {name or _NO_SPLIT: counted[name] for name in sorted(counted, key=str)}
        return cls(positions=np.searchsorted(rows, leaked), others=there[first], splits=splits, rows=rows)

    def to_json(self, version: IndexVersion, collection: Collection) -> dict[str, Any]:
        """Return counts, and up to ten examples."""
        shown = slice(_EXAMPLES)
        catalog = version.catalog
        pairs = [
            [entry["item_id"] for entry in catalog.rows(collection, rows, ["item_id"])]
            for rows in (self.rows[self.positions[shown]], self.others[shown])
        ]
        return {
            "count": len(self.positions),
            "of": len(self.rows),
            "splits": self.splits,
            "examples": [{"item_id": here, "duplicate": there} for here, there in zip(*pairs, strict=True)],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaks:
    """What the measured split shares with the rest of the index.

    Attributes:
        sides: The leaks of images, by hash and vector, and of texts, by their words.
        hashed: Images of the split with a perceptual hash; of the others only equal bytes are found.
    """

    sides: dict[Collection, SideLeaks]
    hashed: int

    @classmethod
    def find(cls, version: IndexVersion, truth: GroundTruth, location: str) -> Leaks | None:
        """Return the leaks of the split that is measured; None where all of the index is."""
        if truth.split is None:
            return None
        rest = {
            name: np.setdiff1d(np.arange(version.vectors(name).rows), truth.rows[name], assume_unique=True)
            for name in COLLECTIONS
        }
        facts = ImageFacts.read(version)
        here, there = copies_between(version, facts, truth.rows["images"], rest["images"])
        texts = _repeated_texts(version, truth.rows["texts"], rest["texts"])
        found: dict[Collection, tuple[Rows, Rows]] = {"images": (here, there), "texts": texts}
        columns = {name: split_column(version, name, location, truth.split) for name in COLLECTIONS}
        sides = {
            name: SideLeaks.of(version, name, columns[name], truth.rows[name], pairs) for name, pairs in found.items()
        }
        return cls(sides=sides, hashed=int(facts.hashed[truth.rows["images"]].sum()))

    def kept(self, truth: GroundTruth) -> tuple[Rows, Rows, Rows]:
        """Return what is left: positions of images and of texts, and the pairs between them as positions in these.

        A leaked image goes with its texts, a leaked text alone.
        """
        images = np.ones(len(truth.rows["images"]), dtype=np.bool_)
        images[self.sides["images"].positions] = False
        texts = np.ones(len(truth.rows["texts"]), dtype=np.bool_)
        texts[truth.pairs[~images[truth.pairs[:, 0]], 1]] = False
        texts[self.sides["texts"].positions] = False
        pairs = truth.pairs[images[truth.pairs[:, 0]] & texts[truth.pairs[:, 1]]]
        numbered = np.stack([np.cumsum(images)[pairs[:, 0]] - 1, np.cumsum(texts)[pairs[:, 1]] - 1], axis=1)
        return np.flatnonzero(images), np.flatnonzero(texts), numbered

    def to_json(self, version: IndexVersion) -> dict[str, Any]:
        """Return counts and examples of both collections."""
        sides: dict[str, Any] = {name: side.to_json(version, name) for name, side in self.sides.items()}
        return {**sides, "hashed": self.hashed}


def _repeated_texts(version: IndexVersion, here: Rows, there: Rows) -> tuple[Rows, Rows]:
    """Return the texts of `here` that `there` has in the same words, and of these the first ones, as row ids (p,)."""
    texts = version.catalog.table("texts", ["caption"]).column("caption").to_pylist()
    first = {normalized(texts[row]): row for row in reversed(there.tolist()) if texts[row]}
    said = [(row, normalized(texts[row])) for row in here.tolist() if texts[row]]
    found = [(row, first[words]) for row, words in said if words in first]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def sentence(leaks: Mapping[str, Any], split: str) -> str:
    """Return in a sentence or two how many items leak, and where to."""
    told = [_told(leaks[name], name) for name in COLLECTIONS]
    unknown = leaks["images"]["of"] - leaks["hashed"]
    limit = f" {unknown:,} images have no perceptual hash: of these only equal bytes are found." if unknown else ""
    return f"Leaks: of split {split}, {' and '.join(told)} stand in another split too.{limit}"


def _told(side: Mapping[str, Any], name: str) -> str:
    where = f" ({', '.join(f'{split} {count:,}' for split, count in side['splits'].items())})" if side["splits"] else ""
    return f"{side['count']:,} of {side['of']:,} {name}{where}"
