"""Small pictures of hits and queries, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from encoders.errors import ImageError
from encoders.images import decode_image

from .hits import Hit
from .paths import picture_source

_LARGEST_ENLARGEMENT = 4.0
_PROBLEMS = {"missing": "file not found", "not_an_image": "not a picture", "unsupported_format": "format not supported"}


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small picture, or why there is none: exactly one of the two is set."""

    image: Image.Image | None = None
    problem: str | None = None


def thumbnail(source: Any, box: tuple[int, int]) -> Thumbnail:
    """Return a picture that fits into `box`, aspect kept, enlarged at most four times.

    `source` is what `decode_image` takes, or None.
    """
    if source is None:
        return Thumbnail(problem="no file is named")
    try:
        image = decode_image(source).pixels
    except ImageError as error:
        return Thumbnail(problem=_PROBLEMS.get(error.reason, error.reason.replace("_", " ")))
    factor = min(box[0] / image.width, box[1] / image.height, _LARGEST_ENLARGEMENT)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return Thumbnail(image=image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def hit_thumbnail(hit: Hit, root: Path | None, box: tuple[int, int]) -> Thumbnail:
    """Return the small picture of an image hit; `root` is the folder that its `uri` is relative to."""
    return thumbnail(picture_source(hit.uri, root), box)
