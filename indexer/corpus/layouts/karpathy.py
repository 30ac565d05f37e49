"""Karpathy's splits of Flickr8k, Flickr30K and COCO: `dataset_flickr30k.json` and the like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import SourceError
from ..tables.cells import plain
from .captioned import Captioned, DataSet


def is_karpathy(value: Mapping[str, Any]) -> bool:
    """True for `{"images": [{"filename", "sentences": [{"raw"}], ...}]}`."""
    images = value.get("images")
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


def karpathy_data(path: Path, value: Mapping[str, Any]) -> DataSet:
    """The images of a Karpathy file. COCO's `filepath` becomes part of the name, `cocoid` a metadata column.

    Raises:
        SourceError: An entry has no file name, or no list of sentences.
    """
    images = [_image(entry, f"image {number} of {path.name}") for number, entry in enumerate(value["images"])]
    columns = [("cocoid", pa.int64())] if any(image.metadata for image in images) else []
    return DataSet(
        name=f"Karpathy splits {path.name}", folder=path.parent, images=images, metadata_schema=pa.schema(columns)
    )


def _image(entry: Any, location: str) -> Captioned:
    name = plain(entry.get("filename")) if isinstance(entry, dict) else None
    sentences = entry.get("sentences") if isinstance(entry, dict) else None
    if name is None or not isinstance(sentences, list):
        raise SourceError(f"{location} lacks 'filename' or 'sentences'; expected the layout of dataset_flickr30k.json")
    folder = plain(entry.get("filepath"))
    cocoid = entry.get("cocoid")
    return Captioned(
        name=f"{folder}/{name}" if folder else name,
        location=location,
        split=plain(entry.get("split")),
        captions=[_raw(sentence) for sentence in sentences],
        metadata={"cocoid": cocoid} if isinstance(cocoid, int) else {},
    )


def _raw(sentence: Any) -> str | None:
    raw = sentence.get("raw") if isinstance(sentence, dict) else sentence
    return raw if isinstance(raw, str) else None
