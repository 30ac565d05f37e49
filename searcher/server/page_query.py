"""What the page's address asks for, and addresses made of it: a link shows others the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from storage.spec import COLLECTIONS, Collection

from .errors import RefusedError

USUAL_K = 24
MOST_K = 384


@dataclass(frozen=True, kw_only=True)
class PageQuery:
    """One view of the page.

    Attributes:
        q: Words to search with; they go before an item or a picture.
        item: An item id to search with.
        of: The collection of `item`.
        picture: The name of a query picture that the server remembers.
        into: What to look for; None for the usual.
        where: A filter on what is looked for; empty for none.
        k: Hits wanted.
    """

    q: str = ""
    item: str = ""
    of: Collection | None = None
    picture: str = ""
    into: Collection | None = None
    where: str = ""
    k: int = USUAL_K

    @property
    def kind(self) -> str:
        """What is searched with: `text`, `item`, `picture`, or `nothing`."""
        if self.q:
            return "text"
        return "item" if self.item else "picture" if self.picture else "nothing"

    def link(self, **changes: Any) -> str:
        """Return the relative address of this view with some things changed."""
        changed = replace(self, **changes)
        usual = PageQuery()
        given = {name: value for name, value in vars(changed).items() if value != getattr(usual, name)}
        return "?" + urlencode(given, errors="replace") if given else "./"


def page_query(given: Mapping[str, str]) -> PageQuery:
    """Return the view that an address asks for; names that are not known are left out, links grow such.

    Raises:
        RefusedError: A value cannot be used.
    """
    return PageQuery(
        q=given.get("q", "").strip(), item=given.get("item", ""), picture=given.get("picture", "")[:100],
        of=_collection(given, "of"), into=_collection(given, "into"), where=given.get("where", "").strip(),
        k=_whole(given.get("k", "")),
    )  # fmt: skip


def _collection(given: Mapping[str, str], name: str) -> Collection | None:
    value = given.get(name, "")
    if value and value not in COLLECTIONS:
        raise RefusedError(400, f"{name}={value[:80]!r} is no collection; give images or texts")
    return value if value else None


def _whole(text: str) -> int:
    if not text:
        return USUAL_K
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= MOST_K):
        raise RefusedError(400, f"k={text[:80]!r} must be a whole number from 1 to {MOST_K} on the page")
    return int(text)
