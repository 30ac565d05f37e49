"""What one pass over the rows of a table remembers: ids, files by any spelling, texts, splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from storage.errors import DuplicateItemError

from ...errors import SourceError
from ..item import Item, Rejection, shown

MAX_ROWS = 10**12


class SeenRows:
    """What one pass over the rows has to remember."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._tables: list[tuple[str, str]] = []
        self._files: set[str] = set()
        self._spellings: dict[str, str] = {}
        self._respelt = 0
        self._first_respelt = ""
        self._images: set[str] = set()
        self._contents: dict[str, dict[bytes, str]] = {}
        self._texts: Counter[str] = Counter()

    def claim(self, key: str, number: int, word: str, name: str) -> None:
        """Refuse an id that stands in two rows.

        Raises:
            DuplicateItemError: It names both.
        """
        if (word, name) not in self._tables[-1:]:
            self._tables.append((word, name))
        position = (len(self._tables) - 1) * MAX_ROWS + number
        first = self._rows.setdefault(key, position)
        if first != position:
            first_word, first_name = self._tables[first // MAX_ROWS]
            of_first = "" if first_name == name else f" of {first_name}"
            rows = f"{first_word} {first % MAX_ROWS}{of_first} and {word} {number} of {name}"
            raise DuplicateItemError(
                f"id {shown(key, 200)!r} stands in {rows}; "
                "make the ids unique, or leave the id column out so that rows of one image path are joined"
            )

    def first_spelling(self, path: str, uri: str) -> str:
        """The id of a file: its path as the table has it, where it stands first."""
        known = uri in self._files
        self._files.add(uri)
        if path == uri or known:
            return self._spellings.get(uri, uri)
        self._spellings[uri] = path
        return path

    def note_respelt(self, path: str, location: str) -> None:
        """Count a file that the disk has under another spelling."""
        self._respelt += 1
        self._first_respelt = self._first_respelt or f"{shown(path)!r} in {location}"

    def notes(self) -> tuple[str, ...]:
        """What the pass met that is worth a word."""
        if not self._respelt:
            return ()
        first = self._first_respelt
        return (f"{self._respelt} image paths were found under another spelling on the disk, the first is {first}",)

    def is_new(self, image_id: str) -> bool:
        """Whether no row before has named this image."""
        known = image_id in self._images
        self._images.add(image_id)
        return not known

    def told_apart(self, image: Item | Rejection, number: int) -> Item | Rejection:
        """The image, with its row in the id where an earlier file of the same name had other bytes."""
        if isinstance(image, Rejection) or not isinstance(image.content, bytes):
            return image
        digest, known = hashlib.sha256(image.content).digest(), self._contents.setdefault(image.item_id, {})
        if digest not in known:
            key = f"{image.item_id}#row-{number}" if known else image.item_id
            known[digest] = f"{key}.{len(known)}" if key in known.values() else key
        return replace(image, item_id=known[digest])

    def next_text(self, base: str) -> int:
        """The number of the next text of an image, or of a row."""
        self._texts[base] += 1
        return self._texts[base] - 1


def check_splits(requested: Iterable[str], seen: Counter[str], name: str) -> None:
    """Refuse a split that no row is of.

    Raises:
        SourceError: It names the split and those there are.
    """
    missing = sorted(set(requested) - seen.keys())
    if missing:
        known = ", ".join(f"{shown(split)} ({count})" for split, count in seen.most_common(10))
        raise SourceError(f"{name} has no rows of split {missing[0]!r}; its splits: {known}")
