"""What a model learns from: images with their captions, or pairs of any two things that do or do not match."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from encoders import ImageError, decode_image
from encoders.base import ImageLike
from encoders.images import DEFAULT_LIMITS, DecodedImage
from indexer.corpus import ContentError, Source, SourceError, SourceOptions, open_source
from indexer.corpus.item import Item, LazyBytes, Rejection
from indexer.corpus.remote.fetch import FETCHES, WebImage
from indexer.corpus.tables.columns import IMAGE_NAMES, TEXT_NAMES, first_of
from indexer.corpus.tables.table import open_records, table_suffix
from storage.arguments import check_arguments, check_fields, exits_as_typed_wrong
from storage.errors import DuplicateItemError

from .errors import ExamplesError

Kind = Literal["image", "text"]
Content = ImageLike | LazyBytes
"""A text (kind `text`), or an image (kind `image`): a path, the bytes of a file, a PIL image, or where to read it."""


def decode(content: Content) -> DecodedImage[Image.Image]:
    """Return the pixels of an image, wherever its bytes are.

    Raises:
        ImageError: They cannot be had or decoded.
    """
    if not isinstance(content, LazyBytes):
        return decode_image(content)
    try:
        return decode_image(content.read(DEFAULT_LIMITS.max_bytes))
    except ContentError as error:
        raise ImageError("unreadable", error.detail) from error


@dataclass(frozen=True)
class CaptionedImages:
    """Images and, for each, the texts that describe it.

    Attributes:
        images: Paths, bytes of files, PIL images, or where bytes can be read.
        captions: `captions[i]` describe `images[i]`; at least one each.
        left_out: What the corpus holds and nothing can be learned from, a line each; it ends up in the report.
        notes: What was decided while the corpus was read.
    """

    images: Sequence[Content]
    captions: Sequence[Sequence[str]]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        if isinstance(self.captions, list | tuple):
            # Before the check of types, which cannot say which image it is.
            for row, texts in enumerate(self.captions):
                if isinstance(texts, str | list | tuple):
                    _check_captions(row, texts)
        check_fields(self, ExamplesError)
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

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, ExamplesError)
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
        elif not isinstance(content, str | bytes | Path | Image.Image | LazyBytes):
            what = type(content).__name__
            raise ExamplesError(f"pair {row} has a {what} for an image; give a path, bytes or a PIL image")


def _check_text(text: object, owner: str) -> None:
    if not isinstance(text, str):
        raise ExamplesError(f"{owner} has a {type(text).__name__} for a text: {text!r}; give strings")
    if not text.strip():
        raise ExamplesError(f"{owner} has an empty text; leave it out or fill it in")


# A few broken files among many are the rule in collections of images; a larger share says that the paths are wrong.
MAX_UNREADABLE = 0.05
_NAMED = 3
EVERYTHING = SourceOptions()


def read_captions(
    corpus: str | Path,
    image: str | None = None,
    text: str | None = None,
    split: str | None = None,
    options: SourceOptions = EVERYTHING,
) -> CaptionedImages:
    """Return the images of a corpus with their captions, in the order of the corpus.

    Whatever `build_index` reads can be learned from: tables, folders, published data sets, webdataset shards. Images
    named by URL are fetched once, before anything else, and held in memory; others are read when they are needed.

    Args:
        corpus: A file, a folder or a pattern of shards.
        image: Of a table the column with images; None takes the first of the usual names.
        text: Of a table the column with captions; None likewise.
        split: Take only items of this split.
        options: Further columns, layout, delimiter, the folder of the images, whether URLs are fetched.

    Raises:
        ExamplesError: The corpus cannot be read, has no such column or split, holds no image with a caption, or more
            than 5 % of its images or of its captions cannot be used.
    """
    check_arguments(read_captions, locals(), ExamplesError)
    named = {"image": image, "text": text, "splits": (split,) if split is not None else None}
    options = replace(options, **{name: value for name, value in named.items() if value is not None})  # type: ignore[arg-type]
    gathered = _Gathered.of(corpus, options)
    return gathered.examples({key: [text for _, text in texts] for key, texts in gathered.captions.items()})


def read_splits(corpus: str | Path, options: SourceOptions = EVERYTHING) -> dict[str | None, CaptionedImages]:
    """Return the captioned images of each split of a corpus, read in one pass; None stands for items without a split.

    What was left out is told with the first split.

    Raises:
        ExamplesError: As `read_captions`.
    """
    gathered = _Gathered.of(corpus, options)
    splits: dict[str | None, dict[str, list[str]]] = {}
    for key, texts in gathered.captions.items():
        for split, text in texts:
            splits.setdefault(split, {}).setdefault(key, []).append(text)
    examples = {split: gathered.examples(captions) for split, captions in splits.items()}
    first = next(iter(examples))
    return {split: one if split == first else replace(one, left_out=()) for split, one in examples.items()}


@dataclass
class _Gathered:
    """What one pass over a corpus has found.

    Attributes:
        images: Contents by id.
        captions: By the id of their image, each with its split.
        rejected: Reasons, by what was rejected.
        notes: Those of the source.
    """

    name: str
    images: dict[str, Content] = field(default_factory=dict)
    captions: dict[str, list[tuple[str | None, str]]] = field(default_factory=dict)
    rejected: dict[str, list[str]] = field(default_factory=lambda: {"images": [], "texts": []})
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, corpus: str | Path, options: SourceOptions) -> _Gathered:
        try:
            source = _opened(Path(corpus).expanduser(), options)
            gathered = cls(source.name)
            for entry in source.items():
                gathered.add(entry)
            gathered.notes = source.notes
        except (SourceError, DuplicateItemError) as error:
            raise ExamplesError(str(error)) from error
        gathered.fetch()
        gathered.check()
        return gathered

    def add(self, entry: Item | Rejection) -> None:
        if isinstance(entry, Rejection):
            self.rejected[entry.collection].append(entry.detail)
        elif entry.collection == "texts":
            for key in filter(self.images.__contains__, entry.image_ids):
                self.captions.setdefault(key, []).append((entry.split, str(entry.content)))
        elif entry.item_id in self.images:
            raise ExamplesError(
                f"id {entry.item_id!r} stands for two images, again in {entry.location}; make the ids unique"
            )
        else:
            self.images[entry.item_id] = entry.content

    def fetch(self) -> None:
        """Replace images on the web by their bytes; those without a caption are not fetched."""
        web = {key: one for key in self.captions if isinstance(one := self.images.get(key), WebImage)}
        with ThreadPoolExecutor(FETCHES) as pool:
            for key, one in zip(web, pool.map(_bytes_or_reason, web.values()), strict=True):
                if isinstance(one, bytes):
                    self.images[key] = one
                else:
                    self.rejected["images"].append(f"{key}: {one}")
                    del self.images[key], self.captions[key]

    def check(self) -> None:
        captions = sum(map(len, self.captions.values()))
        for collection, good in {"images": len(self.images), "texts": captions}.items():
            problems = self.rejected[collection]
            total = good + len(problems)
            if len(problems) > MAX_UNREADABLE * total:
                what = f"{len(problems)} of {total} {collection} of {self.name}"
                raise ExamplesError(f"{what} cannot be used: {first_few(problems)}")
        if not self.captions:
            raise ExamplesError(
                f"{self.name} holds no image with a caption, so there is nothing to learn from; "
                "of a table, name the columns with images and captions (--image, --text)"
            )

    def examples(self, captions: Mapping[str, Sequence[str]]) -> CaptionedImages:
        bare = [f"{key}: no caption" for key in self.images if key not in self.captions]
        left_out = (*self.rejected["images"], *self.rejected["texts"], *bare)
        return CaptionedImages([self.images[key] for key in captions], list(captions.values()), left_out, self.notes)


def _opened(corpus: Path, options: SourceOptions) -> Source:
    """Open a corpus; of a table for which one column is named, the other is found by its name."""
    if (options.image is None) != (options.text is None) and corpus.is_file() and table_suffix(corpus):
        columns = open_records(corpus, options.delimiter, options.quoting).columns
        image, text = options.image or first_of(columns, IMAGE_NAMES), options.text or first_of(columns, TEXT_NAMES)
        options = replace(options, image=image, text=text)
    return open_source(corpus, options)


def _bytes_or_reason(image: WebImage) -> bytes | str:
    try:
        return image.read(DEFAULT_LIMITS.max_bytes)
    except ContentError as error:
        return error.detail


class ContentKey(NamedTuple):
    """A key, equal exactly where contents are, and the perceptual hash of an image that has one."""

    key: str
    perceptual_hash: int | None = None


def content_keys(kind: Kind, contents: Sequence[Content], role: str) -> tuple[list[ContentKey | None], list[str]]:
    """Return a key for each content, equal exactly where contents are, None where it cannot be read; and the reasons.

    Raises:
        ExamplesError: More than 5 % of the images, or all, cannot be read; the first three are named.
    """
    if kind == "text":
        return [ContentKey(str(content)) for content in contents], []
    results = read_contents(contents)
    keys = [None if isinstance(result, ImageError) else result for result in results]
    problems = [f"image {row}: {result}" for row, result in enumerate(results) if isinstance(result, ImageError)]
    if len(problems) > MAX_UNREADABLE * len(keys) or (problems and len(problems) == len(keys)):
        raise ExamplesError(f"{len(problems)} of {len(keys)} {role} images cannot be read: {first_few(problems)}")
    return keys, problems


def read_contents(contents: Sequence[Content]) -> list[ContentKey | ImageError]:
    """Decode images, and return the key of each or why it cannot be read."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_image_key, contents))


def first_few(problems: Sequence[str]) -> str:
    """Return the first three on one line, and how many more there are."""
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return "; ".join(problems[:_NAMED]) + more


def _image_key(content: Content) -> ContentKey | ImageError:
    try:
        info = decode(content).info
        return ContentKey(info.sha256, info.perceptual_hash)
    except ImageError as error:
        return error
