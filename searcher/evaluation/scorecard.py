"""Text report of an evaluation: the protocol in a sentence, then tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from evaluation.protocol import Protocol
from evaluation.published import MARKS, PublishedRow

from .leaks import sentence as told_leaks

DIRECTIONS = {"text_to_image": "text to image", "image_to_text": "image to text"}
_SHORT = {"text_to_image": "t2i", "image_to_text": "i2t"}
_COUNTS = ("queries", "left_out")
_RANKS = ("medR", "meanR", "rsum")
_TOLD_BELOW = ("ms_per_query", "ann_recall@10")
# How each tool prints its figures: decimals, and the factor from a share.
_PLACES: Mapping[str, int] = {"twinlens": 1, "automm": 5, "clip-benchmark": 4, "vse": 1, "eccv": 4}

Column = tuple[str, str, Mapping[str, Any]]
"""Heading, what stands below it, and the figures by name."""


def scorecard(result: Mapping[str, Any], dataset: str | None = None, rows: Sequence[PublishedRow] = ()) -> str:
    """Return the text that `evaluate` prints.

    Args:
        result: What `evaluate_index` returned.
        dataset: The data set that the published rows are of; None to show none.
        rows: Published rows to show beside it.
    """
    parts = [Protocol.from_json(result["protocol"]).sentence(), _figures(result), *_stored(result)]
    parts += [*_leaks(result), *_through(result)]
    if "hub_corrected" in result:
        parts.append(_hub_corrected(result))
    if dataset is not None:
        parts.append(_published(result, dataset, rows))
    return "\n\n".join(parts)


def searched_exactly(result: Mapping[str, Any]) -> bool:
    """Whether nothing was measured through an approximate index: not requested, or every vector was compared."""
    return "ann" not in result or all(result["ann"][name]["choice"]["exact"] for name in DIRECTIONS)


def percent(share: float | None) -> str:
    """Return a share as papers print it, `83.2`; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def _figures(result: Mapping[str, Any]) -> str:
    columns, name = _columns(result), result["protocol"]["name"]
    names = list(dict.fromkeys(key for _, _, figures in columns for key in figures if key != "intervals"))
    heads = ["", *(below for _, below, _ in columns)]
    lines = [[_label(key), *(_cell(name, key, figures) for _, _, figures in columns)] for key in names]
    scale = "Percent but for ranks and counts" if name == "twinlens" else f"Keys and scale of {name}"
    interval = "; in brackets the interval of the mean" if any("intervals" in c[2] for c in columns) else ""
    table = aligned([heads, *lines], groups=["", *(head for head, _, _ in columns)])
    rsum = f"\nrsum {result['rsum']:.1f}" if name == "twinlens" else ""
    return f"{scale}{interval}.\n{table}{rsum}"


def _columns(result: Mapping[str, Any]) -> list[Column]:
    name = result["protocol"]["name"]
    exact = result if name == "twinlens" else result["figures"]
    approximate = None if searched_exactly(result) else (result["ann"] if name == "twinlens" else result["ann_figures"])
    sides = [("exact", exact)] + ([("approximate", approximate)] if approximate is not None else [])
    if name in ("clip-benchmark", "vse"):
        return [("", below, figures) for below, figures in sides]
    return [
        (words, below, _side(name, figures, direction))
        for direction, words in DIRECTIONS.items()
        for below, figures in sides
    ]


def _side(name: str, figures: Mapping[str, Any], direction: str) -> Mapping[str, Any]:
    if name == "eccv":
        return {key: both[_SHORT[direction]] for key, both in figures.items()}
    plain = {key: value for key, value in figures[direction].items() if isinstance(value, int | float)}
    intervals = {key: figures[direction][key] for key in ("intervals",) if key in figures[direction]}
    return {key: value for key, value in plain.items() if key not in _TOLD_BELOW} | intervals


def _label(key: str) -> str:
    return "left out" if key == "left_out" else key


def _cell(name: str, key: str, figures: Mapping[str, Any]) -> str:
    if key not in figures:
        return "-"
    value = figures[key]
    if key in _COUNTS:
        return f"{value:,}"
    factor = 100 if name == "twinlens" and key not in _RANKS else 1
    shown = f"{factor * value:.{_PLACES[name]}f}"
    low, high = figures.get("intervals", {}).get(key, (None, None))
    return shown if low is None else f"{shown} [{factor * low:.1f}, {factor * high:.1f}]"


def _through(result: Mapping[str, Any]) -> Iterator[str]:
    if result["protocol"]["folds"] > 1:
        yield "Folds are galleries of their own, smaller than the index, so they are searched exactly."
    if "ann" not in result:
        return
    if searched_exactly(result):
        reasons = dict.fromkeys(result["ann"][name]["choice"]["reason"] for name in DIRECTIONS)
        yield f"Searches of this index give the exact figures: {'; '.join(reasons)}."
    for name, words in DIRECTIONS.items():
        approximate = result["ann"][name]
        yield f"{words[0].upper()}{words[1:]} through the index: {_went(approximate)}{_curve(approximate)}"


def _stored(result: Mapping[str, Any]) -> Iterator[str]:
    if within := result["index"].get("score_within"):
        told = " and ".join(f"{length:.3f} ({name})" for name, length in within.items())
        yield f"The index stores one byte a value; its scores are within {told} of those of float16 vectors."


def _leaks(result: Mapping[str, Any]) -> Iterator[str]:
    leaks = result["leaks"]
    if leaks is None:
        return
    yield told_leaks(leaks, result["protocol"]["split"])
    without = leaks["without"]
    if without is None or not any(leaks[name]["count"] for name in ("images", "texts")):
        return
    keys = [key for key in without["text_to_image"] if key.startswith("R@")]
    groups = ["", *(words for words in DIRECTIONS.values() for _ in range(2))]
    heads = ["", *["all", "without"] * 2]
    sides = [side[name] for name in DIRECTIONS for side in (result, without)]
    lines = [[key, *(percent(side.get(key)) for side in sides)] for key in keys]
    rest = f"Without them, {without['images']:,} images and {without['texts']:,} texts, exact, percent"
    rsum = f"rsum {without['rsum']:.1f}, of all {result['rsum']:.1f}"
    yield f"{rest}.\n{aligned([heads, *lines], groups)}\n{rsum}"


def _went(approximate: Mapping[str, Any]) -> str:
    choice = approximate["choice"]
    setting = "exact" if choice["exact"] else f"nprobe {choice['nprobe']} oversample {choice['oversample']}"
    recall = f"ann_recall@10 {approximate['ann_recall@10']:.3f}"
    return f"{choice['kind']}, {setting} ({choice['reason']}), {recall}, {approximate['ms_per_query']:.3f} ms a query."


def _curve(approximate: Mapping[str, Any]) -> str:
    points = approximate["operating_points"]
    if not points:
        return ""
    depths = [key for key in points[0] if key.startswith("R@")]
    heads = ["  nprobe", "oversample", *depths, "ann_recall@10", "ms a query"]
    lines = [
        [
            str(p["nprobe"]),
            str(p["oversample"]),
            *(percent(p[key]) for key in depths),
            f"{p['ann_recall@10']:.3f}",
            f"{p['ms_per_query']:.3f}",
        ]
        for p in points
    ]
    exact = ["", "exact", *(percent(approximate["curve_exact"][key]) for key in depths), "1.000", ""]
    sample = (
        f"\n  From a sample of {points[0]['queries']:,} queries."
        if points[0]["queries"] < approximate["queries"]
        else ""
    )
    return "\n" + aligned([heads, *lines, exact], to_left=()) + sample


def _hub_corrected(result: Mapping[str, Any]) -> str:
    corrected = result["hub_corrected"]
    keys = [key for key in result["text_to_image"] if key.startswith("R@")]
    groups = ["", *(words for words in DIRECTIONS.values() for _ in range(2))]
    heads = ["", *["plain", "corrected"] * 2]
    lines = [[key, *(percent(side[name][key]) for name in DIRECTIONS for side in (result, corrected))] for key in keys]
    rsum = f"rsum {corrected['rsum']:.1f}, plain {result['rsum']:.1f}"
    table = aligned([heads, *lines], groups)
    return f"Hub correction (nearest-neighbour normalisation) {_fitted(corrected)}\n{table}\n{rsum}"


def _fitted(corrected: Mapping[str, Any]) -> str:
    settings = [f"{name} k {one['k']} alpha {one['alpha']:g}" for name, one in corrected["hub_correction"].items()]
    return f"from split {corrected['split']}, not part of the figures above; {', '.join(settings)}."


def _published(result: Mapping[str, Any], dataset: str, rows: Sequence[PublishedRow]) -> str:
    if not rows:
        return f"No published figures of {dataset} with a source are known, so none stand here."
    groups = ["", "", *[words for words in DIRECTIONS.values() for _ in range(3)], ""]
    heads = ["model", "kind", *("R@1", "R@5", "R@10") * 2, "source"]
    lines = [["this index, exact", "", *(c for name in DIRECTIONS for c in _measured(result[name])), ""]]
    lines += [
        [row.model, row.kind, *map(_percentage, (*row.text_to_image, *row.image_to_text)), _source(row)] for row in rows
    ]
    marks = "; ".join(f"[{mark}] {words}" for mark, words in MARKS.items())
    return f"Published, {dataset}, percent ({marks}).\n{aligned([heads, *lines], groups, to_left={0, 1, 8})}"


def _measured(figures: Mapping[str, Any]) -> list[str]:
    return [percent(figures.get(f"R@{k}")) for k in (1, 5, 10)]


def _percentage(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _source(row: PublishedRow) -> str:
    return f"[{row.mark}] {row.source}" + (f"; {row.note}" if row.note else "")


def aligned(lines: Sequence[Sequence[str]], groups: Sequence[str] = (), to_left: Collection[int] = (0,)) -> str:
    """Return a table of equally wide columns.

    Args:
        lines: The cells, the heading first.
        groups: One name a column; where neighbours have the same one it stands once above them all.
        to_left: The columns that are set to the left.
    """
    wide = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    above = _above(groups, wide)
    shown = [
        "  ".join(
            f"{cell:<{wide[i]}}" if i in to_left else f"{cell:>{wide[i]}}" for i, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*above, *shown])


def _above(groups: Sequence[str], wide: list[int]) -> list[str]:
    """The line of group names, if there are any; a column grows where its group's name is wider than all of it."""
    if not any(groups):
        return []
    parts, column = [], 0
    for name, members in groupby(groups):
        size = len(list(members))
        room = sum(wide[column : column + size]) + 2 * (size - 1)
        wide[column] += max(0, len(name) - room)
        parts.append(f"{name:>{max(room, len(name))}}")
        column += size
    return ["  ".join(parts).rstrip()]
