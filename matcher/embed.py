"""Columns of texts and images to unit vectors, each distinct content encoded once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder, ImageError
from encoders.images import DecodedImage, open_image, read_image_file

from .errors import DataError
from .tables import CellError, CellImage, Kind, all_image_paths, images_of, text_of
from .vector_memory import VectorMemory, image_key, text_key

Vectors = NDArray[np.float32]

# CellImages decoded at a time: their pixels take 0.6 MB each at 224 x 224.
_CHUNK = 128
_NAMED = 3
_SMALLEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Column:
    """Cells that are to be encoded, and what to call them.

    Attributes:
        name: Of the column.
        kind: `text` or `image`.
        cells: One a row.
        folder: Where relative image paths start; None for the working directory.
    """

    name: str
    kind: Kind
    cells: Sequence[Any]
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The vectors of a column.

    Attributes:
        vectors: (n, dim) float32 unit rows; zeros for the rows in `errors`.
        errors: For each row that cannot be used the reason.
    """

    vectors: Vectors
    errors: dict[int, str] = field(default_factory=dict)

    def checked(self, column: Column) -> Vectors:
        """Return the vectors where all rows can be used.

        Raises:
            DataError: Some cannot; the message names the first three and counts them.
        """
        if not self.errors:
            return self.vectors
        rows = sorted(self.errors)
        named = "; ".join(f"row {row}: {self.errors[row]}" for row in rows[:_NAMED])
        more = f"; and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        other = "text" if column.kind == "image" else "image"
        hint = f"; or is the column {other}?" if len(rows) == len(column.cells) else ""
        raise DataError(
            f"column {column.name!r} is declared {column.kind}, and {len(rows)} of its {len(column.cells)} rows "
            f"cannot be used: {named}{more}; mend or leave out these rows{hint}"
        )


class CellEncoder:
    """Encodes columns for one task and remembers what it has encoded, so that nothing is encoded twice.

    Attributes:
        encoder: What encodes.
        images_encoded: Distinct images that went through the encoder so far.
        texts_encoded: Distinct texts.
    """

    def __init__(self, encoder: Encoder, memory: VectorMemory | None = None) -> None:
        """Set up for a task.

        Args:
            encoder: What encodes.
            memory: What earlier tasks have encoded with it; None for nothing.
        """
        self.encoder = encoder
        self.images_encoded = 0
        self.texts_encoded = 0
        self._memory = VectorMemory(encoder, 0) if memory is None else memory
        self._texts: dict[str, Vectors] = {}
        self._images: dict[str, Vectors | str] = {}
        # By the hash of a file or of pixels.
        self._contents: dict[str, Vectors] = {}

    def embed(self, column: Column) -> Embedded:
        """Return the vectors of a column; rows that cannot be used are told, not raised."""
        return self._embed_texts(column) if column.kind == "text" else self._embed_images(column)

    def texts(self, texts: Iterable[str]) -> None:
        """Encode those texts that are new."""
        keys = {text: text_key(text) for text in texts if text not in self._texts}
        known = self._memory.get(keys.values())
        self._texts.update({text: known[key] for text, key in keys.items() if key in known})
        new = [text for text in keys if text not in self._texts]
        if new:
            vectors = self.encoder.encode_texts(new)
            self._texts.update(zip(new, vectors, strict=True))
            self._memory.put({keys[text]: vector for text, vector in zip(new, vectors, strict=True)})
            self.texts_encoded += len(new)

    def encoded(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) vectors of texts that `texts` has encoded."""
        return np.stack([self._texts[text] for text in texts])

    def _embed_texts(self, column: Column) -> Embedded:
        texts, errors = _each(column.cells, text_of)
        if all_image_paths([text for text in texts if text is not None]):
            raise DataError(
                f"column {column.name!r} is declared text, and all of it are names of image files such as "
                f"{next(text for text in texts if text is not None)[:100]!r}; declare it image"
            )
        self.texts(text for text in texts if text is not None)
        vectors = np.zeros((len(texts), self.encoder.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            if text is not None:
                vectors[row] = self._texts[text]
        return Embedded(vectors=vectors, errors=errors)

    def _embed_images(self, column: Column) -> Embedded:
        rows, errors = _each(column.cells, lambda cell: images_of(cell, column.folder))
        distinct = {image.key: image for images in rows for image in images or ()}
        self._encode([image for key, image in distinct.items() if key not in self._images])
        vectors = np.zeros((len(rows), self.encoder.dim), dtype=np.float32)
        for row, images in enumerate(rows):
            if images is None:
                continue
            parts = [self._images[image.key] for image in images]
            bad = next((part for part in parts if isinstance(part, str)), None)
            if bad is not None:
                errors[row] = bad
            else:
                vectors[row] = mean_direction(np.stack(parts))
        return Embedded(vectors=vectors, errors=errors)

    def _encode(self, images: Sequence[CellImage]) -> None:
        """Decode and encode images; those of the same content under two names are encoded once."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(images), _CHUNK):
                part = images[start : start + _CHUNK]
                # A file whose bytes are known is not even decoded.
                hashes = list(pool.map(self._hash_of, part))
                self._recall(digest for digest in hashes if digest)
                new = []
                for image, digest in zip(part, hashes, strict=True):
                    if digest in self._contents:
                        self._images[image.key] = self._contents[digest]
                    else:
                        new.append(image)
                self._encode_part(new, list(pool.map(self._opened, new)), pool)

    def _encode_part(
        self, part: Sequence[CellImage], decoded: Sequence[DecodedImage[Any] | str], pool: ThreadPoolExecutor
    ) -> None:
        opened = [one for one in decoded if not isinstance(one, str)]
        self._recall(one.info.sha256 for one in opened)
        new = {one.info.sha256: one for one in opened if one.info.sha256 not in self._contents}
        if new:
            pixels = np.stack(list(pool.map(lambda one: self.encoder.preprocess(one.pixels), new.values())))
            vectors = self.encoder.encode_pixels(pixels)
            self._contents.update(zip(new, vectors, strict=True))
            self._memory.put({image_key(digest): row for digest, row in zip(new, vectors, strict=True)})
            self.images_encoded += len(new)
        for image, one in zip(part, decoded, strict=True):
            self._images[image.key] = one if isinstance(one, str) else self._contents[one.info.sha256]

    def _recall(self, hashes: Iterable[str]) -> None:
        """Take what the memory has of these contents."""
        keys = {digest: image_key(digest) for digest in hashes if digest not in self._contents}
        known = self._memory.get(keys.values())
        self._contents.update({digest: known[key] for digest, key in keys.items() if key in known})

    def _hash_of(self, image: CellImage) -> str | None:
        """The hash of an image file as its bytes are now; None of anything else, and where nothing is remembered."""
        if not self._memory.max_bytes or not isinstance(image.source, Path | bytes):
            return None
        try:
            data = image.source if isinstance(image.source, bytes) else read_image_file(image.source)
        except ImageError:
            return None
        return hashlib.sha256(data).hexdigest()

    def _opened(self, image: CellImage) -> DecodedImage[Any] | str:
        try:
            return open_image(self.encoder, image.source)
        except ImageError as error:
            return error.detail if not isinstance(image.source, Path) else _with_path(error, image.source)


def mean_direction(vectors: Vectors) -> Vectors:
    """Return the unit mean of (n, dim) unit rows: what several images, or several wordings, stand for together.

    Where they cancel out, and there is no direction, the first stands for all.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    alone = len(vectors) == 1 or length < _SMALLEST
    return np.asarray(vectors[0] if alone else mean / length, dtype=np.float32)


def _each(cells: Sequence[Any], read: Any) -> tuple[list[Any], dict[int, str]]:
    """Read each cell; None and a reason where that fails."""
    embedded: list[Any] = []
    errors: dict[int, str] = {}
    for row, cell in enumerate(cells):
        try:
            embedded.append(read(cell))
        except CellError as error:
            embedded.append(None)
            errors[row] = str(error)
    return embedded, errors


def _with_path(error: ImageError, path: Path) -> str:
    return error.detail if repr(str(path)) in error.detail else f"{str(path)!r}: {error.detail}"
