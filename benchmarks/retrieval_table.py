"""Measured recall as a table beside published rows, as recorded figures and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layouts import Corpus, DataSet
from record import Figure

from evaluation.protocol import Protocol
from evaluation.published import MARKS, PublishedRow, published_rows

DIRECTIONS = ("image_to_text", "text_to_image")
CUTOFFS = (1, 5, 10)
# Under which names the published figures of a data set stand: of all images, and of the mean over folds.
PUBLISHED = {"flickr30k": ("flickr30k", ""), "flickr8k": ("flickr8k", ""), "coco": ("coco-5k", "coco-1k")}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One encoder's figures: as `evaluate_index` gives them, and those of the folds where there are any."""

    spec: str
    kind: str
    ann: str
    found: Mapping[str, Any]
    folded: Mapping[str, Any] | None = None

    def sentence(self) -> str:
        """Return under which rules it was measured."""
        told = {name: tuple(v) if isinstance(v, list) else v for name, v in self.found["protocol"].items()}
        return Protocol(**told).sentence()

    def rows(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return (how it was searched, figures by direction) of all images."""
        rows = [("exact", self.found)]
        return [*rows, (self.ann, self.found["ann"])] if "ann" in self.found else rows


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table: percentages of both directions, None where there is none."""

    name: str
    rates: Sequence[float | None]
    source: str = ""
    summed: bool = True

    def text(self, width: int) -> str:
        """Return the line with its name in `width` columns."""
        cells = ["   - " if rate is None else f"{rate:5.1f}" for rate in self.rates]
        total = None if None in self.rates else sum(rate for rate in self.rates if rate is not None)
        parts = [self.name.ljust(width), " ".join(cells[:3]), " ".join(cells[3:])]
        if self.summed:
            parts.append("     -" if total is None else f"{total:6.1f}")
        return "   ".join([*parts, self.source]).rstrip()


def table(corpus: Corpus, measured: Sequence[Measured]) -> str:
    """Return everything for people."""
    data, specs = corpus.data, [one.spec for one in measured]
    held = f"{corpus.images:,} images, {corpus.texts:,} captions; {corpus.source.name}"
    any_hit = "R@k in percent: queries with any relevant item among the first k"
    share = "recall@k in percent: found share of a query's relevant items"
    lines = [f"{data.title}, split {corpus.split}: {held}"]
    lines += section(any_hit, _rates(measured, "R"), published_of(data, specs))
    folded = [(one, one.folded) for one in measured if one.folded is not None]
    if folded:
        title = f"R@k in percent, the mean of {folded[0][1]['protocol']['folds']} contiguous folds of the images"
        rows = [Line(name=f"{one.spec}, {one.kind}, exact", rates=_of(found, "R")) for one, found in folded]
        lines += section(title, rows, published_of(data, specs, 1))
    lines += section(share, _rates(measured, "recall"))
    lines += ["", *(line for one in measured for line in costs(one)), measured[0].sentence()]
    return "\n".join(lines)


def section(title: str, rows: Sequence[Line], published: Sequence[PublishedRow] = ()) -> list[str]:
    """Return a table with its head, followed by published rows."""
    seen = [_published_line(row) for row in published]
    width = max(len(row.name) for row in [*rows, *seen])
    head = " " * width + "   image to text       text to image"
    columns = " " * width + "       1     5    10       1     5    10" + ("      sum" if rows[0].summed else "")
    lines = ["", title, head, columns, *(row.text(width) for row in rows)]
    return [*lines, "published:", *(row.text(width) for row in seen)] if seen else lines


def published_of(data: DataSet, specs: Sequence[str], place: int = 0) -> list[PublishedRow]:
    """Return the published rows to show: those of the encoders measured, then the landmarks."""
    name = PUBLISHED[data.name][place]
    found: list[PublishedRow] = []
    for spec in specs if name else ():
        found += [row for row in published_rows(name, spec) if row not in found]
    return found


def costs(one: Measured) -> list[str]:
    """Return what the approximate index found of the exact answers, and what a query costs."""
    if "ann" not in one.found:
        return [f"{one.spec}: too few items to train {'ivf-pq4'!r}, so every search is exact."]
    ann, shares = one.found["ann"], one.found["ann_recall@10"]
    parts = [
        f"{name} ann_recall@10 {shares[name]:.4f} at {ann[name]['ms_per_query']:.3g} ms a query" for name in DIRECTIONS
    ]
    return [f"{one.spec}, {one.ann}: {', '.join(parts)}."]


def figures(data: DataSet, measured: Sequence[Measured]) -> list[Figure]:
    """Return the same for the dated record, with 95 % intervals of what was measured exactly."""
    rows = [figure for one in measured for figure in _recorded(data, one)]
    for place, name in enumerate(PUBLISHED[data.name]):
        for row in published_of(data, [one.spec for one in measured], place):
            line = _published_line(row)
            rows.append(
                Figure(f"published, {name}: {line.name}, i2t and t2i R@1/5/10", _shown(line.rates), line.source)
            )
    return rows


def value(corpus: Corpus, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return everything for programs."""
    rows = published_of(corpus.data, [one.spec for one in measured])
    return {
        "dataset": corpus.data.name,
        "split": corpus.split,
        "images": corpus.images,
        "texts": corpus.texts,
        "corpus": corpus.source.name,
        "results": [
            {"encoder": one.spec, "kind": one.kind, "ann_kind": one.ann, **one.found, "folded": one.folded}
            for one in measured
        ],
        "published": [row.to_json() for row in rows],
    }


def _recorded(data: DataSet, one: Measured) -> list[Figure]:
    name = f"{one.spec}, {one.kind}"
    rows = []
    for how, found in one.rows():
        for direction in DIRECTIONS:
            for metric in ("R", "recall"):
                rates = _of({direction: found[direction]}, metric)
                label = f"{name}, {how}: {direction} {metric}@1/5/10"
                rows.append(Figure(label, _shown(rates) + _interval(found[direction], metric), unit="%"))
    rows.append(Figure(f"{name}, exact: rsum", one.found["rsum"]))
    if one.folded is not None:
        rates = _of(one.folded, "R")
        rows.append(Figure(f"{name}, mean of folds: i2t and t2i R@1/5/10", _shown(rates), unit="%"))
    if "ann" in one.found:
        for direction in DIRECTIONS:
            rows.append(Figure(f"{name}, {one.ann}: {direction} ann_recall@10", one.found["ann_recall@10"][direction]))
            rows.append(
                Figure(f"{name}, {one.ann}: {direction}", one.found["ann"][direction]["ms_per_query"], unit="ms")
            )
    return rows


def _rates(measured: Sequence[Measured], metric: str) -> list[Line]:
    return [
        Line(name=f"{one.spec}, {one.kind}, {how}", rates=_of(found, metric), summed=metric == "R")
        for one in measured
        for how, found in one.rows()
    ]


def _of(found: Mapping[str, Any], metric: str) -> list[float | None]:
    return [100 * found[name][f"{metric}@{k}"] for name in DIRECTIONS if name in found for k in CUTOFFS]


def _published_line(row: PublishedRow) -> Line:
    note = f"; {row.note}" if row.note else ""
    return Line(
        name=f"{row.model}, {row.kind}",
        rates=[*row.image_to_text, *row.text_to_image],
        source=f"{row.source} ({MARKS[row.mark]}{note})",
    )


def _shown(rates: Sequence[float | None]) -> str:
    return " / ".join("-" if rate is None else f"{rate:.1f}" for rate in rates)


def _interval(found: Mapping[str, Any], metric: str) -> str:
    ends = found.get("intervals", {}).get(f"{metric}@1")
    return f" (@1: {100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else ""
