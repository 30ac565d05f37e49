"""Text report of indexes side by side: recall with intervals, differences to the best one, sole answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..hits import clean, cut
from .scorecard import DIRECTIONS, aligned

TIE = "="
_WIDTH = 100
Result = Mapping[str, Any]


def side_by_side_text(result: Result) -> str:
    """Return the text that `evaluate` prints for several indexes.

    Args:
        result: What `evaluate_side_by_side` returned.
    """
    return "\n\n".join([_scope(result), *unlike(result), *tables(result), *alone(result)])


def unlike(result: Result) -> Iterator[str]:
    """Yield, where indexes cannot be compared, a paragraph that names what differs."""
    if result["comparable"]:
        return
    lines = [f"  {clean(one['label'])}: {clean('; '.join(one['what']))}" for one in result["differs"]]
    head = (
        f"NOT COMPARABLE: these do not answer the same queries as {clean(result['differs'][0]['from'])}, so no "
        "difference between them is told. Each stands for itself; build them of the same corpus."
    )
    yield "\n".join([head, *lines])


def tables(result: Result) -> Iterator[str]:
    """Yield the figures of all indexes, and their differences to the best."""
    yield aligned([*_recall(result)], to_left={0})
    if not any(result["differences"] or ()):
        return  # not comparable, or one alone
    best = result["indexes"][result["best"]]["label"]
    head = (
        f"Difference to {clean(best)}, which has the highest rsum, in points with its {result['level']:.0%} interval, "
        f"from the same resampled images; {TIE} where a tie is not excluded."
    )
    yield f"{head}\n{aligned([*_differences(result)], to_left={0})}"


def alone(result: Result) -> Iterator[str]:
    """Yield how many queries each index alone answers, with one example each."""
    if not result["alone"]:
        return
    lines = ["Queries that one alone answers (the right item first, with no other one)"]
    for index, found in zip(result["indexes"], result["alone"], strict=True):
        counts = ", ".join(
            f"{words} {found[name]['count']:,} of {found[name]['of']:,}" for name, words in DIRECTIONS.items()
        )
        lines.append(f"  {clean(index['label'])}: {counts}")
        for name in DIRECTIONS:
            lines += [f"    {_example(one, name)}" for one in found[name]["examples"][:1]]
    yield "\n".join(lines)


def sample_notes(facts: Result) -> Iterator[str]:
    """Yield what of a sample makes recall look better or worse than it is, where that was looked for, and what is lost.

    Args:
        facts: Those of a comparison of encoders, as `docs/compare.md` lists them.
    """
    found, drawn = facts["duplicates"], facts["corpus"]["images"]
    beside = sum(found["beside_the_best"].values())
    yield f"{beside:,} images of the sample are near-duplicates of another one in it, in {found['groups']:,} groups."
    for part in facts["leaks"]:
        for name in ("images", "texts"):
            if part.get(name, {}).get("count"):
                where = ", ".join(f"{split} {count:,}" for split, count in part[name]["splits"].items())
                yield (
                    f"{part[name]['count']:,} {name} of split {part['split']} of the sample stand in another split of "
                    f"it too: {where}."
                )
    yield (
        f"Near-duplicates and leaks between splits were looked for within these {drawn:,} images and their captions "
        "alone; `twinlens audit` looks through all that an index holds."
    )
    for one in facts["rejected"]:
        yield f"{one['count']:,} {one['collection']} could not be used ({one['reason']}), such as {one['example']}."


def _scope(result: Result) -> str:
    counts = result["indexes"][0]["counts"]
    of = f"{counts['images']:,} images, {counts['texts']:,} texts and {counts['pairs']:,} pairs"
    where = f" of split {result['split']}" if result["split"] else ""
    what = f"the same {of}{where}" if result["comparable"] else f"their own images and texts{where}"
    return (
        f"{len(result['indexes'])} indexes side by side, by exact search over {what}. "
        f"Percent; in brackets {result['level']:.0%} intervals over images."
    )


def _recall(result: Result) -> Iterator[Sequence[str]]:
    depths = [f"R@{depth}" for depth in result["k"]]
    for name, words in DIRECTIONS.items():
        yield [words, *depths]
        for index in result["indexes"]:
            figures = index[name]
            yield [f"  {clean(index['label'])}", *(_share(figures[key], figures["intervals"][key]) for key in depths)]
        yield [""] * (len(depths) + 1)
    blank = [""] * (len(depths) - 1)
    yield ["both", "rsum", *blank]
    for index in result["indexes"]:
        low, high = index["rsum_interval"]
        yield [f"  {clean(index['label'])}", f"{index['rsum']:.1f} [{low:.1f}, {high:.1f}]", *blank]


def _differences(result: Result) -> Iterator[Sequence[str]]:
    depths = [f"R@{depth}" for depth in result["k"]]
    rows = [
        (clean(index["label"]), one)
        for index, one in zip(result["indexes"], result["differences"], strict=True)
        if one is not None
    ]
    wide = max(len(depths), 2)
    for name, words in DIRECTIONS.items():
        rest = [""] * (wide - len(depths))
        yield [words, *depths, *rest]
        for label, one in rows:
            yield [f"  {label}", *(difference_cell(one[name][key], 100) for key in depths), *rest]
        yield [""] * (wide + 1)
    yield ["both", "rsum", "to the one above", *[""] * (wide - 2)]
    for label, one in rows:
        cells = (difference_cell(one["rsum"], 1), difference_cell(one["above"]["rsum"], 1))
        yield [f"  {label}", *cells, *[""] * (wide - 2)]


def _share(value: float, interval: Sequence[float]) -> str:
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def difference_cell(one: Mapping[str, Any], factor: float) -> str:
    """Return a difference with its interval, marked where a tie is not excluded."""
    low, high = (factor * end for end in one["interval"])
    mark = " " if one["tie_excluded"] else TIE
    return f"{factor * one['difference']:+.1f} [{low:+.1f}, {high:+.1f}]{mark}"


def _example(one: Mapping[str, Any], direction: str) -> str:
    def shown(item: Mapping[str, Any], *, text: bool) -> str:
        return cut(item["caption"] if text and item["caption"] else item["item_id"], _WIDTH)

    by_text = direction == "text_to_image"
    others = "; ".join(
        f"{clean(other['label'])} {shown(other['item'], text=not by_text)} (the right one at {other['rank']:,})"
        for other in one["instead"][:2]
    )
    return f"{shown(one['query'], text=by_text)} -> {shown(one['right'][0], text=not by_text)}; instead: {others}"
