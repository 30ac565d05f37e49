"""The report of a finished build, as JSON and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from storage import Manifest

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
        """What an update did to each collection, by the names of `indexer.changes.Changes`; None for other builds."""
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
        return "\n".join([*lines, *self.notes])


def changes_text(changes: Mapping[str, Mapping[str, int]]) -> str:
    """Return what an update did, as one line; collections that were and are empty are left out."""
    return "; ".join(f"{name} {_changes_text(one)}" for name, one in changes.items() if any(one.values())) or "nothing"


def _changes_text(one: Mapping[str, int]) -> str:
    parts = [f"{one[name]:,} {name}" for name in ("added", "changed", "moved", "removed", "kept") if one[name]]
    return ", ".join(parts) + (f" ({one['relabelled']:,} with other columns)" if one["relabelled"] else "")
