"""Page of an audit: suspicious pairs, duplicates and further findings with thumbnails; no server, no other file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..audit.report import Audit
from ..audit.summary import sampled
from ..errors import SearchError
from ..hits import cut
from ..originals import image_source
from .html_gallery import as_source, page_template, write_page
from .map_layout import lay_out
from .thumbnails import thumbnail

# Some 8 kB each: a page of 6 MB at most, a third of them for the map.
MOST_THUMBNAILS = 800
EXAMPLE = "audit.html"
_MOST_OF_A_GROUP = 6
_BOX, _SMALL = (280, 210), (112, 84)
_CAPTION = 300
Facts = Mapping[str, Any]


def check_page(path: Path, example: str) -> None:
    """Raise SearchError where no page can be written to a path, before the work is done; it names an example of one."""
    if not path.parent.is_dir():
        raise SearchError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} is not there; make it first")
    if path.is_dir():
        raise SearchError(f"cannot write {str(path)!r}: it is a folder; name a file in it, such as {example}")


def save_audit(path: Path, audit: Audit) -> None:
    """Write a self-contained page of an audit; an existing file is replaced.

    Raises:
        SearchError: The file cannot be written.
    """
    check_page(path, EXAMPLE)
    write_page(path, render_audit(audit), "audit")


def render_audit(audit: Audit) -> str:
    """Return the page that `save_audit` writes: 800 thumbnails at most, every text in it escaped."""
    page = _Page(audit)
    counts = ", ".join(f"{count:,} {name}" for name, count in audit.facts["counts"].items())
    return page_template("audit.html").render(facts=audit.facts, counts=counts, sections=list(page.sections()))


class _Page:
    """Turns the facts into what the template shows, section by section."""

    def __init__(self, audit: Audit) -> None:
        self.facts = audit.facts
        self.root = audit.root
        self.thumbnails_left = MOST_THUMBNAILS

    def sections(self) -> Iterator[dict[str, Any]]:
        """Yield the sections that have something to say."""
        facts = self.facts
        if facts["suspicious"]:
            yield self._suspicious(facts["suspicious"])
        if facts["unfit_images"] and facts["unfit_images"]["images"]:
            yield self._unfit(facts["unfit_images"])
        if facts["duplicates"]:
            yield self._duplicates(facts["duplicates"])
        if facts["leaks"]:
            yield _leaks(facts["leaks"])
        if facts["repeated_captions"]:
            yield _repeated(facts["repeated_captions"])
        yield self._hubs(facts["hubs"])
        yield self._far(facts["far"])
        if facts["without_partner"]:
            yield self._alone(facts["without_partner"])
        if facts["map"]:
            yield self._map(facts["map"])
        if any(facts["columns"].values()):
            yield _columns(facts["columns"])
        yield _rejected(facts["rejected"])

    def _image(self, item: Facts, box: tuple[int, int] = _BOX, note: str = "") -> dict[str, Any]:
        named = {"item_id": item["item_id"], "note": note}
        if self.thumbnails_left <= 0:
            return {**named, "source": None, "problem": "no room for its image"}
        self.thumbnails_left -= 1
        return {**named, **as_source(thumbnail(image_source(item["uri"], self.root), box))}

    def _suspicious(self, part: Facts) -> dict[str, Any]:
        pairs = [
            {
                "image": self._image(pair["image"]),
                "captions": [_said(pair["text"])],
                "better_texts": [_said(item) for item in pair["better_texts"]],
                "better_images": [self._image(item, _SMALL) for item in pair["better_images"]],
                "score": f"{pair['score']:.2f}",
                "why": _why(pair),
            }
            for pair in part["pairs"]
        ]
        about = (
            f"The worst of {part['judged']:,} pairs{sampled(part, 'judged')}: captions that probably belong to another "
            "image. The lower the score, in standard deviations, the worse."
        )
        return _section("pairs", "Suspicious pairs", f"{part['judged']:,}", "pairs judged", about, pairs=pairs)

    def _unfit(self, part: Facts) -> dict[str, Any]:
        pairs = [
            {
                "image": self._image(image),
                "captions": [cut(caption, _CAPTION) for caption in image["captions"]],
                "better_texts": [],
                "better_images": [],
                "score": f"{image['fit']:.2f}",
                "why": "mean fit of its captions",
            }
            for image in part["images"]
        ]
        about = (
            f"Of {part['judged']:,} images with two captions or more those whose captions, taken together, fit least: "
            "all of them may have been exchanged."
        )
        return _section(
            "unfit", "Images that no caption of theirs fits", f"{part['judged']:,}", "images judged", about, pairs=pairs
        )

    def _duplicates(self, part: Facts) -> dict[str, Any]:
        groups = []
        for group in part["largest"]:
            shown = group["items"][:_MOST_OF_A_GROUP]
            more = f", {len(group['items']) - len(shown):,} not shown" if len(shown) < len(group["items"]) else ""
            items = [self._image(item, note=f"{item['item_id']} ({item['grade'] or 'best'})") for item in shown]
            groups.append({"title": f"{len(group['items']):,} images, {group['grade']}{more}", "images": items})
        told = ", ".join(f"{count:,} {grade}" for grade, count in part["beside_the_best"].items())
        about = f"{part['groups']:,} groups" + (f"; beside the best image of each {told}." if told else ".")
        unknown = self.facts["counts"]["images"] - part["hashed"]
        about += f" {unknown:,} images have no perceptual hash: of these only equal bytes are found." if unknown else ""
        about += f" The {len(groups)} largest are shown." if len(groups) < part["groups"] else ""
        return _section("duplicates", "Duplicates", f"{part['groups']:,}", "groups of duplicates", about, groups=groups)

    def _hubs(self, found: Facts) -> dict[str, Any]:
        parts = []
        for name, part in found.items():
            asked = f"{part['queries']:,} {part['asked']}"
            about = (
                f"How many of {asked} have it among their ten nearest; {part['expected']:g} were to be expected"
                f"{sampled(part)}."
            )
            parts.append(self._items(name, part["items"], "count", about))
        number = sum(len(part["items"]) for part in found.values())
        return _section("hubs", "Hubs", number, "hubs listed", "Items that are near to very many queries.", parts=parts)

    def _far(self, found: Facts) -> dict[str, Any]:
        parts = [
            self._items(
                name,
                part["items"],
                "nearness",
                f"Mean cosine with the five nearest; {part['median']:.3f} is the median{sampled(part)}.",
            )
            for name, part in found.items()
            if part is not None
        ]
        number = sum(len(part["items"]) for part in found.values() if part)
        about = "Items that are far from all others of their kind: strays, or what the encoder does not understand."
        return _section("far", "Far from everything", number, "far items listed", about, parts=parts)

    def _alone(self, found: Facts) -> dict[str, Any]:
        parts = [
            self._items(name, part["items"], None, f"{part['count']:,} in no pair.") for name, part in found.items()
        ]
        number = sum(part["count"] for part in found.values())
        about = "Images without a caption, captions without an image."
        return _section("alone", "Without partner", f"{number:,}", "items without partner", about, parts=parts)

    def _map(self, part: Facts) -> dict[str, Any]:
        images = part["collection"] == "images"
        layout = lay_out(part, images=images)
        for one in layout.thumbnails:
            one["image"] = self._image(one["item"])
        how = "by UMAP" if part["method"] == "umap" else "along their two principal components"
        about = (
            f"{part['collection'].capitalize()} laid out {how}, like near to like{sampled(part)}; colours are "
            "clusters, named by the nearest captions or classes. "
        )
        about += "Click an image to enlarge it, a name to see the heart of its cluster." if images else ""
        return _section("map", "Map of the collection", len(part["clusters"]), "clusters on a map", about, map=layout)

    def _items(self, name: str, items: Sequence[Facts], value: str | None, about: str) -> dict[str, Any]:
        title = name.capitalize()
        if name == "images":
            shown = [
                self._image(item, note=item["item_id"] + (f": {_shown(item[value])}" if value else ""))
                for item in items
            ]
            return _part(title, about=about, images=shown)
        rows = [(_shown(item[value]) if value else "", _said(item), item["item_id"]) for item in items]
        return _part(title, about=about, names=(value or "", "text", "item_id"), rows=rows)


def _section(ident: str, title: str, number: Any, short: str, about: str, **shown: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"pairs": [], "groups": [], "parts": [], "map": None}
    return {**empty, "id": ident, "title": title, "number": number, "short": short, "about": about, **shown}


def _part(title: str, **shown: Any) -> dict[str, Any]:
    return {"title": title, "about": "", "bars": [], "images": [], "names": (), "rows": [], **shown}


def _bars(rows: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    largest = max((count for _, count in rows), default=1)
    return [{"label": label, "count": count, "percent": round(100 * count / largest)} for label, count in rows]


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _said(item: Facts) -> str:
    return cut(item["caption"] or item["item_id"], _CAPTION)


def _why(pair: Facts) -> str:
    company = "no company" if pair["company"] is None else f"company {pair['company']:.2f}"
    return f"cosine {pair['cosine']:.3f}, fit {pair['fit']:.2f}, {company}"


def _leaks(found: Sequence[Facts]) -> dict[str, Any]:
    rows, examples = [], []
    for part in found:
        for name in ("images", "texts"):
            side = part.get(name)
            if side:
                where = ", ".join(f"{split} {count:,}" for split, count in side["splits"].items())
                rows.append((f"{side['count']:,}", f"of {side['of']:,} {name} of {part['split']}", where))
                examples += [(name, one["item_id"], one["duplicate"]) for one in side["examples"]]
    parts = [_part("Items that stand in another split too", names=("", "", "also in"), rows=rows)]
    if examples:
        parts.append(_part("Examples", names=("", "item", "duplicate in another split"), rows=examples))
    number = sum(part[name]["count"] for part in found for name in ("images", "texts") if name in part)
    about = "Images by hash and vector, captions by their words. Images that leak make recall look better than it is."
    return _section("leaks", "Leaks across splits", f"{number:,}", "items leak across splits", about, parts=parts)


def _repeated(part: Facts) -> dict[str, Any]:
    bars = _bars([(cut(one["caption"], _CAPTION), one["count"]) for one in part["captions"]])
    first = f" among the first {part['looked_at']:,}" if part["looked_at"] < part["of"] else ""
    about = f"{part['count']:,} captions stand more than once in the same words{first}, case and punctuation aside."
    parts = [_part("Most frequent", bars=bars)] if bars else []
    return _section("repeated", "Captions that repeat", f"{part['count']:,}", "captions repeat", about, parts=parts)


def _columns(found: Facts) -> dict[str, Any]:
    parts = [
        _part(
            f"{one['column']} of {name}",
            bars=_bars([(cut(value["value"], _CAPTION), value["count"]) for value in one["values"]]),
            about=f"{one['missing']:,} have none." if one["missing"] else "",
        )
        for name, columns in found.items()
        for one in columns
    ]
    about = "Columns with 2 to 30 values, and how many items have each."
    return _section("columns", "Classes by size", len(parts), "columns with few values", about, parts=parts)


def _rejected(found: Sequence[Facts]) -> dict[str, Any]:
    rows = [
        (
            f"{one['count']:,}",
            one["collection"],
            one["reason"],
            one["example"] or "",
            cut(one["detail"] or "", _CAPTION),
        )
        for one in found
    ]
    parts = [_part("By reason", names=("", "", "reason", "such as", ""), rows=rows)] if rows else []
    number = sum(one["count"] for one in found)
    about = "What could not be indexed." if rows else "Nothing was rejected."
    return _section("rejected", "Rejected", f"{number:,}", "items rejected", about, parts=parts)
