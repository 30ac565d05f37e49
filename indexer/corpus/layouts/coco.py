"""COCO's own caption files, `captions_val2017.json`, and the `coco_test_karpathy.json` that others made of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import SourceError
from ..item import Rejection
from ..tables.cells import plain
from .captioned import Captioned, DataSet

# captions_val2014.json, and coco_test_karpathy.json, which has the same keys.
SPLIT_IN_NAME = re.compile(r"(train|val|test)(?:\d{4}|_karpathy)", re.IGNORECASE)


def is_coco(value: Mapping[str, Any]) -> bool:
    """True for `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`."""
    return isinstance(value.get("images"), list) and isinstance(value.get("annotations"), list)


def coco_data(path: Path, value: Mapping[str, Any]) -> DataSet:
    """The images of a COCO file, captions in the order of their annotations; the split comes from the file's name.

    Raises:
        SourceError: An image lacks `id` or `file_name`, or an annotation is not a caption.
    """
    captions: dict[str | None, list[str | None]] = defaultdict(list)
    for number, note in enumerate(value["annotations"]):
        if not isinstance(note, dict) or not {"image_id", "caption"} <= note.keys():
            raise SourceError(f"annotation {number} of {path.name} is no caption: it lacks 'image_id' or 'caption'")
        captions[plain(note["image_id"])].append(note["caption"] if isinstance(note["caption"], str) else None)
    match = SPLIT_IN_NAME.search(path.name)
    split = match[1].lower() if match else None
    images = []
    for number, image in enumerate(value["images"]):
        location = f"image {number} of {path.name}"
        name = plain(image.get("file_name")) if isinstance(image, dict) else None
        if name is None or "id" not in image:
            raise SourceError(f"{location} lacks 'id' or 'file_name'; expected the layout of captions_val2017.json")
        images.append(_image(image["id"], name, location, split, captions.pop(plain(image["id"]), [])))
    return DataSet(
        name=f"COCO captions {path.name}",
        folder=path.parent,
        images=images,
        metadata_schema=pa.schema([("coco_id", pa.int64())]),
        rejected=tuple(_orphans(captions, path)),
    )


def _image(key: Any, name: str, location: str, split: str | None, captions: list[str | None]) -> Captioned:
    metadata = {"coco_id": key} if isinstance(key, int) else {}
    return Captioned(name=name, location=location, split=split, captions=captions, metadata=metadata)


def _orphans(captions: Mapping[str | None, list[str | None]], path: Path) -> Iterator[Rejection]:
    for key, texts in captions.items():
        for number in range(len(texts)):
            yield Rejection(
                item_id=f"{key}#{number}",
                collection="texts",
                uri=path.name,
                stage="read",
                reason="unknown_image",
                detail=f"a caption in {path.name} is for image id {key!r}, which is not among its images",
            )
