"""Near-duplicates of an index: groups of images that are alike, the best one of each, as values, JSON and text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from storage.duplicates.grades import GRADES, Grade, copy_rule
from storage.duplicates.groups import Group, grouped
from storage.duplicates.pairs import ImageFacts, alike_pairs
from storage.version import IndexVersion

from .errors import SearchError

_COLUMNS = ("item_id", "uri", "width", "height", "file_bytes", "mtime_ns")
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class DuplicateItem:
    """One image of a group.

    Attributes:
        item_id: Its id.
        uri: Where it came from.
        width: Pixels across; None where that is not known, and so for what follows.
        height: Pixels down.
        file_bytes: Length of the file.
        modified: When the file was last modified, in UTC.
        grade: How it is alike to the best image of the group; None for that one itself.
        bits: Bits in which its hash differs from that of the best image, of a mirrored one after that was taken back.
        cosine: Of its vector and that of the best image.
    """

    item_id: str
    uri: str | None
    width: int | None
    height: int | None
    file_bytes: int | None
    modified: datetime | None
    grade: Grade | None = None
    bits: int | None = None
    cosine: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "item_id": self.item_id,
            "uri": self.uri,
            "width": self.width,
            "height": self.height,
            "file_bytes": self.file_bytes,
            "modified": self.modified and self.modified.isoformat(timespec="seconds"),
            "grade": self.grade,
            "bits": self.bits,
            "cosine": None if self.cosine is None else round(self.cosine, 4),
        }

    def about(self) -> str:
        """Return size, bytes and date in a few words."""
        size = f"{self.width} x {self.height}" if self.width and self.height else ""
        kilobytes = f"{self.file_bytes / 1000:,.0f} kB" if self.file_bytes else ""
        date = f"{self.modified:%Y-%m-%d}" if self.modified else ""
        return ", ".join(filter(None, (size, kilobytes, date)))

    def likeness(self) -> str:
        """Return how it is alike to the best image, `best` for that one itself."""
        if self.grade is None:
            return "best"
        return self.grade if self.grade == "exact" else f"{self.grade}, {self.bits} bits, cosine {self.cosine:.2f}"


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup:
    """Images that are alike: the best one first, then the others, the nearest to it first.

    Attributes:
        grade: The loosest grade in it.
        items: Two or more.
    """

    grade: Grade
    items: tuple[DuplicateItem, ...]

    @property
    def best(self) -> DuplicateItem:
        """The one with most pixels, then most bytes, then the oldest file."""
        return self.items[0]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; `best` is an item id."""
        return {"grade": self.grade, "best": self.best.item_id, "items": [item.to_json() for item in self.items]}


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The near-duplicates of a version.

    Attributes:
        location: The index.
        version: Its number.
        grade: The loosest grade that was looked for.
        images: Images in the version.
        hashed: Those with a perceptual hash; of the others only equal bytes are found.
        by_hash: Whether hashes tell what was resaved and cosines do not, since the vectors of the encoder change when
            an image is resized.
        groups: The largest first.
    """

    location: str
    version: int
    grade: Grade
    images: int
    hashed: int
    by_hash: bool
    groups: tuple[DuplicateGroup, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "index": {"path": self.location, "version": self.version},
            "grade": self.grade,
            "images": self.images,
            "hashed": self.hashed,
            "by_hash": self.by_hash,
            "groups": [group.to_json() for group in self.groups],
        }

    def summary(self) -> str:
        """Return the counts in a sentence or two."""
        counts = Counter(item.grade for group in self.groups for item in group.items[1:])
        told = ", ".join(f"{counts[grade]:,} {grade}" for grade in GRADES if counts[grade])
        found = f"{len(self.groups):,} groups among {self.images:,} images"
        words = [f"{found}: beside the best of each {told}." if told else f"{found}."]
        if self.hashed < self.images and self.grade != "exact":
            words.append(
                f"{self.images - self.hashed:,} images have no perceptual hash (no contrast, or indexed before there "
                "were any: build-index --update adds them); of these only equal bytes are found."
            )
        if self.by_hash and counts["resaved"]:
            words.append(
                "Resaved is told by the hashes: with this encoder the cosine of an image and its own thumbnail may be "
                "0.4, which says nothing against it."
            )
        return " ".join(words)

    def to_text(self) -> str:
        """Return the largest groups, a line an image, and what there is in all."""
        lines = [self.summary()]
        for group in self.groups[:_SHOWN]:
            lines += ["", f"{len(group.items):,} {group.grade}"]
            lines += [f"  {item.likeness():<30} {item.about():<34} {item.uri or item.item_id}" for item in group.items]
        if len(self.groups) > _SHOWN:
            lines += ["", f"and {len(self.groups) - _SHOWN:,} more groups; --output json gives them all"]
        return "\n".join(lines)


def find_duplicates(version: IndexVersion, location: str, grade: Grade = "resaved") -> Duplicates:
    """Return the groups of images of a version that are alike, up to a grade.

    Args:
        version: An open version.
        location: The index, for messages.
        grade: `exact` for equal bytes, `resaved` also for what was saved or resized again, `similar` also for crops,
            mirrored images, watermarks and what was taken a moment later.

    Raises:
        SearchError: The grade is none of these, or the version holds no images.
    """
    if grade not in GRADES:
        raise SearchError(f"grade={grade!r} is no grade of likeness; give one of {', '.join(GRADES)}")
    if "images" not in version.manifest.collections:
        raise SearchError(f"the index {location} holds no images, so there are no duplicates among them")
    facts = ImageFacts.read(version)
    groups = grouped(facts, alike_pairs(version, facts, GRADES.index(grade)))
    return Duplicates(
        location=location,
        version=version.number,
        grade=grade,
        images=len(facts.order),
        hashed=int(facts.hashed.sum()),
        by_hash=copy_rule(version.manifest.encoder).by_hash,
        groups=_with_items(version, groups),
    )


def _with_items(version: IndexVersion, groups: Sequence[Group]) -> tuple[DuplicateGroup, ...]:
    rows = [row for group in groups for row in (group.best, *(member.row for member in group.members))]
    known = {name for name, _ in version.catalog.columns("images")}
    entries = version.catalog.rows("images", rows, [name for name in _COLUMNS if name in known])
    by_row = dict(zip(rows, entries, strict=True))
    return tuple(
        DuplicateGroup(
            grade=GRADES[group.grade],
            items=(
                _item(by_row[group.best]),
                *(
                    _item(by_row[one.row], grade=GRADES[one.grade], bits=one.apart, cosine=one.cosine)
                    for one in group.members
                ),
            ),
        )
        for group in groups
    )


def _item(entry: dict[str, Any], **likeness: Any) -> DuplicateItem:
    ns = entry.pop("mtime_ns", None)
    modified = None if ns is None else datetime.fromtimestamp(ns / 1e9, UTC)
    return DuplicateItem(**entry, modified=modified, **likeness)
