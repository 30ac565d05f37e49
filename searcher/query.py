"""What a search is made with: texts, images, items of the index and ready vectors, checked and named for people."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.base import plain_array
from encoders.formats.films import file_behind
from storage.lexical.terms import terms
from storage.schema import MODALITIES, Collection, Modality

from .errors import ParameterError, QueryError

_MAX_TEXT = 100_000
MOST_WORDS = 10_000
MOST_PARTS = 32
_LARGEST_WEIGHT = 1000.0
_MAX_ITEM = 10_000
_URL = re.compile(r"^(https?|ftp|s3|gs|data|file):", re.IGNORECASE)
_SHOWN = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryPart:
    """One thing to search with.

    Attributes:
        kind: `text`, `image`, `item` (of the index) or `vector`; `composed` for several of them together; `words` for
            those of a lexical search, without a vector.
        label: For people: the text, the file's name, or what it is.
        content: The text; the path, bytes or PIL image; the item id; the vector (dim,); the parts.
        modality: What a text or an image is, and what a vector or an item stands for; None where that is not said.
        collection: Where an item is; None for among the images, else among the texts.
        weight: How much it counts beside other parts; negative for what is unwanted.
    """

    kind: Literal["text", "image", "item", "vector", "composed", "words"]
    label: str
    content: Any
    modality: Modality | None = None
    collection: Collection | None = None
    weight: float = 1.0


class ResolvedQuery(NamedTuple):
    """A query as a vector of the index.

    Attributes:
        part: What was asked with.
        vector: (dim,) float32, unit length.
        modality: What it stands for; None where that is not known.
        row: Collection and row of the item that it is, which is no hit of its own; None for one from outside.
        examples: The same of each item that a composed query has among its parts.
    """

    part: QueryPart
    vector: NDArray[np.float32]
    modality: Modality | None
    row: tuple[Collection, int] | None = None
    examples: tuple[tuple[Collection, int], ...] = ()

    def rows_in(self, collection: Collection) -> tuple[int, ...]:
        """The rows of a collection that are no hits of this query, being what it was made of."""
        own = (*self.examples, *(() if self.row is None else (self.row,)))
        return tuple(row for name, row in own if name == collection)


def text_part(text: Any) -> QueryPart:
    """Return a text to search with.

    Raises:
        QueryError: It is no text, has no words, or is too long.
    """
    if not isinstance(text, str):
        is_image = isinstance(text, bytes | Path | Image.Image)
        step = "search with an image by image_to_image or image_to_text" if is_image else "give a str"
        raise QueryError(
            f"this direction searches with text or a vector, and a query is of type {type(text).__name__}; {step}"
        )
    if not text.strip() or len(text) > _MAX_TEXT:
        raise QueryError(f"the query text {text[:40]!r} has {len(text)} characters; give 1 to {_MAX_TEXT:,} with words")
    if (reason := _not_unicode(text)) is not None:
        raise QueryError(f"the query text={text[:40]!r} is not Unicode text: {reason}; decode it first")
    return QueryPart(kind="text", label=text, content=text, modality="text")


def image_part(image: Any) -> QueryPart:
    """Return an image to search with: the path of a file, which is looked for but not read, its bytes, or a PIL image.

    Raises:
        QueryError: There is no such file, or it is none of these.
    """
    if isinstance(image, (str, Path)):
        name = str(image)
        _check_file(name)
        # Bytes of a name that are no UTF-8 show as the replacement sign, since results are Unicode.
        shown = os.fsencode(Path(name).name).decode("utf-8", errors="replace")
        return QueryPart(kind="image", label=shown, content=Path(name), modality="image")
    if isinstance(image, bytes):
        return QueryPart(kind="image", label=f"an image of {len(image)} bytes", content=image, modality="image")
    if isinstance(image, Image.Image):
        size = f"{image.width} x {image.height}"
        return QueryPart(kind="image", label=f"an image of {size}", content=image, modality="image")
    raise QueryError(
        "this direction searches with a path, bytes, a PIL image or a vector, "
        f"and a query is of type {type(image).__name__}"
    )


def vector_part(vector: NDArray[Any], modality: Modality | None) -> QueryPart:
    """Return a ready vector to search with, and what it stands for."""
    return QueryPart(kind="vector", label=f"a vector of {np.size(vector)} values", content=vector, modality=modality)


def item_part(item_id: str, collection: Collection | None = None, modality: Modality | None = None) -> QueryPart:
    """Return an item of the index to search with, by its id.

    Raises:
        ParameterError: The id is longer than any.
    """
    if len(item_id) > _MAX_ITEM or (reason := _not_unicode(item_id)) is not None:
        why = f"has {len(item_id)} characters" if len(item_id) > _MAX_ITEM else f"is not Unicode text: {reason}"
        raise ParameterError(f"item={shown_value(item_id)} {why}; give an item id of the index")
    known = MODALITIES[collection] if collection else modality
    return QueryPart(kind="item", label=item_id, content=item_id, modality=known, collection=collection)


def words_part(words: str) -> QueryPart:
    """Return words that are looked up in captions and ids, with no vector beside them.

    Raises:
        ParameterError: They have no letter or digit, are longer than 10,000 characters, or are no Unicode.
    """
    if len(words) > MOST_WORDS:
        raise ParameterError(f"words={shown_value(words)} has {len(words):,} characters; give {MOST_WORDS:,} at most")
    if (reason := _not_unicode(words)) is not None:
        raise ParameterError(f"words={shown_value(words)} is not Unicode text: {reason}; decode it first")
    if not terms(words):
        raise ParameterError(f"words={shown_value(words)} has no letter and no digit; give words to look up")
    return QueryPart(kind="words", label=words, content=words)


def check_parts(parts: Sequence[QueryPart]) -> None:
    """Refuse parts that make no query.

    Raises:
        ParameterError: A weight is no number, 0 or huge, or there are too many parts.
        QueryError: None of them is wanted.
    """
    for part in parts:
        weight = part.weight
        if not isinstance(weight, Real) or isinstance(weight, bool) or not 0 < abs(float(weight)) <= _LARGEST_WEIGHT:
            raise ParameterError(
                f"weight={shown_value(weight)} of {part.label[:60]!r} must be a number up to {_LARGEST_WEIGHT:g}, "
                "above 0 for what is wanted and below it for what is not"
            )
    if len(parts) > MOST_PARTS:
        raise ParameterError(f"the query has {len(parts)} parts; give {MOST_PARTS} at most")
    if parts and not any(part.weight > 0 for part in parts):
        raise QueryError(f"{parts[0].label[:60]!r} is unwanted and nothing is wanted; name what to look for too")


def split_queries(query: Any) -> tuple[list[Any], bool]:
    """Return the single queries, and whether it was one alone (not in a list, not a row of an array)."""
    query = plain_array(query)
    if isinstance(query, np.ndarray):
        if query.ndim not in (1, 2):
            raise QueryError(f"a query array has shape {query.shape}; give one vector (dim,) or several (n, dim)")
        return ([query], True) if query.ndim == 1 else (list(query), False)
    if isinstance(query, Sequence) and not isinstance(query, (str, bytes)):
        return list(query), False
    return [query], True


def query_part(query: Any, modality: Modality) -> QueryPart:
    """Return one query of a direction that starts from `modality`.

    Raises:
        QueryError: It is nothing that can be searched with in this direction.
    """
    query = plain_array(query)
    if isinstance(query, np.ndarray):
        return vector_part(query, modality)
    return text_part(query) if modality == "text" else image_part(query)


def _check_file(name: str) -> None:
    if _URL.match(name):
        raise QueryError(f"the query {name[:80]!r} is a URL, and nothing is fetched; save the image and give its path")
    try:
        is_file = bool(name) and "\0" not in name and file_behind(Path(name)).is_file()
    except OSError as error:
        raise QueryError(f"the query image {name[:80]!r} cannot be read: {error.strerror}; give a path") from error
    if not is_file:
        raise QueryError(
            f"there is no query image at {name[:200]!r}; give the path of a file, or search with words by text_to_image"
        )


def _not_unicode(text: str) -> str | None:
    """Why a text cannot be encoded; None where it can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.reason
    return None


def shown_value(value: Any) -> str:
    """Return a value as an error message shows it: whole where it is short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
