"""What a request asks for, as the API takes it and as the engine understands it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Never
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from storage.schema import COLLECTIONS, Collection, Direction

from .errors import RefusedError
from .settings import ServerSettings

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
        text=asked.text,
        picture=picture,
        item=asked.item,
        vector=None if vector is None else tuple(vector),
        collection=asked.collection,
        direction=asked.direction,
        k=asked.k,
        where=asked.where,
        ann_recall=asked.ann_recall,
    )


FIELDS = 20
_WAYS = "send application/json, multipart/form-data with a file named image, or the picture itself as image/*"


async def read_question(request: Request, settings: ServerSettings) -> Question:
    """Return what a search by POST asks for; where the body is the picture, the rest stands in the URL.

    Raises:
        RefusedError: 400, 413, 415 or 422, with what is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return question_of(_model(_json(await request.body()), SearchBody), settings.max_k)
    if kind == "multipart/form-data":
        fields, picture = await read_form(request)
        return question_of(_model(fields, SearchQuery), settings.max_k, picture)
    if kind.startswith("image/") or kind == "application/octet-stream":
        asked = _model(dict(request.query_params), SearchQuery)
        return question_of(asked, settings.max_k, await request.body())
    raise RefusedError(415, f"a search cannot have a body of type {kind[:80]!r}; {_WAYS}")


async def read_form(request: Request) -> tuple[dict[str, str], bytes | None]:
    """Return the fields of a form, empty ones left out, and the picture; None where none was chosen.

    Raises:
        RefusedError: 400, it is no whole form, has too many fields, or a file under another name than `image`.
    """
    body = await request.body()
    form = await _parsed(request.headers.get("content-type", ""), body)
    fields: dict[str, str] = {}
    picture: bytes | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            picture = await _file(name, value, picture)
        elif value:
            fields[name] = value
    return fields, picture


async def _file(name: str, file: UploadFile, before: bytes | None) -> bytes | None:
    data = await file.read()
    await file.close()
    if not data and not file.filename:
        return before  # what a browser sends where no file was chosen
    if name != "image" or before is not None:
        raise RefusedError(400, f"the form has a file {name[:80]!r}; give one picture, under the name image")
    return data


async def _parsed(content_type: str, body: bytes) -> FormData:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    headers = Headers({"content-type": content_type})
    try:
        if content_type.lower().startswith("multipart/"):
            parser = MultiPartParser(headers, stream(), max_files=1, max_fields=FIELDS, max_part_size=200_000)
            parser.spool_max_size = len(body) + 1  # stays in memory, nothing is written to disk
            return await parser.parse()
        return await FormParser(headers, stream(), max_fields=FIELDS, max_part_size=200_000).parse()
    except (MultiPartException, ValueError) as error:
        detail = error.message if isinstance(error, MultiPartException) else str(error)
        raise RefusedError(400, f"the form cannot be read: {detail}") from error


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise RefusedError(400, "the JSON body is nested too deeply; give one flat object") from error
    except ValueError as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RefusedError(400, f"the JSON body is of type {type(value).__name__}; give one object")
    return value


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number of JSON")


def _model(fields: dict[str, Any], model: type[SearchQuery]) -> SearchQuery:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RefusedError(422, wrong_fields(error.errors(include_url=False), list(model.model_fields))) from error


def wrong_fields(errors: Any, known: list[str]) -> str:
    """Return what is wrong with parameters, on one line; the first three of them."""
    return "; ".join(_wrong_field(error, known) for error in list(errors)[:3])


def _wrong_field(error: dict[str, Any], known: list[str]) -> str:
    place = [str(part) for part in error.get("loc", ()) if part not in ("query", "body", "path")]
    name = ".".join(place)[:80] or "the request"
    if error.get("type") == "extra_forbidden":
        return f"there is no parameter {name!r}; there are {', '.join(known)}"
    value = repr(error.get("input"))
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{name}={shown}: {_lower(str(error.get('msg', 'cannot be used')))}"


def _lower(sentence: str) -> str:
    sentence = sentence.removeprefix("Value error, ")
    return sentence[:1].lower() + sentence[1:]


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
        q=given.get("q", "").strip(),
        item=given.get("item", ""),
        picture=given.get("picture", "")[:100],
        of=_collection(given, "of"),
        into=_collection(given, "into"),
        where=given.get("where", "").strip(),
        k=_whole(given.get("k", "")),
    )


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
