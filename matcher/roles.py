"""Which column plays which part, and what its cells are: declared once, never guessed from the values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from .errors import MatcherError

Kind = Literal["text", "image"]
Side = Literal["query", "response"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIDES: tuple[Side, ...] = get_args(Side)


class RoleOptions(TypedDict, total=False):
    """The keyword arguments of a matcher; `Roles` says what they mean."""

    query_type: Kind
    response_type: Kind
    label: str | None
    match_label: Any
    root: str | Path | None


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the columns of the data mean.

    Attributes:
        query: The column that is asked with.
        response: The column that is looked for.
        query_type: `text` or `image`: what the cells of the query column are.
        response_type: The same for the response column. Two texts or two images may be matched as well.
        label: The column that says whether a pair belongs together; None where every row of the data does.
        match_label: The value of `label` that means a match. Not needed where labels are 0 and 1, or False and True.
        root: The folder that relative picture paths start from. None: that of the table file they stand in, else the
            working directory.
    """

    query: str = "caption"
    response: str = "image"
    query_type: Kind = "text"
    response_type: Kind = "image"
    label: str | None = None
    match_label: Any = None
    root: str | Path | None = None

    def __post_init__(self) -> None:
        """Refuse roles that contradict each other.

        Raises:
            MatcherError: A name or a kind cannot be used; the message says which.
        """
        named = {"query": self.query, "response": self.response, "label": self.label}
        for role, name in named.items():
            if name is not None and (not isinstance(name, str) or not name):
                raise MatcherError(f"{role}={name!r} is no column name; give one string")
        names = [name for name in named.values() if name is not None]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise MatcherError(f"column {twice!r} has two roles; query, response and label need a column each")
        for role, kind in {"query_type": self.query_type, "response_type": self.response_type}.items():
            if kind not in KINDS:
                raise MatcherError(f"{role}={kind!r} is unknown; give 'text' or 'image'")

    def column(self, side: Side) -> str:
        """Return the name of a side's column."""
        return self.query if side == "query" else self.response

    def kind(self, side: Side) -> Kind:
        """Return what the cells of a side are."""
        return self.query_type if side == "query" else self.response_type

    @property
    def mixed(self) -> bool:
        """Whether one side is text and the other pictures."""
        return self.query_type != self.response_type

    def side_of_kind(self, kind: Kind) -> Side:
        """Return the side of a kind, the query's where both are of it."""
        return "query" if self.query_type == kind else "response"
