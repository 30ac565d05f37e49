"""Page of near-duplicates: a section a group with thumbnails, the best image first; no server, no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..duplicates import DuplicateGroup, DuplicateItem, Duplicates
from ..originals import image_source
from .html_gallery import MAX_HITS, as_source, render_sections
from .thumbnails import thumbnail

# Of one group; what is left out is counted.
_MOST_OF_A_GROUP = 48
_BOX = (360, 270)


def render_duplicates(found: Duplicates, root: Path | None = None) -> str:
    """Return a self-contained page of the largest groups, 2,000 images at most; every text in it is escaped.

    Args:
        found: The groups.
        root: The folder that the images' `uri` are relative to.
    """
    sections: list[dict[str, Any]] = []
    images = 0
    for group in found.groups:
        images += min(len(group.items), _MOST_OF_A_GROUP)
        if images > MAX_HITS:
            break
        sections.append(_section(group, root))
    left = len(found.groups) - len(sections)
    more = f" {left:,} smaller groups are not on this page; --output json gives them all." if left else ""
    head = {"title": f"Duplicates in {found.location}", "about": found.summary() + more}
    return render_sections([{**head, "query": None, "images": True, "cards": []}, *sections])


def _section(group: DuplicateGroup, root: Path | None) -> dict[str, Any]:
    shown = group.items[:_MOST_OF_A_GROUP]
    left = len(group.items) - len(shown)
    return {
        "title": f"{len(group.items):,} images, {group.grade}",
        "about": f"best: {group.best.item_id}" + (f"; {left:,} more are not shown" if left else ""),
        "query": None,
        "images": True,
        "cards": [_card(number, item, root) for number, item in enumerate(shown, 1)],
    }


def _card(number: int, item: DuplicateItem, root: Path | None) -> dict[str, Any]:
    facts = [("uri", item.uri), ("bits", item.bits), ("cosine", item.cosine and f"{item.cosine:.4f}")]
    return {
        "rank": "best" if item.grade is None else number,
        "item_id": item.item_id,
        "score": item.grade or "",
        "why": None,
        "where": None,
        "caption": item.about(),
        "alt": item.item_id,
        "facts": [(name, str(value)) for name, value in facts if value is not None],
        **as_source(thumbnail(image_source(item.uri, root), _BOX)),
    }
