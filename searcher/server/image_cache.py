"""Thumbnails of indexed images and of query images, remembered; never the files themselves."""

from __future__ import annotations

import io
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders import DecodeLimits, decode_image
from encoders.errors import ImageError
from encoders.formats.films import film_of
from encoders.images import DecodedImage
from encoders.remembered import FileState
from storage.lru import Lru

from ..relevance_map import shaded
from ..render.thumbnails import thumbnail
from .errors import RefusedError
from .snapshot import Snapshot

Size = Literal["small", "large"]
BOXES: dict[Size, tuple[int, int]] = {"small": (480, 360), "large": (1280, 960)}
_QUALITY = 82
_KEPT_BYTES = 64 * 1024 * 1024
_KEPT_FILMS = 4096
# A photograph is decoded at the size that is still twice what is shown.
_MARGIN = 2.0


@dataclass(frozen=True)
class Jpeg:
    """A JPEG file in memory, and the name by which a browser knows that it has it already."""

    data: bytes
    etag: str


class _Film(NamedTuple):
    """A film that may be shown as long as its file stays as it is."""

    film: Path
    state: FileState


class Thumbnails:
    """Makes thumbnails, and keeps the last ones: 64 MiB of them. Safe from many threads."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._films: dict[tuple[int, int], _Film] = {}
        self._made: Lru[tuple[int, int, Size], Jpeg] = Lru(_KEPT_BYTES, lambda jpeg: len(jpeg.data))

    def known(self, snapshot: Snapshot, item_id: str, size: Size) -> Jpeg | None:
        """Return a thumbnail that was made lately, at once; None for any other."""
        row = snapshot.known_row("images", item_id)
        return None if row is None else self._made.get((snapshot.number, row, size))

    def of_item(self, snapshot: Snapshot, item_id: str, size: Size) -> Jpeg:
        """Return the thumbnail of an image item.

        Raises:
            RefusedError: 404, there is no such image, or its file is gone or cannot be shown; the message says which.
        """
        if "images" not in snapshot.collections:
            raise RefusedError(404, "this index has no images, so there are no thumbnails")
        _, row = snapshot.find(item_id, "images")
        key = (snapshot.number, row, size)
        jpeg = self._made.get(key)
        if jpeg is None:
            jpeg = jpeg_of(self._small(snapshot, item_id, row, size))
            self._made.put(key, jpeg)
        return jpeg

    def film_of(self, snapshot: Snapshot, item_id: str) -> Path:
        """Return the film that an image item is a frame of.

        Raises:
            RefusedError: 404, it is none, or the film is not the one that was indexed.
        """
        _, row = snapshot.find(item_id, "images")
        known = self._films.get((snapshot.number, row))
        if known is not None and FileState.of(known.film) == known.state:
            return known.film
        (entry,) = snapshot.entries("images", [row])
        source = snapshot.image_source(row, entry["uri"])
        film = film_of(str(source)) if isinstance(source, Path) and not source.exists() else None
        name = f"the film of {item_id[:200]!r} cannot be shown"
        if source is None or film is None:
            raise RefusedError(404, f"{name}: that image is no frame of a film")
        state = FileState.of(Path(film[0]))
        if not snapshot.may_show(row, entry["uri"]):
            self._check_same(self._decoded(source, "small", name, 404), entry, name)
        if len(self._films) >= _KEPT_FILMS:
            self._films.clear()
        self._films[snapshot.number, row] = _Film(Path(film[0]), state)
        return Path(film[0])

    def of_query(self, data: bytes) -> Jpeg:
        """Return the thumbnail of a query image.

        Raises:
            RefusedError: 415, it cannot be shown.
        """
        name = "the query image cannot be shown"
        return jpeg_of(_small(self._decoded(data, "small", name, 415).pixels, "small", name, 415))

    def image_of(self, snapshot: Snapshot, item_id: str, size: Size) -> Image.Image:
        """Return an image item as large as its thumbnail of a size is.

        Raises:
            RefusedError: As of `of_item`.
        """
        if "images" not in snapshot.collections:
            raise RefusedError(404, "this index has no images, so there are no thumbnails")
        _, row = snapshot.find(item_id, "images")
        return self._small(snapshot, item_id, row, size)

    def _small(self, snapshot: Snapshot, item_id: str, row: int, size: Size) -> Image.Image:
        (entry,) = snapshot.entries("images", [row])
        source = snapshot.image_source(row, entry["uri"])
        name = f"the image {item_id[:200]!r} cannot be shown"
        if source is None:
            raise RefusedError(404, f"{name}: the index names no file for it")
        decoded = self._decoded(source, size, name, 404)
        if not snapshot.may_show(row, entry["uri"]):
            self._check_same(decoded, entry, name)
        return _small(decoded.pixels, size, name, 404)

    def _check_same(self, decoded: DecodedImage[Image.Image], entry: Mapping[str, Any], name: str) -> None:
        """Check a checksum: who sends an index could name any file, but not know the checksum of one that he lacks."""
        if decoded.info.sha256 != entry["sha256"]:
            raise RefusedError(404, f"{name}: its file is not the one that was indexed; {_OTHER_FILE}")

    def _decoded(self, source: Path | bytes, size: Size, name: str, status: int) -> DecodedImage[Image.Image]:
        box = BOXES[size]
        try:
            # Decoded no larger than it must be; the thumbnail itself is what galleries and contact sheets have.
            return decode_image(source, self._limits, shrink=lambda wide, high: _shrink(wide, high, box))
        except ImageError as error:
            # Of the reasons only the word: the sentence names the file.
            raise RefusedError(status, f"{name}: {_REASONS.get(error.reason, error.reason)}") from error


_OTHER_FILE = "build with --update, or start the server with --root, the folder whose images may be shown"


def _small(image: Image.Image, size: Size, name: str, status: int) -> Image.Image:
    """Return an image as small as it is shown, and no larger than it is: a browser enlarges as well, and sooner."""
    box = BOXES[size]
    small = thumbnail(image, (min(box[0], image.width), min(box[1], image.height)))
    if small.image is None:
        raise RefusedError(status, f"{name}: {small.problem}")
    return small.image


_REASONS = {
    "missing": "its file is not where the index was built; start the server with --root",
    "unreadable": "its file cannot be read",
    "not_an_image": "its file is no image",
    "unsupported_format": "its format is not supported",
    "corrupt": "its file is damaged",
    "too_large": "its file is too large",
    "too_many_pixels": "it has too many pixels",
    "too_slow": "it takes too long to decode",
    "empty": "its file is empty",
}


def _shrink(width: int, height: int, box: tuple[int, int]) -> float:
    return max(1.0, max(width / box[0], height / box[1]) / _MARGIN)


def jpeg_of(image: Image.Image) -> Jpeg:
    """Return an image as the JPEG that a page shows."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_QUALITY)
    data = file.getvalue()
    return Jpeg(data, f'"{sha256(data).hexdigest()[:32]}"')


def shaded_jpeg(image: Image.Image, relevance: NDArray[np.float32]) -> Jpeg:
    """Return an image as small as a page shows it, dark where a map (n, n) of it is low."""
    small = image.copy()
    small.thumbnail(BOXES["small"])
    return jpeg_of(shaded(small, relevance))


_KEPT_QUERIES = 512


@dataclass(frozen=True, kw_only=True)
class QueryImage:
    """An image that was searched with.

    Attributes:
        vector: (dim,), unit length.
        fingerprint: Of the encoder that made the vector.
        thumbnail: To show what was asked.
    """

    vector: NDArray[np.float32]
    fingerprint: str
    thumbnail: Jpeg


class QueryImages:
    """The last 512 query images, in memory alone."""

    def __init__(self) -> None:
        self._images: Lru[str, QueryImage] = Lru(_KEPT_QUERIES)

    def keep(self, image: QueryImage) -> str:
        """Return a new name for an image; nobody can guess it."""
        name = secrets.token_urlsafe(12)
        self._images.put(name, image)
        return name

    def find(self, name: str) -> QueryImage | None:
        """Return an image by its name, or None where it is no longer known."""
        return self._images.get(name)
