"""An index that is compared with others: its galleries by item id, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.schema import COLLECTIONS, Collection
from storage.version import IndexVersion

from .ground_truth import GroundTruth, Rows

# What an item says of its content: its words, or the digest of its bytes.
_CONTENT: Mapping[Collection, str] = {"images": "sha256", "texts": "caption"}
_OTHER: Mapping[Collection, str] = {"images": "other bytes", "texts": "other words"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Entrant:
    """One open index among those that are compared.

    Attributes:
        version: The open version.
        location: The index, for messages.
        label: What it is called in tables.
        truth: Its galleries and pairs.
    """

    version: IndexVersion
    location: str
    label: str
    truth: GroundTruth

    @classmethod
    def read(cls, version: IndexVersion, location: str, label: str, split: str | None) -> Entrant:
        """Read the ground truth of an open version.

        Raises:
            EvaluationError: A collection is missing, nothing is paired, or the split is unknown.
        """
        return cls(version=version, location=location, label=label, truth=GroundTruth.read(version, location, split))

    def about(self) -> dict[str, Any]:
        """Return what is scored, as JSON values; `bytes_per_item` is that of the files of vectors, ids included."""
        manifest = self.version.manifest
        rows = {name: self.version.vectors(name).rows for name in COLLECTIONS}
        sizes = {name: manifest.files[f"{name}/vectors.arrow"].bytes / max(rows[name], 1) for name in COLLECTIONS}
        encoder, encoding = manifest.encoder, manifest.encoding
        return {
            "label": self.label,
            "index": {
                "path": self.location,
                "version": manifest.version,
                "encoder": encoder.spec if encoder else None,
                "prompt": encoding.prompt,
                "computed": {"device": encoding.device, "backend": encoding.backend, "precision": encoding.precision},
            },
            "counts": {
                **{name: len(self.truth.rows[name]) for name in COLLECTIONS},
                "pairs": len(self.truth.pairs),
                "rejected": manifest.counts.rejected,
            },
            "dim": self.version.vectors("images").dim,
            "vector_dtype": manifest.vector_dtype,
            "bytes_per_item": {name: round(size) for name, size in sizes.items()},
        }

    def vectors(self, collection: Collection, like: Entrant, chosen: Rows | None = None) -> NDArray[np.float32]:
        """Return the stored vectors of a gallery, (n, dim), in the order of that of `like`, which has the same ids.

        Args:
            collection: `images` or `texts`.
            like: The index whose order counts.
            chosen: Positions in the gallery of `like`; None for all.
        """
        positions = self.positions_of(collection, like)
        rows = self.truth.rows[collection][positions if chosen is None else positions[chosen]]
        return self.version.vectors(collection).gather(rows).astype(np.float32)

    def positions_of(self, collection: Collection, like: Entrant) -> Rows:
        """Return where the items of the gallery of `like`, in its order, stand in this one."""
        if like is self:
            return np.arange(len(self.ids[collection]), dtype=np.int64)
        at = self.position[collection]
        return np.array([at[item_id] for item_id in like.ids[collection]], dtype=np.int64)

    def items(self, collection: Collection, positions: Rows) -> list[dict[str, Any]]:
        """Return `item_id`, `uri` and `caption` of items of a gallery."""
        rows = self.truth.rows[collection][positions]
        return self.version.catalog.rows(collection, rows, ["item_id", "uri", "caption"])

    @cached_property
    def ids(self) -> dict[Collection, list[str]]:
        """The item ids of each gallery."""
        return {name: self._column(name, "item_id") for name in COLLECTIONS}

    @cached_property
    def position(self) -> dict[Collection, dict[str, int]]:
        """Where each id stands in its gallery."""
        return {name: {item_id: at for at, item_id in enumerate(ids)} for name, ids in self.ids.items()}

    def differences_from(self, other: Entrant) -> list[str]:
        """Return what makes the queries of two indexes other ones, a phrase each; empty where they are the same."""
        found = [phrase for name in COLLECTIONS for phrase in self._items_unlike(other, name)]
        return found or self._pairs_unlike(other)

    def _items_unlike(self, other: Entrant, collection: Collection) -> list[str]:
        mine, theirs = self.position[collection], other.position[collection]
        missing = [item_id for item_id in theirs if item_id not in mine]
        added = [item_id for item_id in mine if item_id not in theirs]
        changed = self._changed(other, collection)
        told = ((missing, "missing"), (added, "there alone"), (changed, f"with {_OTHER[collection]}"))
        return [f"{collection} {words}: {len(ids):,} (such as {ids[0]!r})" for ids, words in told if ids]

    def _changed(self, other: Entrant, collection: Collection) -> list[str]:
        """Ids of both galleries that stand for other content; content that one of them does not know is passed over."""
        mine, theirs = (one._column(collection, _CONTENT[collection]) for one in (self, other))
        at = other.position[collection]
        both = (
            (item_id, mine[here], theirs[at[item_id]])
            for here, item_id in enumerate(self.ids[collection])
            if item_id in at
        )
        return [item_id for item_id, one, another in both if one and another and one != another]

    def _pairs_unlike(self, other: Entrant) -> list[str]:
        mine, theirs = self._named_pairs(), other._named_pairs()
        told = ((theirs - mine, "missing"), (mine - theirs, "there alone"))
        return [
            f"pairs {words}: {len(pairs):,} (such as {' and '.join(map(repr, min(pairs)))})"
            for pairs, words in told
            if pairs
        ]

    def _named_pairs(self) -> set[tuple[str, str]]:
        images, texts = (self.ids[name] for name in COLLECTIONS)
        return {(images[image], texts[text]) for image, text in self.truth.pairs.tolist()}

    def _column(self, collection: Collection, name: str) -> list[Any]:
        rows = self.truth.rows[collection]
        if name not in {known for known, _ in self.version.catalog.columns(collection)}:
            return [None] * len(rows)
        values: list[Any] = self.version.catalog.table(collection, [name]).column(name).take(rows).to_pylist()
        return values
