"""Semantic search over embeddings or an index, and its results as lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder
from encoders.base import plain_array
from evaluation import exact_top_k
from searcher import Searcher
from storage.schema import TARGETS, Collection, Direction

from .embed import CellEncoder
from .errors import DataError, MatcherError
from .pairs import Reader, facing
from .tables import IdMappings, Roles, Side

Similarity = Literal["cosine", "dot"]
Ids = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """How much is compared at a time; the results do not depend on it.

    Attributes:
        queries: Queries a block. With `responses` it decides the work space: their product times 4 bytes.
        responses: Responses a block.
    """

    queries: int = 512
    responses: int = 500_000

    def __post_init__(self) -> None:
        """Refuse sizes below 1.

        Raises:
            MatcherError: One is.
        """
        for name, size in (("query_chunk_size", self.queries), ("response_chunk_size", self.responses)):
            if size < 1:
                raise MatcherError(f"{name}={size!r} is no size; give 1 or more")


def as_vectors(embeddings: Any, what: str, similarity: Similarity = "cosine") -> NDArray[np.float32]:
    """Return ready embeddings as (n, dim) float32, at unit length for `cosine`; one vector (dim,) becomes one row.

    Args:
        embeddings: An array, a torch tensor of any type, a list of rows, or a frame as `extract_embedding` gives it.
        what: What to call them in a message.
        similarity: `cosine` or `dot`.

    Raises:
        DataError: They are no numbers, have another shape, are not finite, or a row of zeros has no direction.
    """
    rows = [plain_array(row) for row in embeddings] if isinstance(embeddings, list | tuple) else plain_array(embeddings)
    try:
        array = np.atleast_2d(np.asarray(rows, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are no array of numbers: {error}; give an array (n, dim)") from error
    if array.ndim != 2 or not array.size:
        raise DataError(f"{what} have shape {array.shape}; give an array (n, dim) with at least one row")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise DataError(f"{what}, row {row}, hold NaN or infinite values; encode it again")
    return array if similarity == "dot" else _unit_rows(array, what)


def _unit_rows(array: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    length = np.linalg.norm(array.astype(np.float64), axis=1)
    if not length.all():
        raise DataError(f"{what}, row {int(np.argmin(length))}, are all zeros and point nowhere; encode it again")
    # Rows that an encoder has brought to unit length stay as they are, bit for bit.
    off = np.abs(length - 1) > 1e-6
    return np.where(off[:, None], array / length[:, None], array).astype(np.float32) if off.any() else array


class Found(NamedTuple):
    """Ids (n, k) and cosines (n, k), best first; k is smaller than requested where there are fewer items."""

    ids: NDArray[Any]
    scores: NDArray[np.float64]


class Gallery(Protocol):
    """Something that answers vectors with the nearest of its items."""

    def search(self, vectors: NDArray[Any], k: int) -> Found:
        """Return the nearest items of each vector."""


class InMemory:
    """Responses as vectors; ids are their rows."""

    def __init__(self, vectors: NDArray[np.float32], chunks: Chunks | None = None) -> None:
        self.vectors = vectors
        self._chunks = chunks

    def search(self, vectors: NDArray[Any], k: int) -> Found:
        """Return the nearest rows, exactly; equal scores by lower row."""
        chunks = self._chunks or Chunks()
        blocks = {"query_block": chunks.queries, "base_block": chunks.responses}
        return Found(*exact_top_k(self.vectors, vectors, k, **blocks))


class InIndex:
    """The half of an index that holds what the response column would; ids are its item ids.

    The index is opened for each search and closed after it, so the current version answers.
    """

    def __init__(self, path: str | Path, roles: Roles, encoder: Encoder | None) -> None:
        self._path = Path(path)
        self._encoder = encoder
        self._direction: Direction = _direction(roles)
        self._into: Collection = TARGETS[self._direction]

    def search(self, vectors: NDArray[Any], k: int) -> Found:
        """Return the nearest item ids, as `Searcher.search_vectors` finds them."""
        with Searcher.open(self._path, verify="size") as searcher:
            self._check(searcher)
            ids, scores = searcher.search_vectors(self._into, vectors, k, direction=self._direction)
        held = int((ids[0] != None).sum()) if len(ids) else 0  # noqa: E711 (an array of objects)
        return Found(ids[:, :held], scores[:, :held].astype(np.float64))

    def _check(self, searcher: Searcher) -> None:
        made_by = searcher.manifest.encoder
        if self._encoder is None or made_by is None or made_by.fingerprint in (None, self._encoder.fingerprint):
            return
        raise MatcherError(
            f"the index {str(self._path)!r} was made by encoder {made_by.spec!r}, not by {self._encoder.spec!r}, so "
            f"their vectors cannot be compared; use Matcher.from_index({str(self._path)!r})"
        )


def _direction(roles: Roles) -> Direction:
    directions: dict[tuple[str, str], Direction] = {
        ("text", "image"): "text_to_image",
        ("image", "text"): "image_to_text",
        ("image", "image"): "image_to_image",
        ("text", "text"): "text_to_text",
    }
    return directions[roles.query_type, roles.response_type]


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


def search(request: SearchRequest, roles: Roles, load: Callable[[], CellEncoder], index: Path | None) -> Found:
    """Return the nearest responses of each query.

    Args:
        request: What is searched for. A table that holds only the other side's column exchanges the sides.
        roles: Which column plays which part.
        load: Returns what encodes; called only where something is to be encoded.
        index: Where to search if the request names neither responses nor an index.

    Raises:
        DataError: There is nothing to search in, or a side cannot be used.
    """
    roles = facing(roles, request.query_data, request.response_data)
    reader = Reader(roles, load(), request.id_mappings) if request.encodes else None
    queries = _side(request, reader, "query")
    gallery = _gallery(request, reader, roles, index)
    if isinstance(gallery, InMemory) and gallery.vectors.shape[1] != queries.shape[1]:
        dims = f"queries have {queries.shape[1]} dimensions and responses {gallery.vectors.shape[1]}"
        raise DataError(f"{dims}; encode both with the same encoder")
    return gallery.search(queries, request.top_k)


def hit_lists(results: Found) -> list[list[dict[str, Any]]]:
    """Return for each query a list of {"response_id", "score"}, best first."""
    return [
        [{"response_id": item, "score": score} for item, score in zip(ids, scores, strict=True)]
        for ids, scores in zip(results.ids.tolist(), results.scores.tolist(), strict=True)
    ]


def _gallery(request: SearchRequest, reader: Reader | None, roles: Roles, index: Path | None) -> Gallery:
    if request.response_data is not None or request.response_embeddings is not None:
        return InMemory(_side(request, reader, "response"), request.chunks)
    position = request.index or index
    if position is None:
        raise DataError("there is nothing to search in; give response_data, response_embeddings or index")
    return InIndex(position, roles, reader.cells.encoder if reader is not None else None)


def _side(request: SearchRequest, reader: Reader | None, side: Side) -> NDArray[np.float32]:
    data, embeddings = (
        (request.query_data, request.query_embeddings)
        if side == "query"
        else (request.response_data, request.response_embeddings)
    )
    if data is not None and reader is not None:
        return reader.side(data, side)
    return as_vectors(embeddings, f"{side}_embeddings", request.similarity)
