"""What a request asks for, as the API takes it and as the engine understands it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from storage.spec import Collection, Direction

from .errors import RefusedError

Kind = Literal["text", "image", "item", "vector"]


def _no_bool(value: Any) -> Any:
    """Refuse true and false where a number is wanted: they would pass for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


Whole = Annotated[int, BeforeValidator(_no_bool)]
# A whole number or a fraction, and nothing that could be taken for one; checked without a call of Python's.
Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, BeforeValidator(_no_bool)]


class SearchQuery(BaseModel):
    """The parameters of a search; a name that is not among them is refused."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(None, max_length=100_000, description="Search with words.")
    item: str | None = Field(None, max_length=10_000, description="Search with an item of the index, by its id.")
    collection: Collection | None = Field(
        None, description="Where `item` is; by default among the images, else among the texts."
    )
    direction: Direction | None = Field(
        None, description="What is searched with what; by default into images where the index has any, else texts."
    )
    k: Whole = Field(10, ge=1, le=9_999, description="Hits wanted; the server has a limit of its own, 1,000 as a rule.")
    where: str | None = Field(
        None, min_length=1, max_length=50_000, description="A condition on catalog columns, e.g. `width >= 640`."
    )
    ann_recall: Share | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the exact top k to find; the cheapest measured setting that does is used.",
    )


class SearchBody(SearchQuery):
    """The body of a search by POST: the same, or a ready vector."""

    vector: list[Number] | None = Field(
        None, min_length=1, max_length=100_000, description="Search with a ready vector of the index's dimension."
    )


@dataclass(frozen=True, kw_only=True)
class Question:
    """One search: exactly one of `text`, `picture`, `item` and `vector` is set.

    Attributes:
        text: Words.
        picture: The bytes of a picture file.
        item: An item id.
        vector: As many numbers as the index has dimensions.
        collection: Where `item` is.
        direction: What is searched with what; None for the usual.
        k: Hits wanted.
        where: A filter.
        ann_recall: Share of the exact top k to find.
    """

    text: str | None = None
    picture: bytes | None = None
    item: str | None = None
    vector: tuple[float, ...] | None = None
    collection: Collection | None = None
    direction: Direction | None = None
    k: int = 10
    where: str | None = None
    ann_recall: float | None = None

    @property
    def kind(self) -> Kind:
        """What is searched with."""
        if self.text is not None:
            return "text"
        if self.picture is not None:
            return "image"
        return "item" if self.item is not None else "vector"


def question_of(asked: SearchQuery, max_k: int, picture: bytes | None = None) -> Question:
    """Return what a request asks for.

    Raises:
        RefusedError: Not exactly one thing to search with, or `k` is above the server's limit.
    """
    vector = asked.vector if isinstance(asked, SearchBody) else None
    given = {"text": asked.text, "image": picture, "item": asked.item, "vector": vector}
    names = [name for name, value in given.items() if value is not None]
    if not names:
        raise RefusedError(400, "there is nothing to search with; give text, item, or by POST an image or a vector")
    if len(names) > 1:
        raise RefusedError(400, f"a search takes one of text, item, image and vector; {' and '.join(names)} were given")
    if asked.k > max_k:
        raise RefusedError(400, f"k={asked.k} is above this server's limit of {max_k}; ask for fewer")
    if asked.collection is not None and asked.item is None:
        raise RefusedError(400, f"collection={asked.collection!r} says where an item is; give item too, or direction")
    return Question(
        text=asked.text, picture=picture, item=asked.item, vector=None if vector is None else tuple(vector),
        collection=asked.collection, direction=asked.direction, k=asked.k, where=asked.where,
        ann_recall=asked.ann_recall,
    )  # fmt: skip
