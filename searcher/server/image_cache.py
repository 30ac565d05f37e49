"""Small pictures of indexed items, by item; never the files themselves."""

from __future__ import annotations

import io
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders import DecodeLimits, decode_image
from encoders.errors import ImageError

from ..render.image_files import picture_source, thumbnail
from .errors import RefusedError
from .live_index import Generation

Size = Literal["small", "large"]
BOXES: dict[Size, tuple[int, int]] = {"small": (480, 360), "large": (1280, 960)}
_QUALITY = 82
_KEPT_BYTES = 64 * 1024 * 1024
# A photograph is decoded at the size that is still twice what is shown.
_MARGIN = 2.0


@dataclass(frozen=True)
class Picture:
    """A JPEG file in memory, and the name by which a browser knows that it has it already."""

    data: bytes
    etag: str


class Pictures:
    """Makes small pictures, and keeps the last ones: 64 MiB of them. Safe from many threads."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, int, Size], Picture] = OrderedDict()
        self._bytes = 0

    def of_item(self, generation: Generation, item_id: str, size: Size) -> Picture:
        """Return the small picture of an image item.

        Raises:
            RefusedError: 404, there is no such image, or its file is gone or cannot be shown; the message says which.
        """
        if "images" not in generation.collections:
            raise RefusedError(404, "this index has no images, so there are no thumbnails")
        _, row = generation.find(item_id, "images")
        key = (generation.number, row, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture = self._made(generation, item_id, row, size)
        self._keep(key, picture)
        return picture

    def of_query(self, data: bytes) -> Picture:
        """Return the small picture of a query picture.

        Raises:
            RefusedError: 415, it cannot be shown.
        """
        return _jpeg(self._small(data, "small", "the query picture cannot be shown", 415))

    def _made(self, generation: Generation, item_id: str, row: int, size: Size) -> Picture:
        (entry,) = generation.entries("images", [row])
        source = picture_source(entry["uri"], generation.root)
        name = f"the picture of {item_id[:200]!r} cannot be shown"
        if source is None:
            raise RefusedError(404, f"{name}: the index names no file for it")
        return _jpeg(self._small(source, size, name, 404))

    def _small(self, source: Path | bytes, size: Size, name: str, status: int) -> Image.Image:
        box = BOXES[size]
        try:
            # Decoded no larger than it must be; the thumbnail itself is what galleries and contact sheets have.
            decoded = decode_image(source, self._limits, shrink=lambda wide, high: _shrink(wide, high, box))
        except ImageError as error:
            # Of the reasons only the word: the sentence names the file.
            raise RefusedError(status, f"{name}: {_REASONS.get(error.reason, error.reason)}") from error
        # No larger than it is: a browser enlarges as well, and sooner.
        small = thumbnail(decoded.pixels, (min(box[0], decoded.pixels.width), min(box[1], decoded.pixels.height)))
        if small.image is None:
            raise RefusedError(status, f"{name}: {small.problem}")
        return small.image

    def _keep(self, key: tuple[int, int, Size], picture: Picture) -> None:
        with self._lock:
            if key not in self._kept:
                self._bytes += len(picture.data)
            self._kept[key] = picture
            while self._bytes > _KEPT_BYTES:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= len(gone.data)


_REASONS = {
    "missing": "its file is not where the index was built; start the server with --root",
    "unreadable": "its file cannot be read",
    "not_an_image": "its file is no picture",
    "unsupported_format": "its format is not supported",
    "corrupt": "its file is damaged",
    "too_large": "its file is too large",
    "too_many_pixels": "it has too many pixels",
    "empty": "its file is empty",
}


def _shrink(width: int, height: int, box: tuple[int, int]) -> float:
    return max(1.0, max(width / box[0], height / box[1]) / _MARGIN)


def _jpeg(image: Image.Image) -> Picture:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_QUALITY)
    data = file.getvalue()
    return Picture(data, f'"{sha256(data).hexdigest()[:32]}"')


_KEPT = 512


@dataclass(frozen=True, kw_only=True)
class QueryPicture:
    """A picture that was searched with.

    Attributes:
        vector: (dim,), unit length.
        fingerprint: Of the encoder that made the vector.
        thumbnail: To show what was asked.
    """

    vector: NDArray[np.float32]
    fingerprint: str
    thumbnail: Picture


class QueryPictures:
    """The last 512 query pictures, in memory alone. Belongs to one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, QueryPicture] = OrderedDict()

    def keep(self, picture: QueryPicture) -> str:
        """Return a new name for a picture; nobody can guess it."""
        name = secrets.token_urlsafe(12)
        self._kept[name] = picture
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> QueryPicture | None:
        """Return a picture by its name, or None where it is no longer known."""
        return self._kept.get(name)
