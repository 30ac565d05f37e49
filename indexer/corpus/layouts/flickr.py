"""The caption files of Flickr8k and Flickr30K, and the `*_karpathy.txt` lists made from them.

Read are `Flickr8k.token.txt` and `results_20130124.token` (`NAME.jpg#0<tab>caption`), `results.csv`
(`NAME.jpg| 0| caption`), `captions.txt` and `flickr30k_test_karpathy.txt` (a header, then `NAME.jpg,caption`, where a
comma in the caption may or may not be quoted), and plain lists of names such as `Flickr_8k.trainImages.txt`, or of
numbers without `.jpg` such as the `test.txt` of Flickr30K Entities. Names of files may be written in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from encoders.images import IMAGE_SUFFIXES

from ...errors import SourceError
from ..item import Rejection
from .captioned import Captioned, DataSet
from .lines import read_lines

_SUFFIX = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES).encode()
_LINE = re.compile(
    rb"^(?P<name>[^|,\t]+?(?:" + _SUFFIX + rb")(?:\.\d+)?)"
    rb"(?:\s*$|(?:#\d+)?\s*[,\t]\s*(?P<caption>.*)$|\s*\|\s*\d*\s*\|?\s*(?P<comment>.*)$)",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = re.compile(rb"\s*(?P<name>\d+)\s*$")
_SPLIT_IN_NAME = re.compile(r"(?:^|[._])(train|val|dev|test)(?:images|_karpathy)?\.txt$", re.IGNORECASE)
_LISTS = ("*.*images.txt", "train.txt", "val.txt", "dev.txt", "test.txt")


@dataclass
class _Entry:
    location: str
    split: str | None = None
    captions: list[bytes] = field(default_factory=list)


def flickr_files(folder: Path) -> tuple[Path, ...]:
    """The caption files and lists of a Flickr data set in a folder; empty when it is none.

    Where the `*_karpathy.txt` files hold captions they are all that is read.
    """
    karpathy = _named(folder, "*_karpathy.txt")
    if karpathy and any(has_captions(path) for path in karpathy):
        return tuple(path for path in karpathy if has_captions(path))
    captions = next((path for path in _candidates(folder) if has_captions(path)), None)
    return () if captions is None else (captions, *(karpathy or flickr_lists(folder)))


def flickr_lists(folder: Path) -> tuple[Path, ...]:
    """The files of a folder that list the images of a split and hold no captions, sorted."""
    lists = [path for pattern in _LISTS for path in _named(folder, pattern)]
    return tuple(path for path in sorted(lists) if _is_list(path))


def _is_list(path: Path) -> bool:
    lines = [text for _, text in _first_lines(path)]
    return bool(lines) and all(_LINE.match(text) or _NUMBER.match(text) for text in lines) and not has_captions(path)


def is_flickr(path: Path) -> bool:
    """True for a file whose first two lines name images, with or without captions."""
    if path.suffix.lower() not in (".txt", ".token", ".csv"):
        return False
    return any(_LINE.match(text) for _, text in _first_lines(path))


def has_captions(path: Path) -> bool:
    """True for a file whose first two lines hold an image's name and a caption."""
    matches = (_LINE.match(text) for _, text in _first_lines(path))
    return any(match is not None and _caption(match) is not None for match in matches)


def flickr_data(folder: Path, paths: Iterable[Path]) -> DataSet:
    """The images that the files name, in the order in which they first appear.

    A file whose name tells a split (`_train_karpathy.txt`, `.testImages.txt`) gives it to its images.

    Raises:
        SourceError: A file cannot be read, or names no image at all.
    """
    entries: dict[str, _Entry] = {}
    rejected: list[Rejection] = []
    files = tuple(paths)
    for path in files:
        rejected.extend(_read(path, entries))
    if not entries:
        raise SourceError(f"{files[0].name} names no image; expected lines such as 'name.jpg#0<tab>caption'")
    images = [
        Captioned(name=name, location=entry.location, split=entry.split, captions=[*map(_unquoted, entry.captions)])
        for name, entry in entries.items()
    ]
    names = ", ".join(path.name for path in files)
    return DataSet(name=f"Flickr captions {names}", folder=folder, images=images, rejected=tuple(rejected))


def _read(path: Path, entries: dict[str, _Entry]) -> Iterator[Rejection]:
    match = _SPLIT_IN_NAME.search(path.name)
    split = match[1].lower() if match else None
    first = True
    try:
        for number, text in _stripped(path):
            location = f"line {number} of {path.name}"
            problem = _take(text, location, split, entries)
            # The first line of some files names the columns.
            if problem and not first:
                yield _bad_line(number, location, path, problem)
            first = False
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _take(text: bytes, location: str, split: str | None, entries: dict[str, _Entry]) -> str:
    """Add what a line says to `entries`; the reason when it says nothing."""
    match = _LINE.match(text)
    number = _NUMBER.match(text) if match is None and split is not None else None
    if match is None and number is None:
        return "not_a_caption_line"
    try:
        name = match["name"].decode("utf-8") if match else text.decode("utf-8").strip() + ".jpg"
    except UnicodeDecodeError:
        return "not_utf8"
    entry = entries.setdefault(name, _Entry(location))
    entry.split = split or entry.split
    caption = _caption(match) if match else None
    if caption is not None:
        entry.captions.append(caption)
    return ""


def _bad_line(number: int, location: str, path: Path, reason: str) -> Rejection:
    return Rejection(
        item_id=f"{path.name}#line-{number}",
        collection="texts",
        uri=path.name,
        stage="read",
        reason=reason,
        detail=f"{location} is not an image's name with a caption",
    )


def _caption(match: re.Match[bytes]) -> bytes | None:
    caption = match["caption"]
    return caption if caption is not None else match["comment"]


def _unquoted(caption: bytes) -> bytes:
    """A CSV cell without its quotes; a caption that merely begins and ends with words in quotes stays as it is."""
    text = caption.strip()
    inner = text[1:-1].replace(b'""', b"")
    quoted = len(text) > 1 and text.startswith(b'"') and text.endswith(b'"') and b'"' not in inner
    return text[1:-1].replace(b'""', b'"') if quoted else text


def _candidates(folder: Path) -> Iterator[Path]:
    tokens = [*_named(folder, "*.token.txt"), *_named(folder, "*.token")]
    yield from sorted(path for path in tokens if "lemma" not in path.name.lower())
    yield from (path for name in ("results.csv", "captions.txt") for path in _named(folder, name))


def _named(folder: Path, pattern: str) -> list[Path]:
    """The files whose names fit a pattern in lower case, sorted."""
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name.lower(), pattern) and path.is_file())
    except OSError as error:
        raise SourceError(f"folder {str(folder)!r} cannot be read: {error.strerror}") from error


def _stripped(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines without white space at their start, over which the pattern of a line would go back and forth."""
    return ((number, text.lstrip()) for number, text in read_lines(path))


def _first_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        for count, line in enumerate(_stripped(path)):
            if count == 2:
                return
            yield line
    except OSError:
        return
