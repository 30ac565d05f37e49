"""A seeded sample of the captioned images of a corpus, which is a corpus itself."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from encoders.images import DEFAULT_LIMITS
from indexer.corpus import ContentError, Item, Source
from indexer.corpus.item import LazyBytes, Rejection

from .errors import CompareError


class Sample:
    """Some of the images of a corpus, each with all of its captions; a `Source` that is read in the corpus's order.

    Attributes:
        name: What it is, for reports.
        root: The folder that relative paths start from.
        notes: Those of the corpus, and how many of its rows cannot be read.
        metadata_schema: The columns of the corpus.
        images: How many images were drawn.
        captioned: How many images with a caption there are in all.
        bare: How many have none, and so were never drawn.
        unreadable: Rows of the corpus that hold no item.
    """

    def __init__(self, source: Source, size: int, seed: int = 0) -> None:
        """Read a corpus once and draw from it.

        Args:
            source: The corpus.
            size: How many images; a corpus with fewer is taken whole.
            seed: The same one draws the same images.

        Raises:
            CompareError: The corpus holds fewer than two captioned images.
            SourceError: The corpus cannot be read.
        """
        self._source = source
        images, captioned, self.unreadable = _read(source)
        usable = [item_id for item_id in images if item_id in captioned]
        if len(usable) < 2:
            raise CompareError(
                f"{source.name} holds {len(usable)} images with a caption, and two are the least to compare with; "
                "give a corpus with captions: of a table, name the columns with images and captions (--image, --text)"
            )
        rows = np.random.default_rng(seed).permutation(len(usable))[:size]
        self._chosen = frozenset(usable[row] for row in rows.tolist())
        self.images, self.captioned, self.bare = len(self._chosen), len(usable), len(images) - len(usable)
        self.name = f"{self.images:,} of {self.captioned:,} captioned images of {source.name}"
        self.root: Path = source.root
        self.metadata_schema: pa.Schema = source.metadata_schema

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided while the corpus was read."""
        lost = (f"{self.unreadable:,} rows of the corpus hold no item",) if self.unreadable else ()
        return (*self._source.notes, *lost)

    def items(self) -> Iterator[Item | Rejection]:
        """Yield the images that were drawn and their captions, an image before its texts."""
        for entry in self._source.items():
            if isinstance(entry, Rejection):
                continue
            if entry.collection == "images":
                if entry.item_id in self._chosen:
                    yield entry
            elif owners := tuple(item_id for item_id in entry.image_ids if item_id in self._chosen):
                yield replace(entry, image_ids=owners)

    def first(self, collection: str, most: int) -> list[Item]:
        """Return the first items of `images` or `texts`."""
        found = (entry for entry in self.items() if isinstance(entry, Item) and entry.collection == collection)
        return list(islice(found, most))

    def contents(self, item_ids: Set[str]) -> dict[str, Path | bytes]:
        """Return the files of images, or their bytes where they have no file; what cannot be read is left out."""
        found: dict[str, Path | bytes] = {}
        for item in self.items():
            if not isinstance(item, Item) or item.collection != "images" or item.item_id not in item_ids:
                continue
            with suppress(ContentError):
                content = item.content
                content = content.read(DEFAULT_LIMITS.max_bytes) if isinstance(content, LazyBytes) else content
                found[item.item_id] = content if isinstance(content, bytes) else Path(content)
        return found

    def about(self) -> dict[str, Any]:
        """Return what was drawn, as JSON values."""
        return {
            "source": self._source.name,
            "root": str(self.root),
            "images": self.images,
            "captioned": self.captioned,
            "without_caption": self.bare,
            "unreadable": self.unreadable,
            "notes": list(self.notes),
        }


def _read(source: Source) -> tuple[list[str], set[str], int]:
    """The ids of all images in their order, those that a text belongs to, and how many rows hold no item."""
    images: list[str] = []
    captioned: set[str] = set()
    unreadable = 0
    for entry in source.items():
        if isinstance(entry, Rejection):
            unreadable += 1
        elif entry.collection == "images":
            images.append(entry.item_id)
        else:
            captioned.update(entry.image_ids)
    return list(dict.fromkeys(images)), captioned, unreadable
