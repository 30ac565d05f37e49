"""An audit as text: the counts, and the worst of each kind of finding, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..hits import clean, cut

SHOWN = 10
_WIDTH = 90


def to_text(facts: Mapping[str, Any]) -> str:
    """Return the facts of an audit for people, at most ten findings of each kind."""
    sections = (
        _suspicious,
        _unfit_images,
        _duplicates,
        _leaks,
        _repeated,
        _hubs,
        _far,
        _partners,
        _map,
        _columns,
        _rejected,
    )
    counts = ", ".join(f"{count:,} {name}" for name, count in facts["counts"].items())
    lines = [f"{facts['index']['path']}, version {facts['index']['version']}: {counts}"]
    for section in sections:
        said = list(section(facts))
        lines += ["", *said] if said else []
    return "\n".join(lines)


def named(item: Mapping[str, Any]) -> str:
    """Return how an item is called in a line: its id, and its caption where it has one."""
    item_id = clean(item["item_id"])
    return f"{item_id}  {cut(item['caption'], _WIDTH)}" if item["caption"] else item_id


def sampled(part: Mapping[str, Any], key: str = "looked_at") -> str:
    """Return that only some were looked at; empty where all were."""
    return f" ({part[key]:,} of {part['of']:,}, evenly spaced)" if part[key] < part["of"] else ""


def _suspicious(facts: Mapping[str, Any]) -> Iterator[str]:
    part = facts["suspicious"]
    if part is None:
        return
    judged = f"{part['judged']:,} pairs{sampled(part, 'judged')}"
    yield f"Most suspicious of {judged}: the caption probably belongs elsewhere"
    for pair in part["pairs"][:SHOWN]:
        yield f"  {pair['score']:6.2f}  {clean(pair['image']['item_id'])}  <-  {named(pair['text'])}"
        if pair["better_texts"]:
            yield f"          nearer: {named(pair['better_texts'][0])}"


def _unfit_images(facts: Mapping[str, Any]) -> Iterator[str]:
    part = facts["unfit_images"]
    if part is None or not part["images"]:
        return
    yield "Images whose captions fit least, taken together"
    for image in part["images"][:SHOWN]:
        yield f"  {image['fit']:6.2f}  {clean(image['item_id'])}  <-  {cut(image['captions'][0], _WIDTH)}"


def _duplicates(facts: Mapping[str, Any]) -> Iterator[str]:
    part = facts["duplicates"]
    if part is None:
        return
    told = ", ".join(f"{count:,} {grade}" for grade, count in part["beside_the_best"].items())
    yield f"Duplicates: {part['groups']:,} groups" + (f", beside the best of each {told}" if told else "")
    for group in part["largest"][:SHOWN]:
        names = ", ".join(clean(item["item_id"]) for item in group["items"][:5])
        yield f"  {len(group['items']):,} {group['grade']}: {names}"


def _leaks(facts: Mapping[str, Any]) -> Iterator[str]:
    if not facts["leaks"]:
        return
    yield "Leaks across splits"
    for part in facts["leaks"]:
        for name in ("images", "texts"):
            if name in part:
                where = ", ".join(f"{split} {count:,}" for split, count in part[name]["splits"].items())
                told = f"{part[name]['count']:,} of {part[name]['of']:,} {name} stand in another split too"
                yield f"  {part['split']}: {told}" + (f" ({where})" if where else "")


def _repeated(facts: Mapping[str, Any]) -> Iterator[str]:
    part = facts["repeated_captions"]
    if part is None or not part["count"]:
        return
    first = f" (of the first {part['looked_at']:,} of {part['of']:,})" if part["looked_at"] < part["of"] else ""
    yield f"Captions that repeat: {part['count']:,}{first}"
    for one in part["captions"][:SHOWN]:
        yield f"  {one['count']:6,}  {cut(one['caption'], _WIDTH)}"


def _hubs(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, part in facts["hubs"].items():
        if part["items"]:
            asked = f"{part['queries']:,} {part['asked']}"
            yield f"Hubs among {name}{sampled(part)}: how many of {asked} have it among their ten nearest"
            yield f"  {part['expected']:6g}  were to be expected"
            for item in part["items"][:SHOWN]:
                yield f"  {item['count']:6,}  {named(item)}"


def _far(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, part in facts["far"].items():
        if part is not None and part["items"]:
            yield (
                f"Far from all other {name}{sampled(part)}: mean cosine with the five nearest; {part['median']:.3f} is "
                "the median"
            )
            for item in part["items"][:SHOWN]:
                yield f"  {item['nearness']:6.3f}  {named(item)}"


def _partners(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, part in (facts["without_partner"] or {}).items():
        if part["count"]:
            examples = ", ".join(clean(item["item_id"]) for item in part["items"][:5])
            yield f"{name.capitalize()} without partner: {part['count']:,}, such as {examples}"


def _map(facts: Mapping[str, Any]) -> Iterator[str]:
    part = facts["map"]
    if part is None or not part["clusters"]:
        return
    named_ones = [one for one in part["clusters"] if one["name"]]
    told = ", about so many in each" if named_ones else ", which neither captions nor classes name"
    yield f"What the {part['collection']} show{sampled(part)}: {len(part['clusters'])} clusters{told}"
    for one in named_ones[:SHOWN]:
        yield f"  {one['count']:6,}  {cut(one['name'], _WIDTH)}"


def _columns(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, columns in facts["columns"].items():
        for one in columns:
            values = ", ".join(f"{cut(value['value'], 40)} {value['count']:,}" for value in one["values"])
            yield f"{one['column']} of {name}: {values}" + (f", none {one['missing']:,}" if one["missing"] else "")


def _rejected(facts: Mapping[str, Any]) -> Iterator[str]:
    if not facts["rejected"]:
        return
    yield "Rejected"
    for one in facts["rejected"]:
        yield f"  {one['count']:6,}  {one['collection']}: {one['reason']}, such as {clean(str(one['example']))}"
