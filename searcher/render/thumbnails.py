"""Thumbnails of hits and queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from encoders.errors import ImageError
from encoders.formats.films import file_behind
from encoders.images import decode_image

from ..hits import Hit, Hits
from ..originals import image_source


def missing_images(results: Iterable[Hits], root: Path | None) -> list[str]:
    """Return the `uri` of each image hit whose file is not where it was, each once, in order."""
    uris = (hit.uri for hits in results if hits.collection == "images" for hit in hits if hit.uri)
    sources = {uri: image_source(uri, root) for uri in uris}
    return [uri for uri, source in sources.items() if isinstance(source, Path) and not file_behind(source).exists()]


_LARGEST_ENLARGEMENT = 4.0
_PROBLEMS = {"missing": "file not found", "not_an_image": "not an image", "unsupported_format": "format not supported"}


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A thumbnail, or why there is none: exactly one of the two is set."""

    image: Image.Image | None = None
    problem: str | None = None


def thumbnail(source: Any, box: tuple[int, int]) -> Thumbnail:
    """Return a thumbnail that fits into `box`, aspect kept, enlarged at most four times.

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
    """Return the thumbnail of an image hit; `root` is the folder that its `uri` is relative to."""
    return thumbnail(image_source(hit.uri, root or hit.root), box)
