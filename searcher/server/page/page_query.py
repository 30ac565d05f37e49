"""What the address of the page asks for, and the addresses that its links lead to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, urlencode

from storage.schema import Collection

from ...client.messages import option_text
from ...errors import ParameterError
from ...query import shown_value
from ...request import OPTIONS, PARTS
from ..errors import RefusedError

USUAL_K = 24
MOST_K = 384
_NAMES = ("q", "item", "of", "image")
_LONGEST_NAME = 100
NEWEST = "Newest first"
WORDS = "Words count too"
# Options that are switched on and off beside the search box, with the value that on stands for.
SWITCHES: Mapping[str, tuple[str, Any]] = {
    "diversity": ("Varied results", 0.4),
    "collapse": ("Without copies", True),
    "hybrid": (WORDS, True),
    "explain": ("Say why", True),
    "sort": (NEWEST, "-taken_at"),
}
_ON_PAGE = ("into", "where", "k", "offset", *SWITCHES)

PartKind = Literal["text", "item", "images", "texts", "image"]
_PART = re.compile(r"(?P<sign>-?)(?:(?P<weight>[0-9.]{1,8})\*)?(?P<kind>[a-z]+):(?P<value>.*)", re.DOTALL)
# A form sends line ends in its own way, so that none may stand in it.
_ESCAPES = (("%", "%25"), ("\n", "%0A"), ("\r", "%0D"))
_WEIGHTS = (1.0, 2.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class PagePart:
    """One part of a composed query, as the address holds it: `text:people`, `-text:people`, `0.5*images:dogs/7.jpg`.

    Attributes:
        kind: `text`; `images` or `texts` for an item of that collection, `item` for one of either; `image` for a query
            image that the server remembers.
        value: The words, the item id, or the image's name.
        weight: Negative for what is unwanted.
    """

    kind: PartKind
    value: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> PagePart:
        """Return a part from its text.

        Raises:
            ParameterError: It is none.
        """
        match = _PART.fullmatch(text)
        kind: Any = match["kind"] if match else ""
        try:
            weight = float((match and match["weight"]) or 1)
        except ValueError:
            weight = 0.0
        if match is None or kind not in get_args(PartKind) or not match["value"].strip() or not weight > 0:
            raise ParameterError(f"part={shown_value(text)} must be such as text:people, -text:people, 0.5*images:ID")
        value = match["value"]
        for sign, escape in reversed(_ESCAPES):
            value = value.replace(escape, sign)
        return cls(kind=kind, value=value, weight=-weight if match["sign"] else weight)

    def __str__(self) -> str:
        value = self.value
        for sign, escape in _ESCAPES:
            value = value.replace(sign, escape)
        size = "" if abs(self.weight) == 1 else f"{abs(self.weight):g}*"
        return f"{'-' if self.weight < 0 else ''}{size}{self.kind}:{value}"

    @property
    def flipped(self) -> PagePart:
        """The same, unwanted where it was wanted and the other way round."""
        return replace(self, weight=-self.weight)

    @property
    def weighed(self) -> PagePart:
        """The same with the next of a few weights."""
        size = abs(self.weight)
        following = _WEIGHTS[(_WEIGHTS.index(size) + 1) % len(_WEIGHTS)] if size in _WEIGHTS else 1.0
        return replace(self, weight=following if self.weight > 0 else -following)


@dataclass(frozen=True, kw_only=True)
class PageQuery:
    """One view of the page, as its address says it.

    Attributes:
        q: Words to search with.
        item: An item id to search with, alone.
        of: The collection of `item`.
        image: The name of a query image that the server remembers, to search with alone.
        parts: What is searched with beside the words, where it is not one item or image alone.
        options: The options of the search, by their names in `SearchRequest`.
    """

    q: str = ""
    item: str = ""
    of: Collection | None = None
    image: str = ""
    parts: tuple[PagePart, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What is searched with: `text`, `item`, `image`, `composed`, or `nothing`."""
        if self.parts:
            return "composed"
        if self.q:
            return "text"
        return "item" if self.item else "image" if self.image else "nothing"

    @property
    def has_words(self) -> bool:
        """Whether words are among what is searched with, as wanted ones."""
        return bool(self.q) or any(part.kind == "text" and part.weight > 0 for part in self.parts)

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
    def offset(self) -> int:
        """Hits before the first that is shown."""
        return int(self.options.get("offset", 0))

    @property
    def beside(self) -> tuple[PagePart, ...]:
        """Everything that is searched with but the words."""
        if self.item:
            return (PagePart(kind=self.of or "item", value=self.item), *self.parts)
        return (PagePart(kind="image", value=self.image), *self.parts) if self.image else self.parts

    @property
    def every(self) -> tuple[PagePart, ...]:
        """Everything that is searched with, the words first."""
        return ((PagePart(kind="text", value=self.q),) if self.q else ()) + self.beside

    @property
    def hidden_fields(self) -> list[tuple[str, str]]:
        """Name and value of what a new search by words keeps and that has no field of its own on the page."""
        options = [(name, option_text(value)) for name, value in self.options.items() if name not in _ON_PAGE]
        return [("part", str(part)) for part in self.beside] + options

    @property
    def switches(self) -> list[tuple[str, str, str, bool]]:
        """Name, label, value and whether it is on, of each option that is switched on and off."""
        return [
            (name, label, option_text(self.options.get(name) or value), bool(self.options.get(name)))
            for name, (label, value) in SWITCHES.items()
        ]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Name and value of all that the view is asked with, for a form that adds to it."""
        return parse_qsl(self.link(offset=None).partition("?")[2])

    def with_options(self, **changes: Any) -> PageQuery:
        """Return the view with some options changed; None or an empty text takes one away."""
        options = {name: value for name, value in {**self.options, **changes}.items() if value not in (None, "")}
        return replace(self, options=options)

    def with_beside(self, parts: Iterable[PagePart]) -> PageQuery:
        """Return the view with other parts beside the words, from its first page; one item or image stands alone."""
        beside = tuple(parts)
        view = replace(self.with_options(offset=None), item="", of=None, image="", parts=beside)
        if self.q or len(beside) != 1 or beside[0].weight != 1 or beside[0].kind == "text":
            return view
        (part,) = beside
        if part.kind == "image":
            return replace(view, image=part.value, parts=())
        of: Any = None if part.kind == "item" else part.kind
        return replace(view, item=part.value, of=of, parts=())

    def changed(self, position: int, part: PagePart | None) -> PageQuery:
        """Return the view with one of the parts beside the words replaced; None takes it away."""
        beside = self.beside
        return self.with_beside((*beside[:position], *(() if part is None else (part,)), *beside[position + 1 :]))

    def link(self, **changes: Any) -> str:
        """Return the relative address of this view with some things changed, an option or what is searched with."""
        parts = {name: changes.pop(name) for name in _NAMES if name in changes}
        view = replace(self, **parts).with_options(**changes)
        values = {name: getattr(view, name) for name in _NAMES} | dict(view.options)
        if values.get("k") == USUAL_K:
            del values["k"]
        given = [(name, option_text(value)) for name, value in values.items() if value not in (None, "")]
        given += [("part", str(part)) for part in view.parts]
        return "?" + urlencode(given, errors="replace") if given else "./"


def page_query(given: Mapping[str, str], parts: Sequence[str] = ()) -> PageQuery:
    """Return the view that an address asks for; names that are not known are left out, links grow such.

    Args:
        given: The parameters of the address that stand in it once.
        parts: Each `part` of it.

    Raises:
        ParameterError: A value cannot be used.
        RefusedError: More hits are wanted than the page shows.
    """
    texts = {name: value.strip() for name, value in given.items() if value.strip()}
    options = {name: option.parse(name, texts[name]) for name, option in OPTIONS.items() if name in texts}
    if options.get("k", 1) > MOST_K:
        raise RefusedError(400, f"k={options['k']} must be a whole number from 1 to {MOST_K} on the page")
    view = PageQuery(
        q=texts.get("q", ""),
        item=given.get("item", ""),
        image=given.get("image", "")[:_LONGEST_NAME],
        of=PARTS["collection"].parse("of", texts["of"]) if "of" in texts else None,
        parts=tuple(map(PagePart.parse, parts)),
        options=options,
    )
    return view.with_beside(view.beside).with_options(offset=view.offset or None)


def view_of(address: str) -> PageQuery:
    """Return the view of an address that `PageQuery.link` gave.

    Raises:
        ParameterError: A value cannot be used.
    """
    pairs = parse_qsl(address.partition("?")[2])
    return page_query(dict(pairs), [value for name, value in pairs if name == "part"])


def added(view: PageQuery, values: Iterable[tuple[str, str]]) -> PageQuery | None:
    """Return a view with what a form adds to it; None where none does.

    `more` holds words and each `mark` an item or image, `sign` is `-` where they are unwanted.

    Raises:
        ParameterError: A mark is no part.
    """
    given = list(values)
    if not any(name in ("more", "mark") for name, _ in given):
        return None
    new = [PagePart(kind="text", value=value.strip()) for name, value in given if name == "more" and value.strip()]
    new += [PagePart.parse(value) for name, value in given if name == "mark"]
    if ("sign", "-") in given:
        new = [part.flipped for part in new]
    if not view.q and not view.beside and len(new) == 1 and new[0].kind == "text" and new[0].weight == 1:
        return replace(view, q=new[0].value)
    return view.with_beside((*view.beside, *new))
