"""What a source gives: items in a stable order, and the rejections it met on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from storage.spec import Collection

from ..rejection import Rejection
from .lazy import LazyBytes
from .place import one_line


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image or one text of a corpus, not yet opened.

    Attributes:
        item_id: The user's own key; unique within its collection.
        collection: `images` or `texts`.
        content: An image's path, its file's bytes or where to read them; a text's words, never empty, always UTF-8.
        uri: Where it came from, relative to the source's root when below it, else absolute; POSIX slashes.
        place: The same for messages, e.g. `line 3 of captions.jsonl`.
        split: The corpus's own split, e.g. `train`; None where it has none.
        image_ids: For a text, the images that it describes. An image among them may still be rejected later.
        metadata: Values by column of the source's `metadata_schema`; an absent column is null.
    """

    item_id: str
    collection: Collection
    content: Path | bytes | str | LazyBytes
    uri: str
    place: str
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


def text_item(item: Item, text: str | bytes | None) -> Item | Rejection:
    """`item` with `text` as its content, or its rejection when there are no words or they are not UTF-8."""
    if text is None:
        return item.rejected("read", "missing_value", f"no text in {item.place}")
    try:
        words = text.decode("utf-8") if isinstance(text, bytes) else text
        words.encode("utf-8")
    except UnicodeError as error:
        return item.rejected("read", "not_utf8", f"the text in {item.place} is not UTF-8: {one_line(error)}")
    words = words.strip().strip("\ufeff\0").strip()
    if not words:
        return item.rejected("read", "empty_text", f"the text in {item.place} is empty")
    return Item(
        item_id=item.item_id,
        collection="texts",
        content=words,
        uri=item.uri,
        place=item.place,
        split=item.split,
        image_ids=item.image_ids,
        metadata=item.metadata,
    )
