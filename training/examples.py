"""What a model learns from: pictures with their captions, or pairs of any two things that do or do not match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from encoders.base import ImageLike

from .errors import ExamplesError

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
