"""One search request from every surface: command line, page, API, Ray and Python; and its one parser.

`SearchRequest` holds what to search with (`parts`) and the options of the search. An option is one field of it: its
type, range and help text stand in the field's metadata, from which `parse_request`, the options of the command line,
the schema of the API and the fields of the page derive.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from storage.arguments import check_fields
from storage.schema import COLLECTIONS, DIRECTIONS, MODALITIES, SIDES, Collection, Modality

from .errors import ParameterError, QueryError
from .options import Option, option_of
from .query import (
    MOST_PARTS,
    MOST_WORDS,
    QueryPart,
    check_parts,
    image_part,
    item_part,
    shown_value,
    text_part,
    vector_part,
    words_part,
)

MAX_K = 10_000
DEFAULT_ANN_RECALL = 0.95
_MAX_VALUES = 100_000
_MOST_DIVERSE = 1_000


class SearchOptions(TypedDict, total=False):
    """The keyword arguments of a searcher's methods; `SearchRequest` says what they mean."""

    offset: int
    where: str | None
    min_score: float | None
    min_probability: float | None
    diversity: float
    words: str | None
    hybrid: bool
    collapse: bool
    explain: bool
    sort: str | None
    ann_recall: float | None
    nprobe: int | None
    oversample: int | None
    exact: bool
    columns: Sequence[str] | None


class MethodOptions(SearchOptions, total=False):
    """The same with `rerank`, which is a function and so for Python alone; see `rerank.reranked`."""

    rerank: Callable[[Any, Any], Any] | None


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """One search.

    Attributes:
        parts: What to search with: one part, or several that make one query (see `compose.Query`). Those are compared
            with every vector, since no setting of the approximate search was measured for them.
        into: The collection to search; None for images where the index has any, else texts.
        k: Hits wanted, 1 to 10,000; fewer come back where the collection or the filter has fewer.
        offset: Hits to leave out before the first: 10 with `k` 10 is the second page. `offset + k` is at most 10,000.
            Pages after the first are cut from one ranking; only an item that an approximate search missed for the first
            page can move an item from it to the second. With `exact` none does.
        where: A DuckDB predicate on catalog columns, e.g. `width >= 640`; None for all items.
        min_score: Leave out hits with a lower cosine, -1 to 1; None for no floor. What one means depends on the
            encoder: with CLIP's family a text and an image that fit have 0.2 to 0.35, two images alike 0.7 to 1.
        min_probability: Leave out those of the `k` best hits that are less likely to fit, 0 to 1; None for no floor. A
            search whose every hit is left out says that nothing fits. 0.5 takes what more likely fits than not, of
            queries half of which ask for something that is there. One setting serves all queries, unlike `min_score`;
            the index must have been built with 50 or more pairs of image and text.
        diversity: How unlike one another the hits are to be, 0 to 1: 0 takes the best, 1 the least alike of the
            candidates, 0.3 to 0.5 is usual. They come in the order of their choice (maximal marginal relevance), and
            their scores need not fall. For `offset + k` up to 1,000.
        words: Words to look up in captions, item ids and the columns chosen at the build, e.g. `SKU-1234`: alone they
            rank by BM25, beside a query both count (see `hybrid.WORDS_WEIGHT`). A hit's `score` stays its cosine, so
            that scores need not fall. Nothing in them is syntax.
        hybrid: Use the words of the text query as `words` too.
        collapse: Show one of each group of copies, which stands for the others: items of the same content,
            images that were saved or resized again (see `storage.duplicates.grades`), and texts that differ by a full
            stop. For `offset + k` up to 1,000.
        explain: Say for each image which of its captions is nearest to the query; hits of texts are left as they are.
            Page and gallery also show which parts of an image match (see `relevance_map`).
        sort: Show the hits in the order of a column: `taken_at` from the oldest on, `-taken_at` from the newest on. The
            `k` best are found as ever and then put in that order, those without a value last; `rank` says how well each
            fits. Each page is sorted by itself.
        ann_recall: Share of the exact top k that the search should find, above 0, at most 1; None means 0.95. The
            cheapest measured setting that reaches it is used. Recall and time rise together; 0.9 to 0.99 is usual.
        nprobe: Lists visited a query at most (`efSearch` for `hnsw`), in place of the measured setting. Leave it alone
            unless you measure.
        oversample: Candidates are `k * oversample`, in place of the measured setting; 4 to 32 is usual with PQ codes.
        exact: Compare every vector: slower, and nothing is missed.
        columns: Metadata columns to bring back with each hit; None for all.
    """

    parts: tuple[QueryPart, ...] = ()
    into: Collection | None = field(
        default=None,
        metadata=option_of(
            str,
            "What to look for: images or texts.  [default: images where the index has any, else texts]",
            choices=COLLECTIONS,
        ),
    )
    k: int = field(default=10, metadata=option_of(int, "Hits wanted a query.", most=MAX_K))
    offset: int = field(
        default=0, metadata=option_of(int, "Hits to leave out before the first.  [default: 0]", least=0, most=MAX_K)
    )
    where: str | None = field(
        default=None, metadata=option_of(str, 'A condition on columns of the catalog, e.g. "width >= 640".')
    )
    min_score: float | None = field(
        default=None, metadata=option_of(float, "Leave out hits with a lower score (cosine).", least=-1)
    )
    min_probability: float | None = field(
        default=None, metadata=option_of(float, "Leave out hits that are less likely to fit, e.g. 0.5.", least=0)
    )
    diversity: float = field(
        default=0.0,
        metadata=option_of(
            float, "How unlike one another the hits are to be, 0 to 1; 0.3 to 0.5 is usual.  [default: 0]", least=0
        ),
    )
    words: str | None = field(
        default=None,
        metadata=option_of(
            str, "Words to look up in captions and ids, e.g. SKU-1234; alone, or beside a query, where both count."
        ),
    )
    hybrid: bool = field(
        default=False, metadata=option_of(bool, "Look up the words of the text query in captions and ids too.")
    )
    collapse: bool = field(
        default=False, metadata=option_of(bool, "Show one of each group of copies; it says how many it stands for.")
    )
    explain: bool = field(
        default=False,
        metadata=option_of(
            bool, "Say for each image which of its captions is nearest to the query, in a gallery also where."
        ),
    )
    sort: str | None = field(
        default=None,
        metadata=option_of(
            str, "Show the k best hits in the order of a column: taken_at, oldest first, or -taken_at, newest first."
        ),
    )
    ann_recall: float | None = field(
        default=None,
        metadata=option_of(
            float,
            "Share of the exact top k to find; the cheapest measured setting that does is used.  [default: 0.95]",
            hint=", e.g. 0.95; use exact=True to miss nothing",
        ),
    )
    nprobe: int | None = field(
        default=None, metadata=option_of(int, "Lists to visit, in place of the measured setting.", most=1 << 24)
    )
    oversample: int | None = field(
        default=None, metadata=option_of(int, "Candidates a hit, in place of the measured setting.", most=10_000)
    )
    exact: bool = field(default=False, metadata=option_of(bool, "Compare every vector."))
    columns: Sequence[str] | None = field(
        default=None, metadata=option_of(list, "Columns of the catalog to bring back.  [default: all]")
    )

    def __post_init__(self) -> None:
        """Refuse what no index can do.

        Raises:
            ParameterError: A value is outside its range; the message names both.
        """
        for name, option, default in _FIELDS:
            value = getattr(self, name)
            if value is not default:
                option.check(name, value)
        check_fields(self, ParameterError)
        if self.words is not None:
            alone = words_part(self.words)
            object.__setattr__(self, "parts", self.parts or (alone,))
        check_parts(self.parts)
        if self.min_probability is not None and self.is_composed:
            raise ParameterError(
                f"min_probability={self.min_probability:g} is for a query of one part, and this one has "
                f"{len(self.parts)}: nothing was measured for those; give min_score"
            )
        if self.offset + self.k > MAX_K:
            raise ParameterError(
                f"offset={self.offset} and k={self.k} reach beyond {MAX_K:,} hits; narrow the search by where"
            )
        if (self.diversity or self.collapse) and self.offset + self.k > _MOST_DIVERSE:
            name = f"diversity={self.diversity:g}" if self.diversity else "collapse"
            reach = f"{name} is for {_MOST_DIVERSE:,} hits at most"
            raise ParameterError(f"{reach}, and offset and k reach to {self.offset + self.k:,}; ask for fewer")

    @property
    def part(self) -> QueryPart:
        """The part of a request that has one.

        Raises:
            QueryError: It has none, or several.
        """
        if len(self.parts) == 1:
            return self.parts[0]
        if not self.parts:
            raise QueryError("there is nothing to search with; give text, item, words, or by POST an image or a vector")
        raise QueryError(f"the query has {len(self.parts)} parts where one is taken")

    @property
    def is_composed(self) -> bool:
        """Whether it has several parts, which make one query."""
        return len(self.parts) > 1

    @property
    def ranked(self) -> SearchRequest:
        """The request as it is ranked: a composed query exactly."""
        return replace(self, exact=True) if self.is_composed else self

    def with_words_of(self, part: QueryPart) -> SearchRequest:
        """Return the request whose words are said: for `hybrid` those of its text query, `part`.

        Raises:
            QueryError: The query has no text.
        """
        if not self.hybrid:
            return self
        parts = part.content if part.kind == "composed" else (part,)
        texts = [one.content for one in parts if one.kind == "text" and one.weight > 0]
        if not texts:
            raise QueryError(f"hybrid looks up the words of a text query, and {part.label[:60]!r} is none; give words")
        words = " ".join(filter(None, [self.words, *texts]))[:MOST_WORDS]
        return replace(self, words=words, hybrid=False)

    @property
    def selects(self) -> bool:
        """Whether what is shown is chosen from a ranking: by a page, a floor, diversity or collapsing."""
        floors = (self.min_score, self.min_probability)
        return bool(self.offset or self.diversity or self.collapse or floors != (None, None))

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the parts, by name."""
        return {name: getattr(self, name) for name in OPTIONS}

    @property
    def expected_recall(self) -> float:
        """The `ann_recall` asked for, or the default."""
        return DEFAULT_ANN_RECALL if self.ann_recall is None else float(self.ann_recall)


OPTIONS: Mapping[str, Option] = {one.name: one.metadata["option"] for one in fields(SearchRequest) if one.metadata}
_FIELDS = [(one.name, one.metadata["option"], one.default) for one in fields(SearchRequest) if one.metadata]


@lru_cache(maxsize=256, typed=True)
def _remembered(k: int, **options: Any) -> SearchRequest:
    return SearchRequest(k=k, **options)


def request_of(k: int, options: Mapping[str, Any]) -> SearchRequest:
    """Return the request of these options without a query: made once, since checking it takes as long as a list does.

    Raises:
        ParameterError: A value is outside its range, or of a wrong type.
    """
    try:
        return _remembered(k, **options)
    except TypeError:  # a list of columns, which cannot be remembered by
        return SearchRequest(k=k, **options)


# What a request searches with, by name; `direction` and `collection` say more of it.
PARTS: Mapping[str, Option] = {
    "text": Option(type=str, help="Search with words."),
    "item": Option(type=str, help="Search with an item of the index, by its id."),
    "collection": Option(
        type=str, help="Where `item` is; by default among the images, else among the texts.", choices=COLLECTIONS
    ),
    "direction": Option(
        type=str, help="What is searched with what: `into`, and what a vector stands for.", choices=DIRECTIONS
    ),
}
PARAMETERS: Mapping[str, Option] = {**PARTS, **OPTIONS}
_PART_NAMES = ("text", "item", "image", "vector")
_QUERY_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_PARTS,
    "items": {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "item": {"type": "string"},
            "image": {"type": "string", "contentEncoding": "base64"},
            "vector": {"type": "array", "items": {"type": "number"}},
            "collection": {"enum": list(COLLECTIONS)},
            "modality": {"enum": list(MODALITIES.values())},
            "weight": {"type": "number", "default": 1},
        },
    },
    "description": "Search with several parts as one query: each has text, item, image or vector, and a weight, "
    "which is negative for what is unwanted.",
}
_VECTOR_SCHEMA = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 1,
    "maxItems": _MAX_VALUES,
    "description": "Search with a ready vector of the index's dimension.",
}


_MADE_SCHEMAS = {"vector": _VECTOR_SCHEMA, "query": _QUERY_SCHEMA}


def body_schema(*, vector: bool) -> dict[str, Any]:
    """Return the JSON schema of a request's named values."""
    properties: dict[str, Any] = {name: option.json_schema() for name, option in PARAMETERS.items()}
    return {"type": "object", "properties": {**properties, **(_MADE_SCHEMAS if vector else {})}}


def parse_request(values: Mapping[str, Any], image: bytes | None = None) -> SearchRequest:
    """Return the request that named values ask for: those of a URL, a form, a JSON object or a command line.

    Args:
        values: By the names of `PARAMETERS`, and `vector`; texts, or JSON's types. None stands for not given.
        image: The bytes of an image file to search with.

    Raises:
        ParameterError: A name is unknown, or its value is of the wrong type or out of range.
        QueryError: There is not exactly one thing to search with, or it does not fit the direction.
    """
    given = {name: value for name, value in values.items() if value is not None}
    typed = {name: _parsed(name, value) for name, value in given.items()}
    parts = [make(typed) for name, make in _PART_MAKERS.items() if name in typed]
    parts += [] if image is None else [image_part(image)]
    if "query" in typed:
        if parts:
            raise QueryError(f"query has parts of its own, and {parts[0].kind} was given beside it; put it among them")
        parts = list(typed["query"])
    elif len(parts) > 1:
        kinds = " and ".join(part.kind for part in parts)
        raise QueryError(f"a search takes one of text, item, image and vector, or query with parts; {kinds} were given")
    request = SearchRequest(
        parts=tuple(parts),
        **{name: value for name, value in typed.items() if name in OPTIONS and name != "into"},
        into=_target(typed),
    )
    if "query" in typed and "collection" in typed:
        raise QueryError("a part of query says by itself in which collection its item is; put collection into it")
    if request.is_composed:
        return request
    part = request.part  # there is one
    if "collection" in typed and part.kind != "item":
        raise QueryError(f"collection={typed['collection']!r} says where an item is; give item too, or direction")
    if "direction" in typed and part.modality is not None:
        check_modality(typed["direction"], part.modality)
    return request


def _parsed(name: str, value: Any) -> Any:
    if name == "vector":
        return _vector(value)
    if name == "query":
        return _query(value)
    if name not in PARAMETERS:
        raise ParameterError(
            f"there is no parameter {name[:80]!r}; there are {', '.join([*PARAMETERS, *_MADE_SCHEMAS])}"
        )
    return PARAMETERS[name].parse(name, value)


def _query(value: Any) -> tuple[QueryPart, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_PARTS:
        raise ParameterError(f"query={shown_value(value)} must be a list of 1 to {MOST_PARTS} parts")
    return tuple(query_part(number, one) for number, one in enumerate(value))


def query_part(number: int, value: Any) -> QueryPart:
    """Return a part of a composed query as JSON has it; its number is for messages.

    Raises:
        ParameterError: It is none.
        QueryError: It has nothing to search with.
    """
    names = {*_PART_NAMES, "collection", "modality", "weight"}
    kinds = [name for name in _PART_NAMES if isinstance(value, dict) and name in value]
    if len(kinds) != 1 or not names >= value.keys():
        raise ParameterError(
            f"query[{number}]={shown_value(value)} must be an object with one of {', '.join(_PART_NAMES)}, and weight"
        )
    collection, modality = value.get("collection"), value.get("modality")
    if collection not in (None, *COLLECTIONS) or modality not in (None, *MODALITIES.values()):
        choices = f"{' or '.join(COLLECTIONS)}, a modality {' or '.join(MODALITIES.values())}"
        raise ParameterError(f"query[{number}]={shown_value(value)}: a collection must be {choices}")
    if kinds[0] == "text":
        part = text_part(value["text"])
    elif kinds[0] == "item":
        part = item_part(PARTS["item"].parse(f"query[{number}].item", value["item"]), collection)
    elif kinds[0] == "image":
        part = image_part(_bytes(number, value["image"]))
    else:
        part = vector_part(_vector(value["vector"]), modality or "text")
    return replace(part, weight=value.get("weight", 1.0))


def _bytes(number: int, value: Any) -> bytes:
    try:
        if data := b64decode(value, validate=True) if isinstance(value, str) else b"":
            return data
    except ValueError:
        pass
    raise ParameterError(f"query[{number}].image={shown_value(value)} must be the bytes of an image file in base64")


def _vector(value: Any) -> NDArray[np.float64]:
    is_list = isinstance(value, list) and 1 <= len(value) <= _MAX_VALUES
    try:
        if is_list and all(type(number) in (int, float) for number in value):
            return np.array(value, dtype=np.float64)
    except OverflowError:
        pass
    raise ParameterError(f"vector={shown_value(value)} must be a list of 1 to {_MAX_VALUES:,} numbers")


def _target(typed: Mapping[str, Any]) -> Collection | None:
    into: Collection | None = typed.get("into")
    if "direction" not in typed:
        return into
    target = SIDES[typed["direction"]][1]
    if into not in (None, target):
        raise QueryError(f"direction={typed['direction']!r} does not search {into}; leave one of the two out")
    return target


def check_modality(direction: str, modality: Modality) -> None:
    """Refuse a direction that starts from another modality than the query's.

    Raises:
        QueryError: It does.
    """
    names = [name for name, (start, _) in SIDES.items() if start == modality]
    if direction not in names:
        kind = "a text" if modality == "text" else "an image"
        raise QueryError(f"direction={direction!r} does not start from {kind}; give {' or '.join(names)}")


def _direction_modality(typed: Mapping[str, Any], default: Modality | None) -> Modality | None:
    return SIDES[typed["direction"]][0] if "direction" in typed else default


_PART_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], QueryPart]] = {
    "text": lambda typed: text_part(typed["text"]),
    "item": lambda typed: item_part(typed["item"], typed.get("collection"), _direction_modality(typed, None)),
    # Nobody says what a vector stands for; text queries need the most probing, so that holds for images too.
    "vector": lambda typed: vector_part(typed["vector"], _direction_modality(typed, "text")),
}
