"""The table of encoders: what the catalogue and the published figures say of each, joined, marked, sorted and printed.

Recall is R@1 in percent, any hit, zero-shot, on the Karpathy test splits of Flickr30K (1,000 images) and COCO (5,000).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from encoders.catalogue.entries import CatalogueEntry, load_entries, read_file
from encoders.catalogue.presets import PRESETS, Kind, choice
from evaluation.published import Dataset, published

from .console import align_columns

if TYPE_CHECKING:
    from encoders.speed import Speed

Order = Literal["recall", "speed", "size"]
ORDERS: tuple[Order, ...] = get_args(Order)
KINDS: tuple[Kind, ...] = get_args(Kind)
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class PublishedRecall:
    """R@1 of both directions, in percent, and the document; None where nothing was published."""

    text_to_image: float | None = None
    image_to_text: float | None = None
    source: str | None = None

    @property
    def mean(self) -> float | None:
        """The mean of both directions; None unless both are known."""
        if self.text_to_image is None or self.image_to_text is None:
            return None
        return (self.text_to_image + self.image_to_text) / 2

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON's own types."""
        return {"text_to_image": self.text_to_image, "image_to_text": self.image_to_text, "source": self.source}


@dataclass(frozen=True, kw_only=True)
class EncoderRow:
    """One line of the table.

    Attributes:
        entry: Its facts.
        flickr30k: What was published on Flickr30K.
        coco: What was published on COCO, 5,000 images.
        recall: What rows are compared by: the mean of both directions on COCO, or the recall in one language; None
            where it is unknown.
        pareto: Whether no other encoder of an open licence has as much recall for as little arithmetic an image.
        presets: By kind of device the presets that stand for it.
        speed: What was measured here; None where nothing was.
        not_measured: Why nothing was measured, although it was asked for.
    """

    entry: CatalogueEntry
    flickr30k: PublishedRecall
    coco: PublishedRecall
    recall: float | None
    pareto: bool = False
    presets: Mapping[Kind, Sequence[str]]
    speed: Speed | None = None
    not_measured: str | None = None


def encoder_rows(language: str | None = None) -> list[EncoderRow]:
    """Return a row for each encoder of the catalogue, in its order.

    Args:
        language: Compare by the recall in this language (a code of `languages()`); None compares by COCO.
    """
    entries = load_entries()
    flickr30k = {entry.spec: _published("flickr30k", entry.spec) for entry in entries}
    coco = {entry.spec: _published("coco-5k", entry.spec) for entry in entries}
    recall = {entry.spec: entry.xm3600.get(language) if language else coco[entry.spec].mean for entry in entries}
    front = _pareto([entry for entry in entries if entry.terms == "open"], recall)
    return [
        EncoderRow(
            entry=entry,
            flickr30k=flickr30k[entry.spec],
            coco=coco[entry.spec],
            recall=recall[entry.spec],
            pareto=entry.spec in front,
            presets={kind: [name for name in PRESETS if choice(name, kind) == entry.spec] for kind in KINDS},
        )
        for entry in entries
    ]


def sorted_rows(rows: Sequence[EncoderRow], order: Order) -> list[EncoderRow]:
    """Return rows by falling recall, by speed (the fastest first), or by size (the smallest first); unknown ones last.

    Speed is what was measured, else the arithmetic of an image; size the parameters of both towers.
    """

    def key(row: EncoderRow) -> tuple[float, float]:
        match order:
            case "recall":
                return (math.inf if row.recall is None else -row.recall), row.entry.image_gflops
            case "speed":
                return -row.speed.images_per_second if row.speed else 0.0, row.entry.image_gflops
            case "size":
                return row.entry.mparams or math.inf, row.entry.image_gflops

    return sorted(rows, key=key)


def _published(dataset: Dataset, spec: str) -> PublishedRecall:
    """Return what was published for an encoder: by its authors rather than by others, and both ways rather than one."""
    rows = [row for row in published(dataset, "zero-shot") if row.encoder == spec]
    found = [
        PublishedRecall(text_to_image=row.text_to_image[0], image_to_text=row.image_to_text[0], source=row.source)
        for row in sorted(rows, key=lambda row: row.mark != "S")
    ]
    known = [one for one in found if (one.text_to_image, one.image_to_text) != (None, None)]
    return next((one for one in known if one.mean is not None), known[0] if known else PublishedRecall())


def _pareto(entries: Sequence[CatalogueEntry], recalls: Mapping[str, float | None]) -> set[str]:
    """Return the specs that no other one beats in recall or arithmetic without losing in the other."""
    found = [(entry.spec, recalls[entry.spec], entry.image_gflops) for entry in entries]
    known = {spec: (-recall, cost) for spec, recall, cost in found if recall is not None}
    return {
        spec
        for spec, (loss, cost) in known.items()
        if not any(a <= loss and b <= cost and (a, b) != (loss, cost) for a, b in known.values())
    }


def table_text(rows: Sequence[EncoderRow], kind: Kind, language: str | None, measured: bool) -> str:
    """Return rows as a table with a header, and below it what its signs mean and where its figures come from."""
    letters = _letters(rows)
    header = ["encoder", "preset", "*", "Flickr30K", "COCO", *([language] if language else [])]
    header += ["parameters M", "GFLOPs", "dim", "bytes", *(["images/s", "ms a text"] if measured else [])]
    lines = [(*header, "languages", "licence", "from")]
    for row in rows:
        entry = row.entry
        cells = [entry.spec, ", ".join(row.presets[kind]), "*" if row.pareto else "", _both(row.flickr30k)]
        cells += [_both(row.coco), *([_figure(entry.xm3600.get(language))] if language else [])]
        cells += [f"{_size(entry.image_mparams)}+{_size(entry.text_mparams)}", _figure(entry.image_gflops)]
        cells += [str(entry.dim), f"{entry.item_bytes:,}", *(_speed(row) if measured else [])]
        lines.append((*cells, entry.languages, licence_words(entry), "".join(_sources_of(row, letters))))
    notes = [*_legend(kind, language), *(f"{letter}: {source}" for source, letter in letters.items())]
    notes += [f"not measured: {row.entry.spec}: {row.not_measured}" for row in rows if row.not_measured]
    return "\n".join([align_columns(lines), "", *notes])


def licence_words(entry: CatalogueEntry) -> str:
    """Return what a licence allows, and its name."""
    return f"{entry.terms} ({entry.licence})"


def _legend(kind: Kind, language: str | None) -> list[str]:
    compared = f"recall in {language!r}" if language else "COCO"
    notes = [
        "Flickr30K, COCO: published R@1 in percent, zero-shot, text to image / image to text.",
        f"*: of the open licences none has as much ({compared}) for as little arithmetic an image; unknown comes last.",
        "parameters: image+text tower; GFLOPs: for an image; bytes: for an item of a large index, vector and code.",
        f"presets on {kind}: " + "; ".join(f"{name}, {words}" for name, words in PRESETS.items()) + ".",
    ]
    return [*notes, *([f"{language}: {read_file()['xm3600_source']}."] if language else [])]


def _letters(rows: Sequence[EncoderRow]) -> dict[str, str]:
    """Return a letter for each document that some figure comes from."""
    sources = dict.fromkeys(source for row in rows for source in (row.flickr30k.source, row.coco.source) if source)
    return {source: chr(ord("a") + number) for number, source in enumerate(sources)}


def _sources_of(row: EncoderRow, letters: Mapping[str, str]) -> list[str]:
    return sorted({letters[source] for source in (row.flickr30k.source, row.coco.source) if source})


def _both(recall: PublishedRecall) -> str:
    if recall.source is None:
        return UNKNOWN
    return f"{_figure(recall.text_to_image)} / {_figure(recall.image_to_text)}"


def _figure(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"


def _size(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _speed(row: EncoderRow) -> list[str]:
    if row.speed is None:
        return ["-", "-"]
    return [f"{row.speed.images_per_second:,.2f}", f"{row.speed.text_ms:,.0f}"]


def table_json(rows: Sequence[EncoderRow], language: str | None) -> dict[str, Any]:
    """Return the table in JSON's own types; what is unknown is null."""
    return {
        "language": language,
        "presets": {name: {kind: choice(name, kind) for kind in KINDS} for name in PRESETS},
        "sizes_source": read_file()["sizes_source"],
        "xm3600_source": read_file()["xm3600_source"],
        "encoders": [_row_json(row) for row in rows],
    }


def _row_json(row: EncoderRow) -> dict[str, Any]:
    entry, speed = row.entry, row.speed
    return {
        "spec": entry.spec,
        "presets": {kind: list(names) for kind, names in row.presets.items()},
        "pareto": row.pareto,
        "flickr30k": row.flickr30k.to_json(),
        "coco_5k": row.coco.to_json(),
        "xm3600": dict(entry.xm3600),
        "image_size": entry.image_size,
        "dim": entry.dim,
        "image_mparams": entry.image_mparams,
        "text_mparams": entry.text_mparams,
        "image_gflops": entry.image_gflops,
        "text_gflops": entry.text_gflops,
        "vector_bytes": entry.vector_bytes,
        "code_bytes": entry.code_bytes,
        "licence": entry.licence,
        "terms": entry.terms,
        "licence_source": entry.licence_source,
        "languages": entry.languages,
        "images_per_second": speed.images_per_second if speed else None,
        "text_ms": speed.text_ms if speed else None,
        "measured_on": f"{speed.device} {speed.precision}" if speed else None,
        "not_measured": row.not_measured,
    }


def table_markdown(rows: Sequence[EncoderRow]) -> str:
    """Return rows as a table of Markdown, as docs/encoders.md has it."""
    letters = _letters(rows)
    lines = ["| encoder | | Flickr30K | COCO | parameters M | GFLOPs | dim | bytes | languages | licence | from |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        entry = row.entry
        name = f"`{entry.spec}`" + ("" if entry.terms == "open" else f" **{entry.terms}**")
        size = f"{_size(entry.image_mparams)} + {_size(entry.text_mparams)}"
        cells = [name, "*" if row.pareto else "", _both(row.flickr30k), _both(row.coco), size]
        cells += [_figure(entry.image_gflops), str(entry.dim), f"{entry.item_bytes:,}", entry.languages, entry.licence]
        lines.append("| " + " | ".join([*cells, "".join(_sources_of(row, letters))]).replace("|  |", "| |") + " |")
    return "\n".join([*lines, "", *(f"- {letter}: {source}" for source, letter in letters.items())])
