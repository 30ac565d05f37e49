"""What a build does to the version before it: items added, changed, moved, removed and kept, and when that is too much.

A build whose result is much poorer than the current version, as when a drive with the images is not mounted, is refused
unless the caller insists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage import IndexVersion, Manifest
from storage.catalog import Catalog
from storage.schema import COLLECTIONS, Collection, Counts

from .config import BuildConfig
from .corpus.item import shown
from .encode.shards import Corpus
from .errors import ShrinkError

# More than this share of what the current version holds may not go without being insisted upon.
MOST_LOST = 0.5
_NEXT_STEP = (
    "Nothing was published. See that the images are where the corpus names them (a drive that is not mounted?), and "
    "that CORPUS, --root, --image and --text are meant; --allow-shrink publishes it all the same"
)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How many items of one collection are what they were in the version before.

    Attributes:
        added: New ids with content that the version before did not have.
        changed: Known ids with other content: other bytes of the image, other words of the text.
        moved: Known content under another id or in another place, as after a folder was renamed.
        removed: Items that are gone, or that could not be indexed any more.
        kept: Items with their id, place and content.
        relabelled: How many of the kept ones have other metadata, split or caption.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    kept: int = 0
    relabelled: int = 0


def changes_since(before: IndexVersion, catalog: Path) -> dict[Collection, Changes]:
    """Return what the catalog of a draft changes of an open version."""
    with Catalog.open(catalog) as after:
        return {name: _changes(before.catalog.row_hashes(name), after.row_hashes(name)) for name in COLLECTIONS}


def _changes(old: Mapping[str, NDArray[np.uint64]], new: Mapping[str, NDArray[np.uint64]]) -> Changes:
    _, left, right = np.intersect1d(old["id"], new["id"], assume_unique=True, return_indices=True)
    same = old["content"][left] == new["content"][right]
    in_place = same & (old["place"][left] == new["place"][right])
    relabelled = in_place & (old["row"][left] != new["row"][right])
    gone, come = np.delete(old["content"], left), np.delete(new["content"], right)
    moved = _shared(gone, come)
    return Changes(
        added=len(come) - moved,
        changed=int((~same).sum()),
        moved=moved + int((same & ~in_place).sum()),
        removed=len(gone) - moved,
        kept=int(in_place.sum()),
        relabelled=int(relabelled.sum()),
    )


def _shared(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> int:
    """Return how many values of one array are in the other too, each as often as it is in both."""
    values, counts = np.unique(left, return_counts=True)
    others, other_counts = np.unique(right, return_counts=True)
    _, at, other_at = np.intersect1d(values, others, assume_unique=True, return_indices=True)
    return int(np.minimum(counts[at], other_counts[other_at]).sum())


@dataclass(frozen=True, kw_only=True)
class ShrinkGuard:
    """Refuses a build that would replace a good version by a much poorer one, or an image corpus by its texts alone."""

    before: Manifest | None
    config: BuildConfig

    def check_survey(self, corpus: Corpus) -> None:
        """Refuse before anything is encoded what cannot come out well.

        Raises:
            ShrinkError: No image file is there, or too few items are left.
        """
        if self.config.allow_shrink:
            return
        if corpus.images and corpus.absent == corpus.images:
            raise ShrinkError(
                f"none of the {corpus.images:,} image files that the corpus names is there, the first is "
                f"{corpus.first_absent!r}. {_NEXT_STEP}"
            )
        self._check_counts({"images": corpus.images - corpus.absent, "texts": corpus.texts})

    def check_result(self, counts: Counts, catalog: Path, changes: Mapping[Collection, Changes] | None = None) -> None:
        """Refuse what came out, before it is published.

        Raises:
            ShrinkError: No image could be read, or too few items of the version before are left.
        """
        if self.config.allow_shrink:
            return
        if not counts.images and counts.rejected:
            _check_rejected(catalog)
        self._check_counts({name: getattr(counts, name) for name in ("images", "texts", "pairs")})
        for name, one in (changes or {}).items():
            self._check_lost(name, one.removed, f"{one.removed:,} would go")

    def _check_counts(self, left: Mapping[str, int]) -> None:
        for name, count in left.items():
            held = getattr(self.before.counts, name) if self.before else 0
            self._check_lost(name, held - count, f"{count:,} would be left")

    def _check_lost(self, name: str, lost: int, what: str) -> None:
        held = getattr(self.before.counts, name) if self.before else 0
        if self.before is not None and lost > MOST_LOST * held:
            raise ShrinkError(f"version {self.before.version} holds {held:,} {name}, of which {what}. {_NEXT_STEP}")


def _check_rejected(catalog: Path) -> None:
    with Catalog.open(catalog) as opened:
        rejected = [row for row in opened.table("rejected").to_pylist() if row["collection"] == "images"]
    if rejected:
        raise ShrinkError(
            f"none of {len(rejected):,} images could be indexed; the first, {shown(rejected[0]['uri'], 200)!r}, fell "
            f"out: {rejected[0]['detail'].rstrip('.')}. {_NEXT_STEP}"
        )
