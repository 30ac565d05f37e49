"""Text report of a comparison of encoders: recall, differences, speed and size, sole answers, what the sample holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from searcher.evaluation.scorecard import aligned
from searcher.evaluation.side_by_side_text import alone, tables, unlike
from searcher.hits import clean

Facts = Mapping[str, Any]


def comparison_text(facts: Facts) -> str:
    """Return a comparison for people.

    Args:
        facts: Those of `compare_encoders`.
    """
    result = {**facts, "indexes": facts["encoders"]}
    parts = [*unlike(result), *tables(result), _costs(facts), *alone(result), *_sample(facts), *_failed(facts)]
    return "\n\n".join([_scope(facts), *parts])


def _scope(facts: Facts) -> str:
    counts, corpus = facts["encoders"][0]["counts"], facts["corpus"]
    prompt = f", every text as {facts['prompt']!r}" if facts["prompt"] else ""
    return (
        f"{counts['images']:,} of {corpus['captioned']:,} captioned images and their {counts['texts']:,} captions, "
        f"drawn with seed {corpus['seed']} from {clean(corpus['source'])}{prompt}. "
        f"Exact search; percent; in brackets {facts['level']:.0%} intervals over images."
    )


def _costs(facts: Facts) -> str:
    """Speed and size of each encoder."""
    groups = ["", "images a second", "images a second", "texts a second", "texts a second", "", "", ""]
    heads = ["", "of a core", "as it ran", "of a core", "as it ran", "dim", "bytes an item", "computed by"]
    lines = [heads]
    for one in facts["encoders"]:
        rates = [
            "-" if one["speed"][name] is None else f"{one['speed'][name][key]:,.1f}"
            for name in ("images", "texts")
            for key in ("per_cpu_second", "per_second")
        ]
        how = " ".join(str(one["index"]["computed"][name]) for name in ("device", "backend", "precision"))
        lines.append([clean(one["label"]), *rates, str(one["dim"]), f"{one['bytes_per_item']['images']:,}", how])
    return aligned(lines, groups, to_left={0, 7})


def _sample(facts: Facts) -> Iterator[str]:
    """Yield what of the sample makes recall look better or worse than it is, and what could not be read."""
    found = facts["duplicates"]
    beside = sum(found["beside_the_best"].values())
    lines = [
        f"{beside:,} images of the sample are near-duplicates of another one in it, in {found['groups']:,} groups."
    ]
    for part in facts["leaks"]:
        for name in ("images", "texts"):
            if part.get(name, {}).get("count"):
                where = ", ".join(f"{split} {count:,}" for split, count in part[name]["splits"].items())
                lines.append(
                    f"{part[name]['count']:,} {name} of split {part['split']} stand in another one too: {where}."
                )
    for one in facts["rejected"]:
        named = f"{one['count']:,} {one['collection']} could not be used ({one['reason']}), such as {one['example']}."
        lines.append(clean(named))
    yield "\n".join(lines)


def _failed(facts: Facts) -> Iterator[str]:
    if facts["failed"]:
        yield "\n".join(f"NOT COMPARED: {clean(one['encoder'])}: {clean(one['reason'])}" for one in facts["failed"])
