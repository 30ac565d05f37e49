"""The report of a finished build, as JSON and for people, with what an update changed."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import IndexVersion, Manifest
from storage.catalog import Catalog
from storage.files.canonical_json import to_plain
from storage.schema import COLLECTIONS, Collection, Counts

from .config import BuildConfig
from .corpus.item import shown
from .encode.known_items import filled_columns
from .encode.shards import Corpus
from .errors import ShrinkError

UNCHANGED = {"added": 0, "changed": 0, "moved": 0, "removed": 0, "kept": 0, "relabelled": 0}


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """The published version and how it came about.

    `published` is False where there was nothing to do: an update found no change, or this very build had published
    already and was stopped while it tidied up. `version` is then the current one.
    """

    path: Path
    version: int
    published: bool
    manifest: Manifest
    seconds: float
    notes: tuple[str, ...] = ()
    rejected: dict[str, int] = field(default_factory=dict)

    @property
    def changes(self) -> Mapping[str, Mapping[str, int]] | None:
        """What an update did to each collection, by the names of `Changes`; None for other builds."""
        if self.published:
            return self.manifest.build.get("changes")
        counts = self.manifest.counts
        return {"images": {**UNCHANGED, "kept": counts.images}, "texts": {**UNCHANGED, "kept": counts.texts}}

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        counts = self.manifest.counts
        return {
            "path": str(self.path),
            "version": self.version,
            "published": self.published,
            "images": counts.images,
            "texts": counts.texts,
            "pairs": counts.pairs,
            "changes": self.changes,
            "rejected": counts.rejected,
            "rejected_by_reason": self.rejected,
            "seconds": round(self.seconds, 2),
            "notes": list(self.notes),
            "encoding": asdict(self.manifest.encoding),
            "rounding": to_plain(self.manifest.rounding),
            "corpus": asdict(self.manifest.corpus) if self.manifest.corpus else None,
            "build": dict(self.manifest.build),
        }

    def to_text(self) -> str:
        """Return the report for people."""
        counts = self.manifest.counts
        what = "published" if self.published else "nothing has changed, still"
        lines = [
            f"{self.path}: {what} version {self.version} with {counts.images:,} images, {counts.texts:,} texts and "
            f"{counts.pairs:,} pairs in {self.seconds:.1f} s"
        ]
        if self.published and self.changes:
            lines.append(f"since version {self.manifest.parent}: {changes_text(self.changes)}")
        if counts.rejected:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.rejected.items()))
            lines.append(
                f"{counts.rejected:,} of {counts.items:,} items were rejected{': ' if reasons else ''}{reasons}; "
                f"`twinlens info {self.path} --rejected` lists them"
            )
        if self.manifest.rounding:
            lines.append(f"vectors at {rounding_text(to_plain(self.manifest.rounding))}")
        return "\n".join([*lines, *self.notes])


def rounding_text(rounding: Mapping[str, Mapping[str, float]]) -> str:
    """Return how far scores may be from those of float16 vectors, as JSON has it, in a few words."""
    within = " and ".join(f"{one['within']:.3f} ({name})" for name, one in rounding.items())
    return f"one byte a value: scores are within {within} of those of float16 vectors"


def changes_text(changes: Mapping[str, Mapping[str, int]]) -> str:
    """Return what an update did, as one line; collections that were and are empty are left out."""
    return "; ".join(f"{name} {_changes_text(one)}" for name, one in changes.items() if any(one.values())) or "nothing"


def _changes_text(one: Mapping[str, int]) -> str:
    parts = [f"{one[name]:,} {name}" for name in ("added", "changed", "moved", "removed", "kept") if one[name]]
    return ", ".join(parts) + (f" ({one['relabelled']:,} with other columns)" if one["relabelled"] else "")


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


def changes_since(before: IndexVersion, catalog: Path, filled: Set[str]) -> dict[Collection, Changes]:
    """Return what the catalog of a draft, whose columns `filled` come from its images, changes of an open version.

    Those columns follow from the contents: an index that has them anew says no more of its items than before.
    """
    known = filled_columns(before.manifest)
    with Catalog.open(catalog) as after:
        return {
            name: _changes(before.catalog.row_hashes(name, known), after.row_hashes(name, filled))
            for name in COLLECTIONS
        }


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
