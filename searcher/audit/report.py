"""Audit of an index: its facts, gathered as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from storage.arguments import check_arguments
from storage.partners import Partners
from storage.schema import COLLECTIONS, Collection
from storage.store import IndexStore
from storage.version import IndexVersion

from ..duplicates import Duplicates, find_duplicates
from ..errors import ParameterError
from ..originals import corpus_root
from .collection_map import draw_map
from .contents import (
    class_sizes,
    describe,
    equal_captions,
    leaks_across_splits,
    rejections,
    repeated_captions,
    without_partner,
)
from .neighborhoods import find_far, find_hubs
from .summary import to_text
from .suspicious import JudgedPairs, better_items, judge_pairs

MOST_LISTED = 100


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        facts: JSON's own types, as `docs/audit.md` lists them.
        root: The folder that the images' `uri` are relative to; None where it is not known.
    """

    facts: dict[str, Any]
    root: Path | None

    def to_text(self) -> str:
        """Return the counts, and the worst of each kind, a line each."""
        return to_text(self.facts)


def audit_index(
    path: str | Path, *, most: int = 24, version: int | None = None, root: str | Path | None = None
) -> Audit:
    """Look for what is probably wrong with the collection in an index: no encoder is loaded, nothing is changed.

    Args:
        path: The folder of the index.
        most: How many of each kind are listed, 1 to 100; all are counted.
        version: Its number; None for the current one.
        root: Where the images are, if the corpus was moved.

    Raises:
        ParameterError: `most` is out of range.
        StorageError: There is no index or no such version, or its files are damaged.
    """
    check_arguments(audit_index, locals(), ParameterError)
    if not 1 <= most <= MOST_LISTED:
        raise ParameterError(f"most={most!r} is not between 1 and {MOST_LISTED}; give how many findings to list")
    with IndexStore.open(Path(path)).open_version(version) as opened:
        return Audit(facts=_facts(opened, str(path), most), root=corpus_root(opened.manifest.corpus, root))


def _facts(version: IndexVersion, location: str, most: int) -> dict[str, Any]:
    held = [name for name in COLLECTIONS if name in version.manifest.collections and version.vectors(name).rows]
    counts = version.catalog.counts
    judged = judge_pairs(version)
    duplicates = find_duplicates(version, location) if "images" in held else None
    equal = equal_captions(version) if "texts" in held else []
    groups: dict[Collection, Sequence[Sequence[int]]] = {}
    if duplicates is not None:
        groups["images"] = _rows(version, duplicates)
    if "texts" in held:
        groups["texts"] = equal
    return {
        "index": {"path": location, "version": version.number},
        "counts": {name: counts[name] for name in ("images", "texts", "pairs", "rejected")},
        "suspicious": None if judged is None else _suspicious(version, judged, most),
        "unfit_images": None if judged is None else _unfit_images(version, judged, most),
        "duplicates": duplicates and _duplicates(duplicates, most),
        "leaks": leaks_across_splits(version, groups),
        "repeated_captions": repeated_captions(version, equal, most) if "texts" in held else None,
        "hubs": {name: _hubs(version, name, most) for name in held},
        "far": {name: _far(version, name, most) for name in held},
        "without_partner": {name: without_partner(version, name, most) for name in held} if counts["pairs"] else None,
        "map": draw_map(version, held[0]) if held else None,
        "columns": {name: class_sizes(version, name) for name in held},
        "rejected": rejections(version),
    }


def _suspicious(version: IndexVersion, judged: JudgedPairs, most: int) -> dict[str, Any]:
    worst = judged.worst(most)
    images, texts, fit = judged.images[worst], judged.texts[worst], judged.fit[worst]
    better_texts = better_items(version, "texts", images, fit)
    better_images = better_items(version, "images", texts, fit)
    pairs = zip(describe(version, "images", images), describe(version, "texts", texts), strict=True)
    return {
        "judged": len(judged.images),
        "of": judged.of,
        "pairs": [
            {
                "image": image,
                "text": text,
                **_values(judged, position),
                "better_texts": _with_fit(version, "texts", better_texts[number]),
                "better_images": _with_fit(version, "images", better_images[number]),
            }
            for number, (position, (image, text)) in enumerate(zip(worst.tolist(), pairs, strict=True))
        ],
    }


def _unfit_images(version: IndexVersion, judged: JudgedPairs, most: int) -> dict[str, Any]:
    rows, fit = judged.images_by_fit()
    rows = rows[:most]
    texts_of = Partners(judged.images, judged.texts, version.vectors("images").rows)
    positions, texts = texts_of.among(rows)
    captions = np.array(
        [item["caption"] or item["item_id"] for item in describe(version, "texts", texts)], dtype=object
    )
    return {
        "judged": len(fit),
        "images": [
            {**image, "fit": round(float(fit[number]), 2), "captions": captions[positions == number].tolist()}
            for number, image in enumerate(describe(version, "images", rows))
        ],
    }


def _values(judged: JudgedPairs, position: int) -> dict[str, Any]:
    company = float(judged.company[position])
    return {
        "score": round(float(judged.scores[position]), 2),
        "cosine": round(float(judged.cosines[position]), 4),
        "fit": round(float(judged.fit[position]), 2),
        "company": round(company, 2) if np.isfinite(company) else None,
    }


def _with_fit(version: IndexVersion, collection: Collection, found: list[tuple[int, float]]) -> list[dict[str, Any]]:
    items = describe(version, collection, [row for row, _ in found])
    return [{**item, "fit": round(fit, 2)} for item, (_, fit) in zip(items, found, strict=True)]


def _rows(version: IndexVersion, found: Duplicates) -> list[list[int]]:
    """The row ids of each group of duplicates."""
    rows = iter(
        version.vectors("images").find([item.item_id for group in found.groups for item in group.items]).tolist()
    )
    return [list(islice(rows, len(group.items))) for group in found.groups]


def _duplicates(found: Duplicates, most: int) -> dict[str, Any]:
    grades = Counter(item.grade for group in found.groups for item in group.items[1:])
    return {
        "hashed": found.hashed,
        "groups": len(found.groups),
        "beside_the_best": {str(grade): count for grade, count in sorted(grades.items(), key=str)},
        "largest": [group.to_json() for group in found.groups[:most]],
    }


def _hubs(version: IndexVersion, collection: Collection, most: int) -> dict[str, Any]:
    hubs = find_hubs(version, collection)
    found = hubs.largest(most)
    items = describe(version, collection, hubs.rows[found])
    return {
        "looked_at": len(hubs.rows),
        "of": version.vectors(collection).rows,
        "queries": hubs.queries,
        "asked": hubs.asked,
        "expected": round(hubs.expected, 2),
        "items": [{**item, "count": int(hubs.counts[at])} for item, at in zip(items, found, strict=True)],
    }


def _far(version: IndexVersion, collection: Collection, most: int) -> dict[str, Any] | None:
    far = find_far(version, collection)
    if far is None:
        return None
    found = far.farthest(most)
    pairs = zip(
        describe(version, collection, far.rows[found]), describe(version, collection, far.nearest[found]), strict=True
    )
    return {
        "looked_at": len(far.rows),
        "of": version.vectors(collection).rows,
        "median": round(float(np.median(far.nearness)), 4),
        "items": [
            {**item, "nearness": round(float(far.nearness[at]), 4), "nearest": nearest}
            for at, (item, nearest) in zip(found, pairs, strict=True)
        ],
    }
