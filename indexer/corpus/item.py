"""What a source gives: items in a stable order, and the rejections it met on the way."""

from __future__ import annotations

import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from encoders.formats.films import SCENES, file_behind, step_of
from storage.arguments import check_fields, exits_as_typed_wrong
from storage.schema import Collection

from ..errors import SourceError


class LazyBytes(ABC):
    """Where the bytes of an image can be had, any number of times and from any thread."""

    __slots__ = ()

    @abstractmethod
    def read(self, max_bytes: int) -> bytes:
        """Return the whole content, without ever holding much more than `max_bytes`.

        Raises:
            ContentError: It cannot be had, or is larger.
        """

    @property
    @abstractmethod
    def identity(self) -> Any:
        """JSON values that change when the content may have changed; known without reading it."""

    @property
    def state(self) -> tuple[int, int] | None:
        """Bytes and modification time in ns, as a catalog keeps them; None where they are not known."""
        return None

    @abstractmethod
    def is_unchanged(self, file_bytes: int | None, mtime_ns: int | None) -> bool:
        """Whether content that was known by these figures need not be read again."""


def uri_of(path: Path, root: Path) -> str:
    """`path` relative to `root` when it lies below it, else absolute; POSIX slashes, `.` and `..` folded.

    Links are not followed: a linked image is called by the name that it has in the corpus.
    """
    # Plain strings, since a table of ten million rows comes through here.
    whole, base = os.path.abspath(path), _base(root)  # noqa: PTH100
    return (whole[len(base) :] if whole.startswith(base) else whole).replace(os.sep, "/")


def printable(name: str) -> str:
    """`name` as valid UTF-8: bytes that the file system gave and UTF-8 does not know are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(name: str) -> bool:
    """False for a name with bytes that are not UTF-8, which neither Arrow nor DuckDB can hold."""
    return printable(name) == name


@lru_cache(maxsize=16)
def _base(root: Path) -> str:
    folder = os.path.abspath(root)  # noqa: PTH100
    return folder if folder.endswith(os.sep) else folder + os.sep


def one_line(error: Exception) -> str:
    """What a library says, on one line and without its tail, to stand inside a message of ours."""
    words = " ".join(str(error).split())
    return f"{words[:200]}..." if len(words) > 200 else words.rstrip(".")


SHOWN = 80
# Longer words in a message are no words: base64, bytes, a path that is none. Paths themselves stand whole.
_LONG_WORD = re.compile(r"\S{200,}")


def shown(value: str, limit: int = SHOWN) -> str:
    """A value as it stands in a message: short ones whole, of long ones the start and how long they are."""
    return value if len(value) <= limit else f"{value[: SHOWN - 20]}... ({len(value):,} long)"


@dataclass(frozen=True, slots=True)
class NoText:
    """A value that stands where a text is expected and is none; `detail` says what it is."""

    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """What is kept of an item that could not be indexed; one row of the catalog's `rejected` table.

    Attributes:
        item_id: The id that the item would have had.
        collection: The half of the index that it is missing from.
        uri: Where it came from, as in `Item.uri`.
        stage: Where it fell out: `read`, `decode`, `encode`.
        reason: A short machine word, e.g. `empty_text`, so that reasons can be counted.
        detail: One line for people: the value and where it stands.
    """

    item_id: str
    collection: Collection
    uri: str
    stage: str
    reason: str
    detail: str

    def __post_init__(self) -> None:
        """Cut values in the detail that nobody reads."""
        if _LONG_WORD.search(self.detail):
            object.__setattr__(self, "detail", _LONG_WORD.sub(lambda word: shown(word[0]), self.detail))


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image or one text of a corpus, not yet opened.

    Attributes:
        item_id: The user's own key; unique within its collection.
        collection: `images` or `texts`.
        content: An image's path, its file's bytes or where to read them; a text's words, never empty, always UTF-8.
        uri: Where it came from, relative to the source's root when below it, else absolute; POSIX slashes.
        location: The same for messages, e.g. `line 3 of captions.jsonl`.
        split: The corpus's own split, e.g. `train`; None where it has none.
        image_ids: For a text, the images that it describes. An image among them may still be rejected later.
        metadata: Values by column of the source's `metadata_schema`; an absent column is null.
    """

    item_id: str
    collection: Collection
    content: Path | bytes | str | LazyBytes
    uri: str
    location: str
    split: str | None = None
    image_ids: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def rejected(self, stage: str, reason: str, detail: str) -> Rejection:
        """This item as one that could not be indexed."""
        return Rejection(
            item_id=self.item_id, collection=self.collection, uri=self.uri, stage=stage, reason=reason, detail=detail
        )


class Source(Protocol):
    """A corpus that can be read more than once, each time in the same order.

    Attributes:
        name: What it is, for the plan and for messages, e.g. `table products.csv (image=photo, text=title)`.
        root: The folder that relative `uri`s start from.
        notes: One line each on what was decided or passed over, for the report.
        metadata_schema: Names and types of the user's metadata columns.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def root(self) -> Path: ...  # noqa: D102

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def metadata_schema(self) -> pa.Schema: ...  # noqa: D102

    def items(self) -> Iterator[Item | Rejection]:
        """Every item and every rejection, in the same order each time; an image stands before its texts.

        Raises:
            SourceError: The files changed or broke since the source was opened.
            DuplicateItemError: One id stands in two places; the message names both.
        """
        ...


# A text above this is no text: thick books have less, and encoders read the first page of them.
MAX_TEXT_BYTES = 8 * 2**20


def text_item(item: Item, text: str | bytes | NoText | None) -> Item | Rejection:
    """`item` with `text` as its content, or its rejection: there are no words, too many, or they are not UTF-8."""
    if text is None:
        return item.rejected("read", "missing_value", f"no text in {item.location}")
    if isinstance(text, NoText):
        return item.rejected("read", "not_a_text", f"the text in {item.location} is {text.detail}")
    if len(text) > MAX_TEXT_BYTES:
        return item.rejected("read", "too_large", f"the text in {item.location} has more than {MAX_TEXT_BYTES} bytes")
    try:
        words = text.decode("utf-8") if isinstance(text, bytes) else text
        words.encode("utf-8")
    except UnicodeError as error:
        return item.rejected("read", "not_utf8", f"the text in {item.location} is not UTF-8: {one_line(error)}")
    words = words.strip().strip("\ufeff\0").strip()
    if not is_visible(words):
        return item.rejected("read", "empty_text", f"the text in {item.location} is empty")
    return Item(
        item_id=item.item_id,
        collection="texts",
        content=words,
        uri=item.uri,
        location=item.location,
        split=item.split,
        image_ids=item.image_ids,
        metadata=item.metadata,
    )


# Blank letters and marks that Unicode counts among the visible: fillers of Hangul, a blank of Braille.
_UNSEEN = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0\u034f")


def is_visible(words: str) -> bool:
    """Whether any character shows; zero-width ones, controls and selectors of variants alone do not."""
    return (words[:1].isascii() and words[:1].isalnum()) or any(
        unicodedata.category(one) not in _UNSEEN and one not in _BLANKS and not 0xFE00 <= ord(one) <= 0xFE0F
        for one in words
    )


LAYOUTS = ("auto", "folder", "table", "lines", "karpathy", "coco", "flickr", "precomp", "split-tables", "webdataset")
"""Layouts that are built in; more may be registered as entry points, see `registered_layouts`."""

# Between an array file and the row of an item in it: `dev_ims.npy#12`.
ROW_MARK = "#"


def file_of(path: Path) -> Path:
    """Return the file that holds an item: the path itself, or of `FILE.npy#ROW` and `FILM#t=SECONDS` what is before."""
    file, mark, row = path.name.rpartition(ROW_MARK)
    if mark and row.isdigit() and file.endswith(".npy"):
        return path.with_name(file)
    return file_behind(path) if mark else path


def registered_layouts() -> tuple[str, ...]:
    """Return the layouts registered as entry points of the group `twinlens.layouts`, sorted.

    Each value is called as `source(folder, options)` and returns a `Source`.
    """
    return tuple(sorted(entry.name for entry in entry_points(group="twinlens.layouts")))


def open_registered(layout: str, folder: Path, options: SourceOptions) -> Source:
    """Return the source of a registered layout."""
    (entry,) = entry_points(group="twinlens.layouts", name=layout)
    source: Source = entry.load()(folder, options)
    return source


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Column names, filters and overrides for `open_source`. The defaults fit a folder of images.

    Attributes:
        layout: What the corpus is; `auto` looks at the path, its suffix and the names inside a folder. `precomp` is a
            folder of `test_caps.txt` and `test_ids.txt` whose images are files, `split-tables` one of `train.csv`,
            `val.csv`, `test.csv`, `webdataset` a folder, a file or a pattern of `.tar` shards.
        image: The table column with image paths (several may be joined by `;`), lists of paths, or image bytes.
        text: The table column with a text or a list of texts.
        id: The table column with the user's own key. Without it an image's path is its id.
        metadata: The table columns to keep for `where`; None keeps all others, `()` keeps none.
        split_column: The table column that holds the split; None takes `split` where there is one.
        splits: Only items of these splits are read; empty reads all. COCO's `restval` is a split of its own.
        root: The folder that relative image paths start from; None takes the folder of the file, and for the
            published layouts a folder of images beside it.
        allow_urls: Fetch the images that a table names by http or https URL. Off, such rows are rejected.
        allow_private: Let URLs lead to this machine and to private networks too; for those who index an intranet.
        delimiter: What separates the cells of a CSV file; None counts `,` `;` tab and `|` in the header.
        quoting: Whether quotes in a CSV file hold cells together: `csv` says so, with `none` they are signs like
            others, `auto` looks whether they would swallow rows.
        exclude: Patterns of files and folders that are left out where a folder is walked: `*` `?` `[ab]`, of a name
            or of a whole relative path.
        frames: Which frames of the films in a folder are images: `2s` one every two seconds, `scenes` the first of each
            scene. None passes films over.
    """

    layout: str = "auto"
    image: str | None = None
    text: str | None = None
    id: str | None = None
    metadata: tuple[str, ...] | None = None
    split_column: str | None = None
    splits: tuple[str, ...] = ()
    root: Path | None = None
    delimiter: str | None = None
    quoting: str = "auto"
    exclude: tuple[str, ...] = ()
    allow_urls: bool = False
    allow_private: bool = False
    frames: str | None = None

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, SourceError)
        try:
            step_of(self.frames or SCENES)
        except ValueError as error:
            raise SourceError(f"{error}; write --frames 2s or --frames scenes") from error
