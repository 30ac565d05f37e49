"""What a model learns from: pictures with their captions, or pairs of any two things that do or do not match."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from encoders import ImageError, decode_image
from encoders.base import ImageLike

from .errors import ExamplesError
from .table_file import read_table_file

Kind = Literal["image", "text"]
Content = ImageLike
"""A text (kind `text`), or a picture as `encoders.decode_image` takes it (kind `image`)."""


@dataclass(frozen=True)
class CaptionedImages:
    """Pictures and, for each, the texts that describe it.

    Attributes:
        images: Paths, bytes of files, or PIL images.
        captions: `captions[i]` describe `images[i]`; at least one each.
    """

    images: Sequence[ImageLike]
    captions: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            counts = f"{len(self.images)} images and {len(self.captions)} lists of captions"
            raise ExamplesError(f"{counts} do not go together; give one list of captions for each image")
        for row, texts in enumerate(self.captions):
            _check_captions(row, texts)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int] | np.ndarray) -> CaptionedImages:
        """Return some of the images, each with all of its captions."""
        return CaptionedImages([self.images[i] for i in rows], [self.captions[i] for i in rows])


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Pairs with labels: `left[i]` and `right[i]` match (1) or do not (0).

    Attributes:
        left: Contents of the kind `left_kind`.
        right: Contents of the kind `right_kind`.
        labels: 0 or 1 for each pair; None where all pairs match.
        left_kind: `image` or `text`.
        right_kind: `image` or `text`; may be the same.
    """

    left: Sequence[Content]
    right: Sequence[Content]
    labels: Sequence[int] | None = None
    left_kind: Kind = "text"
    right_kind: Kind = "image"

    def __post_init__(self) -> None:
        labels = self.labels if self.labels is not None else [1] * len(self.left)
        if not len(self.left) == len(self.right) == len(labels):
            counts = f"{len(self.left)} left, {len(self.right)} right and {len(labels)} labels"
            raise ExamplesError(f"{counts} do not go together; give lists of one length")
        wrong = next((label for label in labels if label not in (0, 1)), None)
        if wrong is not None:
            raise ExamplesError(f"label {wrong!r} is neither 0 (no match) nor 1 (match)")
        for kind, contents in ((self.left_kind, self.left), (self.right_kind, self.right)):
            _check_contents(kind, contents)

    def __len__(self) -> int:
        return len(self.left)


def _check_captions(row: int, texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ExamplesError(f"image {row} has the one text {texts[:40]!r} for a list; put its captions in a list")
    if not len(texts):
        raise ExamplesError(f"image {row} has no caption; leave it out or give it at least one")
    for text in texts:
        _check_text(text, f"image {row}")


def _check_contents(kind: str, contents: Sequence[Content]) -> None:
    if kind not in ("image", "text"):
        raise ExamplesError(f"content kind {kind!r} is neither 'image' nor 'text'")
    for row, content in enumerate(contents):
        if kind == "text":
            _check_text(content, f"pair {row}")
        elif not isinstance(content, str | bytes | Path | Image.Image):
            what = type(content).__name__
            raise ExamplesError(f"pair {row} has a {what} for an image; give a path, bytes or a PIL image")


def _check_text(text: object, place: str) -> None:
    if not isinstance(text, str):
        raise ExamplesError(f"{place} has a {type(text).__name__} for a text: {text!r}; give strings")
    if not text.strip():
        raise ExamplesError(f"{place} has an empty text; leave it out or fill it in")


SPLIT_COLUMN = "split"
_SHOWN = 10


def read_captions(
    path: str | Path, image: str = "image", text: str = "captions", split: str | None = None
) -> CaptionedImages:
    """Return the images of a table with their captions, in the order in which they first come.

    A row holds one image and a caption or a list of captions; rows of one image are put together. Image paths start
    from the table's folder; Parquet may hold the files' bytes.

    Args:
        path: A `.csv`, `.tsv`, `.parquet`, `.jsonl` or `.ndjson` file.
        image: Name of the column with the images.
        text: Name of the column with the captions.
        split: Take only rows with this value in the column `split`.

    Raises:
        ExamplesError: There is no such file, column or split, a row is broken, or nothing is left.
    """
    file = Path(path).expanduser()
    wanted = (image, text, *((SPLIT_COLUMN,) if split is not None else ()))
    columns = read_table_file(file, wanted)
    for name in wanted:
        if name not in columns:
            raise ExamplesError(f"{file.name} has no column {name!r}; its columns are {', '.join(columns)}")
    rows = range(len(columns[image]))
    if split is not None:
        rows = _of_split(file, columns[SPLIT_COLUMN], split)  # type: ignore[assignment]
    images: dict[ImageLike, list[str]] = {}
    for row in rows:
        key = _image(columns[image][row], file, row)
        images.setdefault(key, []).extend(_captions(columns[text][row], file, row))
    if not images:
        raise ExamplesError(f"{file.name} holds no rows, so there is nothing to learn from")
    return CaptionedImages(list(images), list(images.values()))


def _of_split(file: Path, values: list[Any], split: str) -> list[int]:
    rows = [row for row, value in enumerate(values) if str(value) == split]
    if not rows:
        known = sorted({str(value) for value in values})
        more = ", ..." if len(known) > _SHOWN else ""
        raise ExamplesError(f"{file.name} has no rows of split {split!r}; it has {', '.join(known[:_SHOWN])}{more}")
    return rows


def _image(value: Any, file: Path, row: int) -> ImageLike:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value.strip():
        raise ExamplesError(f"row {row + 1} of {file.name} has no image; fill it in or remove the row")
    return file.parent / value


def _captions(value: Any, file: Path, row: int) -> list[str]:
    captions = list(value) if isinstance(value, list | tuple) else [value]
    if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise ExamplesError(f"row {row + 1} of {file.name} has an empty caption; fill it in or remove the row")
    return captions


# A few broken files among many are the rule in photo collections; more than this share says that the paths are wrong.
MAX_UNREADABLE = 0.05
_NAMED = 3


def content_keys(kind: Kind, contents: Sequence[Content], role: str) -> tuple[list[str | None], list[str]]:
    """Return a key for each content, equal exactly where contents are, None where it cannot be read; and the reasons.

    Raises:
        ExamplesError: More than 5 % of the images, or all, cannot be read; the first three are named.
    """
    if kind == "text":
        return [str(content) for content in contents], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_image_key, contents))
    keys = [None if isinstance(key, ImageError) else key for key in found]
    problems = [f"image {row}: {key}" for row, key in enumerate(found) if isinstance(key, ImageError)]
    if len(problems) > MAX_UNREADABLE * len(keys) or (problems and len(problems) == len(keys)):
        raise ExamplesError(f"{len(problems)} of {len(keys)} {role} images cannot be read: {first_few(problems)}")
    return keys, problems


def first_few(problems: Sequence[str]) -> str:
    """Return the first three on one line, and how many more there are."""
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return "; ".join(problems[:_NAMED]) + more


def _image_key(content: Content) -> str | ImageError:
    source: ImageLike = content
    try:
        return decode_image(source).info.sha256
    except ImageError as error:
        return error
