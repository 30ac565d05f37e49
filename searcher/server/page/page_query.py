"""What the address of the page asks for, and the addresses that its links lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from storage.schema import Collection

from ...client.messages import option_text
from ...request import OPTIONS, PARTS
from ..errors import RefusedError

USUAL_K = 24
MOST_K = 384
_PARTS = ("q", "item", "of", "image")


@dataclass(frozen=True, kw_only=True)
class PageQuery:
    """One view of the page, as its address says it.

    Attributes:
        q: Words to search with; they go before an item or an image.
        item: An item id to search with.
        of: The collection of `item`.
        image: The name of a query image that the server remembers.
        options: The options of the search, by their names in `SearchRequest`.
    """

    q: str = ""
    item: str = ""
    of: Collection | None = None
    image: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What is searched with: `text`, `item`, `image`, or `nothing`."""
        if self.q:
            return "text"
        return "item" if self.item else "image" if self.image else "nothing"

    @property
    def into(self) -> Collection | None:
        """What to look for; None for the usual."""
        return self.options.get("into")

    @property
    def where(self) -> str:
        """A filter on what is looked for; empty for none."""
        return str(self.options.get("where", ""))

    @property
    def k(self) -> int:
        """Hits wanted."""
        return int(self.options.get("k", USUAL_K))

    @property
    def hidden_fields(self) -> list[tuple[str, str]]:
        """Name and value of the options that a new search keeps and that have no field of their own on the page."""
        return [(name, option_text(self.options[name])) for name in self.options if name not in ("into", "where", "k")]

    def with_options(self, **changes: Any) -> PageQuery:
        """Return the view with some options changed; None or an empty text takes one away."""
        options = {name: value for name, value in {**self.options, **changes}.items() if value not in (None, "")}
        return replace(self, options=options)

    def link(self, **changes: Any) -> str:
        """Return the relative address of this view with some things changed, an option or what is searched with."""
        parts = {name: changes.pop(name) for name in _PARTS if name in changes}
        view = replace(self, **parts).with_options(**changes)
        values = {name: getattr(view, name) for name in _PARTS} | dict(view.options)
        given = {
            name: option_text(value) for name, value in values.items() if value and (name, value) != ("k", USUAL_K)
        }
        return "?" + urlencode(given, errors="replace") if given else "./"


def page_query(given: Mapping[str, str]) -> PageQuery:
    """Return the view that an address asks for; names that are not known are left out, links grow such.

    Raises:
        ParameterError: A value cannot be used.
        RefusedError: More hits are wanted than the page shows.
    """
    texts = {name: value.strip() for name, value in given.items() if value.strip()}
    options = {name: option.parse(name, texts[name]) for name, option in OPTIONS.items() if name in texts}
    if options.get("k", 1) > MOST_K:
        raise RefusedError(400, f"k={options['k']} must be a whole number from 1 to {MOST_K} on the page")
    return PageQuery(
        q=texts.get("q", ""),
        item=given.get("item", ""),
        image=given.get("image", "")[:100],
        of=PARTS["collection"].parse("of", texts["of"]) if "of" in texts else None,
        options=options,
    )
