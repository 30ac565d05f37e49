"""Semantic search as it is asked for, and its results as lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder

from .errors import DataError, MatcherError
from .gallery import Found, Gallery, InIndex, InMemory
from .nearest import Chunks, Similarity, as_vectors
from .reader import Reader
from .roles import Roles, Side
from .tables import IdMappings


class SearchOptions(TypedDict, total=False):
    """The keyword arguments of `Matcher.semantic_search`; `SearchRequest` says what they mean."""

    query_embeddings: Any
    response_embeddings: Any
    index: str | Path | None
    top_k: int
    query_chunk_size: int
    response_chunk_size: int
    similarity: Literal["cosine", "dot"]
    id_mappings: IdMappings | None
    as_arrays: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRequest:
    """What is searched for, and where.

    Attributes:
        query_data: A table with the query column, or a list of its cells.
        response_data: The same for the responses.
        query_embeddings: Ready vectors in place of query data: an array, a tensor, (dim,) for one.
        response_embeddings: The same for the responses.
        index: The folder of a built index in place of responses; `response_id` is then an item id.
        top_k: Hits a query; fewer come back where there are fewer responses.
        query_chunk_size: Queries compared at a time. Results do not depend on it; 100 to 5,000 is usual.
        response_chunk_size: Responses compared at a time; lower it where memory is short.
        similarity: `cosine`, or `dot` for ready embeddings whose length means something.
        id_mappings: What ids in the data stand for.
        as_arrays: Return (ids, scores) as arrays (n, k) in place of lists.
    """

    query_data: Any = None
    response_data: Any = None
    query_embeddings: Any = None
    response_embeddings: Any = None
    index: str | Path | None = None
    top_k: int = 10
    query_chunk_size: int = 512
    response_chunk_size: int = 500_000
    similarity: Similarity = "cosine"
    id_mappings: IdMappings | None = None
    as_arrays: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            DataError: A side is given twice.
            MatcherError: An option is out of range.
        """
        for side, data, embeddings in (
            ("query", self.query_data, self.query_embeddings),
            ("response", self.response_data, self.response_embeddings),
        ):
            if data is not None and embeddings is not None:
                raise DataError(f"{side}_data and {side}_embeddings are both given; give one of them")
        if self.query_data is None and self.query_embeddings is None:
            raise DataError("there is nothing to search with; give query_data or query_embeddings")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int | np.integer) or self.top_k < 1:
            raise MatcherError(f"top_k={self.top_k!r} is no number of hits; give a whole number from 1 on")
        if self.similarity not in get_args(Similarity):
            raise MatcherError(f"similarity={self.similarity!r} is unknown; give 'cosine' or 'dot'")
        if self.index is not None and (self.response_data is not None or self.response_embeddings is not None):
            raise DataError("responses and an index are both given; give one of them")

    @property
    def chunks(self) -> Chunks:
        """How much to compare at a time."""
        return Chunks(queries=self.query_chunk_size, responses=self.response_chunk_size)

    @property
    def encodes(self) -> bool:
        """Whether an encoder is needed."""
        return self.query_data is not None or self.response_data is not None


def search(request: SearchRequest, roles: Roles, load: Callable[[], Encoder], index: Path | None) -> Found:
    """Return the nearest responses of each query.

    Args:
        request: What is searched for.
        roles: Which column plays which part.
        load: Returns the encoder; called only where something is to be encoded.
        index: Where to search if the request names neither responses nor an index.

    Raises:
        DataError: There is nothing to search in, or a side cannot be used.
    """
    encoder = load() if request.encodes else None
    reader = Reader(roles, encoder, request.id_mappings) if encoder is not None else None
    queries = _side(request, reader, "query")
    gallery = _gallery(request, reader, roles, index)
    if isinstance(gallery, InMemory) and gallery.vectors.shape[1] != queries.shape[1]:
        dims = f"queries have {queries.shape[1]} dimensions and responses {gallery.vectors.shape[1]}"
        raise DataError(f"{dims}; encode both with the same encoder")
    return gallery.search(queries, request.top_k)


def hit_lists(found: Found) -> list[list[dict[str, Any]]]:
    """Return for each query a list of {"response_id", "score"}, best first."""
    return [
        [{"response_id": item, "score": score} for item, score in zip(ids, scores, strict=True)]
        for ids, scores in zip(found.ids.tolist(), found.scores.tolist(), strict=True)
    ]


def _gallery(request: SearchRequest, reader: Reader | None, roles: Roles, index: Path | None) -> Gallery:
    if request.response_data is not None or request.response_embeddings is not None:
        return InMemory(_side(request, reader, "response"), request.chunks)
    place = request.index or index
    if place is None:
        raise DataError("there is nothing to search in; give response_data, response_embeddings or index")
    return InIndex(place, roles, reader.cells.encoder if reader is not None else None)


def _side(request: SearchRequest, reader: Reader | None, side: Side) -> NDArray[np.float32]:
    data, embeddings = (
        (request.query_data, request.query_embeddings)
        if side == "query"
        else (request.response_data, request.response_embeddings)
    )
    if data is not None and reader is not None:
        return reader.side(data, side)
    return as_vectors(embeddings, f"{side}_embeddings", request.similarity)
