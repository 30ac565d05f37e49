"""Text report of a comparison of encoders: recall, differences, speed and size, sole answers, what the sample holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from searcher.evaluation.scorecard import aligned
from searcher.evaluation.side_by_side_text import alone, sample_notes, tables, unlike
from searcher.hits import clean

Facts = Mapping[str, Any]


def comparison_text(facts: Facts) -> str:
    """Return a comparison for people.

    Args:
        facts: Those of `compare_encoders`.
    """
    result = {**facts, "indexes": facts["encoders"]}
    parts = [*unlike(result), *tables(result), _costs(facts), *alone(result)]
    parts += ["\n".join(map(clean, sample_notes(facts))), *_failed(facts)]
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


def _failed(facts: Facts) -> Iterator[str]:
    if facts["failed"]:
        yield "\n".join(f"NOT COMPARED: {clean(one['encoder'])}: {clean(one['reason'])}" for one in facts["failed"])
