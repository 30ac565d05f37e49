"""A folder of images, with captions in `name.txt` or `name.jpg.txt` beside `name.jpg`, one a line."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from encoders.formats.films import VIDEO_SUFFIXES
from encoders.images import IMAGE_SUFFIXES

from ...errors import SourceError
from ..item import Item, Rejection, is_utf8, one_line, printable, text_item
from .film_frames import Films
from .lines import read_lines
from .walk import Walk, leads_out, walk

TEXT_SUFFIX = ".txt"
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")
# Words about a corpus that its makers put into it.
_DOCUMENT = re.compile(
    r"(readme|read[ _-]me|licen[cs]es?|copying|copyright|notice|change(log|s)|history|news|authors|contribut(ing|ors)"
    r"|credits|citation|attributions?|install|todo|requirements|robots|terms|about)([ ._-].*)?",
    re.IGNORECASE,
)


class FolderSource:
    """Every image below a folder, sorted by relative path, each followed by the captions of its sidecar files.

    With `frames`, frames of its films are images too, `film.mp4#t=12.5`: see `film_frames`.

    An image's id is its relative path; its captions are `PATH#0`, `PATH#1`, ... A `.txt` file with no image of its
    name gives texts `PATH#0`, ... that describe no image, where no image lies in its folder and it is no README.

    Raises:
        SourceError: `path` is no folder, cannot be read, or holds neither images nor texts.
    """

    def __init__(self, path: Path, exclude: Sequence[str] = (), frames: str | None = None) -> None:
        self.root = path
        self.name = f"folder {printable(str(path))}"
        walked = walk(path, exclude)
        self._films = Films(path, walked.files, frames)
        self.metadata_schema = self._films.metadata_schema
        self._images = [name for name in walked.files if _suffix(name) in IMAGE_SUFFIXES]
        texts = [name for name in walked.files if _suffix(name) == TEXT_SUFFIX]
        self._sidecars, unpaired = _paired(self._images, texts)
        self._lonely, stray = _texts_of_their_own(self._images, unpaired)
        self._outside = frozenset(leads_out(path, (name for name in texts if name in walked.linked)))
        self._rejected = walked.rejected
        others = Counter(_suffix(name) or "(no suffix)" for name in walked.files)
        for suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, TEXT_SUFFIX):
            others.pop(suffix, None)
        self.notes = (
            *walked.notes,
            *self._films.notes,
            *_ignored(others),
            *_unpaired(stray, self._lonely if self._images else ()),
        )
        if not self._images and not self._lonely and not self._films.names:
            raise SourceError(_nothing_found(path, walked, others, self._films.notes))

    def items(self) -> Iterator[Item | Rejection]:
        """Images and films in path order, each image before its captions; texts without one; what cannot be read."""
        for name in sorted((*self._images, *self._films.names)):
            if name in self._films.names:
                yield from self._films.items(name)
                continue
            yield from self._image(name)
            yield from self._captions(self._sidecars.get(name, ()), name, (name,))
        for name in self._lonely:
            yield from self._captions((name,), name, ())
        yield from self._rejected

    def _image(self, name: str) -> Iterator[Item | Rejection]:
        shown = printable(name)
        item = Item(item_id=shown, collection="images", content=self.root / name, uri=shown, location=shown)
        # An id that is not UTF-8 can stand in no catalog, so the file cannot be found again by it.
        yield item if is_utf8(name) else item.rejected("read", "not_utf8", f"the file name {shown!r} is not UTF-8")

    def _captions(self, sidecars: Iterable[str], base: str, images: tuple[str, ...]) -> Iterator[Item | Rejection]:
        """The lines of all sidecars of one image, numbered through."""
        described = tuple(name for name in images if is_utf8(name))
        numbers = count()
        for sidecar in sidecars:
            shown = printable(sidecar)
            kept = Item(item_id=printable(base), collection="texts", content="", uri=shown, location=shown)
            if sidecar in self._outside:
                yield kept.rejected("read", "outside_corpus", _outside(shown))
                continue
            try:
                for line, text in read_lines(self.root / sidecar):
                    item = Item(
                        item_id=f"{kept.item_id}#{next(numbers)}",
                        collection="texts",
                        content="",
                        uri=shown,
                        location=f"line {line} of {shown}",
                        image_ids=described,
                    )
                    yield text_item(item, text)
            except OSError as error:
                yield kept.rejected(
                    "read", "unreadable", f"{shown} cannot be read: {error.strerror or one_line(error)}"
                )


def _paired(images: Sequence[str], texts: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The text files of each image, and those of none: `a.jpg.txt` or `a.txt` for `a.jpg`.

    Names that differ only in how Unicode writes them are equal where none is equal letter by letter: a Mac takes
    umlauts apart, and what other machines wrote about its files does not.
    """
    sidecars: dict[str, list[str]] = defaultdict(list)
    unpaired = []
    exact = _names(images)
    composed: Mapping[str, Sequence[str]] | None = None
    for text in texts:
        described: Sequence[str] = exact.get(_stem(text), ())
        if not described and composed is None:
            composed = _names(images, composed=True)
        if not described and composed is not None:
            described = composed.get(normalize("NFC", _stem(text)), ())
        for image in described:
            sidecars[image].append(text)
        if not described:
            unpaired.append(text)
    return sidecars, unpaired


def _names(images: Iterable[str], *, composed: bool = False) -> dict[str, list[str]]:
    """Images by their path, and by their path without the suffix."""
    names: dict[str, list[str]] = defaultdict(list)
    for image in images:
        written = normalize("NFC", image) if composed else image
        names[written].append(image)
        names[_stem(written)].append(image)
    return names


def _texts_of_their_own(images: Sequence[str], unpaired: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split text files without an image into texts of the corpus, and words about it that are no part of it."""
    beside = {str(PurePosixPath(image).parent) for image in images}
    stray = [
        name
        for name in unpaired
        if images and (str(PurePosixPath(name).parent) in beside or _DOCUMENT.fullmatch(PurePosixPath(name).stem))
    ]
    left = frozenset(stray)
    return [name for name in unpaired if name not in left], stray


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _outside(shown: str) -> str:
    return f"{shown!r} links to a file outside of the corpus, whose words would get into the index; copy it in"


def _ignored(others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    kinds = ", ".join(f"{count} {printable(suffix)}" for suffix, count in others.most_common(5))
    hint = "; to index what a table names, name its file" if others.keys() & set(TABLE_SUFFIXES) else ""
    return (f"passed over {others.total()} files that are neither images nor .txt: {kinds}{hint}",)


def _unpaired(stray: Sequence[str], lonely: Sequence[str]) -> Iterator[str]:
    if stray:
        yield (
            f"left out {len(stray)} .txt files that no image is named after, first {printable(stray[0])!r}; "
            "to index them, put them into a folder without images"
        )
    if lonely:
        yield f"{len(lonely)} .txt files are texts of their own, of no image, first {printable(lonely[0])!r}"


def _nothing_found(path: Path, walked: Walk, others: Counter[str], notes: Sequence[str]) -> str:
    kinds = ", ".join(f"{count} {printable(suffix)}" for suffix, count in others.most_common(5))
    seen = f"{len(walked.files)} other files ({kinds})" if walked.files else "no files at all"
    also = "".join(f"; {note}" for note in (*walked.notes, *notes, *(one.detail for one in walked.rejected[:1])))
    return (
        f"folder {str(path)!r} holds nothing to index: looked for images (.jpg, .png, .webp, ...) and .txt files, "
        f"recursively and without hidden ones, and saw {seen}{also}; name a folder of images or a table file"
    )
