"""Published figures to show beside ours, each with its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

Dataset = Literal["flickr30k", "coco-5k", "coco-1k", "flickr8k"]
Kind = Literal["zero-shot", "fine-tuned", "regions"]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)
KINDS: tuple[Kind, ...] = get_args(Kind)
MARKS: Mapping[str, str] = {"S": "seen in its authors' document", "T": "quoted by a third party"}

_FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One line of a published table: R@1, R@5 and R@10 in percent, any hit, on the Karpathy test split.

    Attributes:
        model: What was measured.
        encoder: The encoder spec with the same weights; None where there is none.
        dataset: `flickr30k`, `coco-5k` or `coco-1k` (the mean of five folds).
        kind: `zero-shot`, `fine-tuned`, or `regions` for models on region features without web-scale pre-training.
        image_to_text: R@1, R@5, R@10 of images that ask for texts; None where none was published.
        text_to_image: The same of texts that ask for images.
        mark: `S` or `T`; `MARKS` says what they mean.
        source: The document.
        note: What one must know to compare; None where nothing.
        landmark: Whether it stands beside every result of its data set.
    """

    model: str
    encoder: str | None
    dataset: Dataset
    kind: Kind
    image_to_text: tuple[float | None, float | None, float | None]
    text_to_image: tuple[float | None, float | None, float | None]
    mark: Literal["S", "T"]
    source: str
    note: str | None = None
    landmark: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON's own types."""
        values: dict[str, Any] = {"model": self.model, "encoder": self.encoder, "kind": self.kind}
        values |= {"text_to_image": list(self.text_to_image), "image_to_text": list(self.image_to_text)}
        return values | {"mark": self.mark, "source": self.source, "note": self.note}


def published(dataset: str, kind: str | None = None) -> list[PublishedRow]:
    """Return all rows of a data set, of one kind where one is given, in the order of the file.

    For `flickr8k` there is none: nothing was found that names its source.

    Raises:
        ValueError: The data set or the kind is unknown.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset {dataset!r} has no published rows; choose one of {', '.join(DATASETS)}")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    return [row for row in _rows() if row.dataset == dataset and kind in (None, row.kind)]


def published_rows(dataset: str, encoder_spec: str | None = None) -> list[PublishedRow]:
    """Return the few rows to show beside a result: those of the same encoder first, then the landmarks.

    Args:
        dataset: As for `published`.
        encoder_spec: What made the vectors, such as `ViT-B-32/openai`; None where that is unknown.

    Raises:
        ValueError: The data set is unknown.
    """
    rows = published(dataset)
    same = [row for row in rows if encoder_spec is not None and row.encoder == encoder_spec]
    return same + [row for row in rows if row.landmark and row not in same]


@cache
def _rows() -> tuple[PublishedRow, ...]:
    return tuple(_row(line) for line in json.loads(_FILE.read_text(encoding="utf-8")))


def _row(line: Mapping[str, Any]) -> PublishedRow:
    figures = {name: tuple(line[name]) for name in ("image_to_text", "text_to_image")}
    return PublishedRow(**{**line, **figures})
