"""Top-k search in one version of an index: open, request, candidates, exact re-rank, hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.arguments import check_arguments
from storage.errors import check_keywords
from storage.schema import COLLECTIONS, MODALITIES, Collection, Direction, Modality, direction_of
from storage.store import IndexStore

from .collapse import CONTENT_COLUMNS, MOST_COLLAPSED, first_copies, rule_of
from .compose import Query, compose
from .errors import ItemNotFoundError, ParameterError, QueryError, SearchError
from .explain import Explainer
from .hits import OWN_COLUMNS, Hits, hits_of
from .in_flight import InFlight
from .originals import corpus_root
from .pages import Page, Ranking, arrays, depth, may_be_fuller, shown_rows
from .probabilities import Probabilities, own_row
from .query import QueryPart, ResolvedQuery, query_part, split_queries
from .query_encoder import EncoderChoice, QueryEncoder, Vectors, unit_rows
from .ranker import Ranker, check_direction
from .relevance_map import relevance_map
from .request import MethodOptions, SearchOptions, SearchRequest, request_of
from .rerank import Rerank, candidates_of, check_rerank, reranked
from .sorting import check_sort, in_order

if TYPE_CHECKING:
    from encoders import Encoder
    from storage.duplicates.grades import Grade
    from storage.manifest import Manifest
    from storage.version import IndexVersion

    from .duplicates import Duplicates


Vector = NDArray[Any]
ImageQuery = str | Path | bytes | Image.Image
Many = list[Any] | tuple[Any, ...]

SEARCH_KEYWORDS = ("query", "k", *SearchOptions.__annotations__)
METHOD_KEYWORDS = (*SEARCH_KEYWORDS, "rerank")


class Searcher:
    """Answers queries from one version of an index, the current one when it was opened, and keeps it.

    Safe from many threads. Close it, or use it in `with`.
    """

    def __init__(
        self, version: IndexVersion, encoder: QueryEncoder, location: str, *, root: Path | None = None
    ) -> None:
        """Use an open version of an index, which the searcher owns from then on; without `root` hits have no path."""
        self._version = version
        self._location = location
        self._root = root
        self._encoder = encoder
        self._in_flight = InFlight(location)
        self._ranker = Ranker(version, location)
        self._probabilities = Probabilities(version, location)
        self._explainer = Explainer(version)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        version: int | None = None,
        encoder: Encoder | str | None = None,
        device: str = "auto",
        precision: str = "auto",
        verify: Literal["full", "size"] = "full",
        root: str | Path | None = None,
    ) -> Searcher:
        """Return a searcher of the index at `path`.

        Args:
            path: The folder of the index.
            version: Its number; None for the current one.
            encoder: An encoder, or the spec of one, in place of the one that the manifest names. It is needed for
                indexes of ready-made vectors only; any other must be the one that made the index.
            device: Where queries are encoded: `auto`, `cpu`, `cuda`.
            precision: `auto`, `fp32`, `bf16`, `fp16`.
            verify: `full` reads every file once and compares checksums, about a second for 2 GB; `size` compares
                sizes only, for files that something else has checked.
            root: Where the images are, if the corpus was moved; None for where the build read them.

        Raises:
            StorageError: There is no index or no such version, or its files are not what the manifest says.
            EncoderMismatchError: The encoder given is not the one that made the index.
            ParameterError: An argument is of a wrong type.
        """
        check_arguments(cls.open, locals(), ParameterError)
        opened = IndexStore.open(Path(path)).open_version(version, verify=verify)
        choice = EncoderChoice(encoder=encoder, device=device, precision=precision)
        try:
            folder = corpus_root(opened.manifest.corpus, root)
            return cls(opened, QueryEncoder.of(choice, opened, str(path)), str(path), root=folder)
        except BaseException:
            opened.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What the version says of itself: counts, encoder, plans, operating points."""
        return self._version.manifest

    @property
    def encoder_note(self) -> str | None:
        """Why a query had to go through torch and not through an exported tower; None where none had to."""
        return self._encoder.note

    @property
    def collections(self) -> tuple[Collection, ...]:
        """The halves that this index has, `images` before `texts`."""
        return tuple(name for name in COLLECTIONS if name in self.manifest.collections)

    @overload
    def text_to_image(self, query: str, k: int = ..., **options: Unpack[MethodOptions]) -> Hits: ...
    @overload
    def text_to_image(self, query: Many, k: int = ..., **options: Unpack[MethodOptions]) -> list[Hits]: ...
    @overload
    def text_to_image(self, query: Vector, k: int = ..., **options: Unpack[MethodOptions]) -> Any: ...
    def text_to_image(self, query: str | Vector | Many, k: int = 10, **options: Unpack[MethodOptions]) -> Any:
        """Return the images that a text describes best.

        Args:
            query: A text or a ready vector (dim,); or several: a list of them, or an array (n, dim).
            k: Hits wanted, 1 to 10,000; fewer come back where there are fewer.
            **options: `offset`, `where`, `min_score`, `min_probability`, `diversity`, `words`, `hybrid`, `collapse`,
                `explain`, `sort`, `ann_recall`, `nprobe`, `oversample`, `exact`, `columns`; `SearchRequest` says what
                they mean. And `rerank`, a function of the query and its hits that gives each a new score: see
                `rerank.reranked`.

        Returns:
            `Hits` for one query, a list of `Hits` for several, in their order.

        Raises:
            SearchError: The query, an option or the filter cannot be used; the message says why.
        """
        check_keywords("Searcher.text_to_image", options, METHOD_KEYWORDS)
        return self._search_with(query, "text", "images", k, options)

    @overload
    def image_to_text(self, query: ImageQuery, k: int = ..., **options: Unpack[MethodOptions]) -> Hits: ...
    @overload
    def image_to_text(self, query: Many, k: int = ..., **options: Unpack[MethodOptions]) -> list[Hits]: ...
    @overload
    def image_to_text(self, query: Vector, k: int = ..., **options: Unpack[MethodOptions]) -> Any: ...
    def image_to_text(self, query: ImageQuery | Vector | Many, k: int = 10, **options: Unpack[MethodOptions]) -> Any:
        """Return the texts that describe an image best; see `text_to_image`.

        A query is a path, the bytes of a file, a PIL image or a vector; a `str` is a path, and nothing is fetched.
        """
        check_keywords("Searcher.image_to_text", options, METHOD_KEYWORDS)
        return self._search_with(query, "image", "texts", k, options)

    @overload
    def image_to_image(self, query: ImageQuery, k: int = ..., **options: Unpack[MethodOptions]) -> Hits: ...
    @overload
    def image_to_image(self, query: Many, k: int = ..., **options: Unpack[MethodOptions]) -> list[Hits]: ...
    @overload
    def image_to_image(self, query: Vector, k: int = ..., **options: Unpack[MethodOptions]) -> Any: ...
    def image_to_image(self, query: ImageQuery | Vector | Many, k: int = 10, **options: Unpack[MethodOptions]) -> Any:
        """Return the images most like an image; queries as in `image_to_text`, the rest as in `text_to_image`."""
        check_keywords("Searcher.image_to_image", options, METHOD_KEYWORDS)
        return self._search_with(query, "image", "images", k, options)

    @overload
    def text_to_text(self, query: str, k: int = ..., **options: Unpack[MethodOptions]) -> Hits: ...
    @overload
    def text_to_text(self, query: Many, k: int = ..., **options: Unpack[MethodOptions]) -> list[Hits]: ...
    @overload
    def text_to_text(self, query: Vector, k: int = ..., **options: Unpack[MethodOptions]) -> Any: ...
    def text_to_text(self, query: str | Vector | Many, k: int = 10, **options: Unpack[MethodOptions]) -> Any:
        """Return the texts nearest in meaning to a text; see `text_to_image`."""
        check_keywords("Searcher.text_to_text", options, METHOD_KEYWORDS)
        return self._search_with(query, "text", "texts", k, options)

    @overload
    def search(
        self, request: SearchRequest | Query, k: int = ..., *, rerank: Rerank | None = ..., **options: Any
    ) -> Hits: ...
    @overload
    def search(self, request: Sequence[SearchRequest], *, rerank: Rerank | None = ...) -> list[Hits]: ...
    def search(
        self,
        request: SearchRequest | Query | Sequence[SearchRequest],
        k: int = 10,
        *,
        rerank: Rerank | None = None,
        **options: Any,
    ) -> Hits | list[Hits]:
        """Return the hits of one request, or of each of several, which are encoded and ranked together.

        Args:
            request: A request; a `Query`, with `k`, `into` and the options of `text_to_image` beside it; or a list of
                requests. An item of the index is no hit of its own.
            k: Hits wanted for a `Query`.
            rerank: As of `text_to_image`.
            **options: Of a `Query`.

        Raises:
            SearchError: The query, an option or the filter cannot be used; the message says why.
        """
        if isinstance(request, Query):
            check_keywords("Searcher.search", options, [*SEARCH_KEYWORDS, "into"])
            request = SearchRequest(parts=request.parts, k=k, **options)
        elif options:
            raise QueryError(f"the option {next(iter(options))!r} belongs into the request, or beside a Query")
        requests = [request] if isinstance(request, SearchRequest) or not isinstance(request, Sequence) else request
        for one in requests:
            if not isinstance(one, SearchRequest):
                raise QueryError(f"the request is of type {type(one).__name__}; give a SearchRequest")
        with self._in_flight:
            resolved = iter(self._resolve([part for one in requests for part in one.parts or (one.part,)]))
            queries = [self.composed(one, list(islice(resolved, len(one.parts)))) for one in requests]
            ranked = [one.ranked.with_words_of(query.part) for one, query in zip(requests, queries, strict=True)]
            hits = self._answer_all(ranked, queries, rerank)
        return hits[0] if isinstance(request, SearchRequest) else hits

    def _answer_all(
        self, requests: Sequence[SearchRequest], queries: Sequence[ResolvedQuery], rerank: Rerank | None = None
    ) -> list[Hits]:
        """Answer requests in their order, those with the same options and modality together."""
        if rerank is not None:
            check_rerank(rerank)
            found = self._answer_all([candidates_of(one) for one in requests], queries)
            pages = [reranked(hits, one, rerank) for hits, one in zip(found, requests, strict=True)]
            return [in_order(page, one.sort) for page, one in zip(pages, requests, strict=True)]
        groups: dict[Any, list[int]] = {}
        for position, (request, query) in enumerate(zip(requests, queries, strict=True)):
            columns = None if request.columns is None else tuple(request.columns)
            options = tuple({**request.options, "columns": columns}.values())
            groups.setdefault((options, query.modality, query.part.kind == "words"), []).append(position)
        hits: dict[int, Hits] = {}
        for positions in groups.values():
            hits |= zip(
                positions,
                self.answer(requests[positions[0]], [queries[position] for position in positions]),
                strict=True,
            )
        return [hits[position] for position in range(len(requests))]

    def composed(self, request: SearchRequest, queries: Sequence[ResolvedQuery]) -> ResolvedQuery:
        """Return the parts of a request as the one query that is ranked.

        Raises:
            SearchError: The parts cancel one another, or there is no such collection.
        """
        if not request.is_composed:
            return queries[0]
        into = request.into or self.collections[0]
        self._ranker.info(into)
        return compose(queries, partial(self._ranker.spread, into))

    def search_vectors(
        self,
        into: Collection,
        vectors: NDArray[Any],
        k: int = 10,
        *,
        direction: Direction | None = None,
        **options: Unpack[SearchOptions],
    ) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
        """Return the items nearest to ready vectors: ids and scores alone, the fast way for batches.

        Args:
            into: `images` or `texts`.
            vectors: (n, dim), or (dim,) for one; scaled to unit length.
            k: Hits wanted a vector, 1 to 10,000.
            direction: What the vectors stand for, so that the operating point measured for it is used; by default the
                costliest of the directions that search `into`.
            **options: As in `text_to_image`; `columns` plays no part.

        Returns:
            Item ids (n, k), str objects padded with None, and exact cosines (n, k) float32 padded with -inf, best
            first.

        Raises:
            SearchError: The vectors, an option or the filter cannot be used.
        """
        check_keywords("Searcher.search_vectors", options, SEARCH_KEYWORDS)
        request = request_of(k, options)
        check_direction(into, direction)
        if request.sort is not None:
            raise ParameterError(f"sort={request.sort!r} is for hits, which search returns; leave it out here")
        with self._in_flight:
            queries = unit_rows(vectors, self._encoder.dim)
            if request.selects or request.words is not None:
                _, pages = self._ranked(into, direction, queries, request, [()] * len(queries))
                if request.min_probability is not None:
                    pages = self._probabilities.judged(into, direction, request, queries, pages, [-1] * len(queries))
                row_ids, scores = arrays(pages, request.k)
            else:
                row_ids, scores = self._ranker.rank(into, direction, queries, request).padded(request.k)
            table = self._version.vectors(into)
            if (row_ids.item(-1) if len(row_ids) == 1 else row_ids[:, -1].min(initial=0)) >= 0:
                return table.item_ids(row_ids), scores
            item_ids = np.full(row_ids.shape, None, dtype=object)
            item_ids[row_ids >= 0] = table.item_ids(row_ids[row_ids >= 0])
        return item_ids, scores

    def answer(self, request: SearchRequest, queries: Sequence[ResolvedQuery]) -> list[Hits]:
        """Return the hits of queries that are vectors already: all by the options of one request, of one modality.

        Raises:
            SearchError: An option or the filter cannot be used.
        """
        with self._in_flight:
            into = request.into or self.collections[0]
            columns = self._metadata_columns(into, request)
            if not queries:
                return []
            modality = queries[0].modality
            direction = None if modality is None else direction_of(modality, into)
            own = [query.rows_in(into) for query in queries]
            vectors = None if queries[0].part.kind == "words" else np.stack([query.vector for query in queries])
            ranking, pages = self._ranked(into, direction, vectors, request, own)
            if vectors is not None:
                others = [own_row(query, into) for query in queries]
                texts = [query.part.content if query.part.kind == "text" else None for query in queries]
                pages = self._probabilities.judged(into, direction, request, vectors, pages, others, texts)
            entries = self._entries(into, pages, columns)
            results = [
                hits_of(request, query.part, page, entries, into, ranking.choice, self._root)
                for query, page in zip(queries, pages, strict=True)
            ]
            results = [in_order(hits, request.sort) for hits in results]
            return self._explainer.explained(results, vectors) if request.explain and vectors is not None else results

    def find_item(self, item_id: str, collection: Collection | None = None) -> tuple[Collection, int]:
        """Return collection and row of an item: among the images first, where no collection is named.

        Raises:
            ItemNotFoundError: There is no such item.
        """
        for name in (collection,) if collection else self.collections:
            row = self._find_row(name, item_id)
            if row >= 0:
                return name, row
        where = collection or " or ".join(self.collections)
        raise ItemNotFoundError(f"there is no item {item_id[:200]!r} among the {where} of this index")

    def item_query(self, part: QueryPart, collection: Collection, row: int) -> ResolvedQuery:
        """Return an item of the index, found before, as a query.

        Raises:
            QueryError: It is of another modality than the request says.
        """
        modality = MODALITIES[collection]
        if part.modality not in (None, modality):
            raise QueryError(
                f"the item {part.label[:200]!r} is among the {collection}, and the direction starts from "
                f"{'a text' if part.modality == 'text' else 'an image'}; leave it out, or name another item"
            )
        vector = self._version.vectors(collection).gather(np.array([row]))
        return ResolvedQuery(part, unit_rows(vector, self._encoder.dim)[0], modality, (collection, row))

    def relevance_map(self, query: str | Vector, image: ImageQuery) -> NDArray[np.float32]:
        """Return how near each part of an image is to a text or a vector by itself, (8, 8) cosines from the top."""
        return relevance_map(self._encoder, query, image)

    def duplicates(self, grade: Grade = "resaved") -> Duplicates:
        """Return the groups of images that are alike, up to a grade, the largest first; see `find_duplicates`.

        Raises:
            SearchError: There is no such grade, or there are no images.
        """
        from .duplicates import find_duplicates

        with self._in_flight:
            return find_duplicates(self._version, self._location, grade)

    def has_filter(self, into: Collection, where: str) -> bool:
        """Whether the rows of a filter are remembered: a search with it then takes no longer than one without."""
        return (into, where) in self._ranker.filters

    def rows_where(self, into: Collection, where: str, *, hidden: frozenset[str] = frozenset()) -> NDArray[np.int64]:
        """Return the rows that pass a filter, ascending; may take seconds, and is remembered for searches that follow.

        Raises:
            SearchError: It is no condition on the columns that are not `hidden`, or cannot be evaluated.
        """
        with self._in_flight:
            self._ranker.info(into)
            return self._ranker.filters.rows(into, where, hidden=hidden)

    def widen(self, direction: Direction) -> int:
        """Take the next wider operating point where a direction is searched by recall; return how many times so far."""
        return self._ranker.widen(direction)

    def close(self) -> None:
        """Wait for running searches and close the files; closing again does nothing."""
        if self._in_flight.close():
            self._version.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _search_with(
        self, query: Any, modality: Modality, into: Collection, k: int, options: Mapping[str, Any]
    ) -> Hits | list[Hits]:
        """Answer one query or several of a modality by the same options."""
        rerank = options.get("rerank")
        request = SearchRequest(into=into, k=k, **{name: options[name] for name in options if name != "rerank"})
        with self._in_flight:
            self._metadata_columns(into, request)
            queries, alone = split_queries(query)
            resolved = self._resolve([query_part(one, modality) for one in queries])
            if request.hybrid or rerank is not None:
                hits = self._answer_all([request.with_words_of(one.part) for one in resolved], resolved, rerank)
            else:
                hits = self.answer(request, resolved)
        return hits[0] if alone else hits

    def _ranked(
        self,
        into: Collection,
        direction: Direction | None,
        vectors: Vectors | None,
        request: SearchRequest,
        own: Sequence[Sequence[int]],
    ) -> tuple[Ranking, list[Page]]:
        """Return the ranking of queries, None for words alone, and the page of each, full where there are enough."""
        self._ranker.info(into)
        if vectors is not None:
            self._probabilities.check(direction, request)
        elif (request.min_score, request.min_probability) != (None, None):
            name = "min_probability" if request.min_score is None else "min_score"
            raise SearchError(f"{name} is of a cosine, and words alone have none; leave it out, or give a text beside")
        # An item finds itself first, and is dropped again.
        k = depth(request, own=max(map(len, own), default=0))
        table = self._version.vectors(into)
        copies = partial(self._copies, into)
        while True:
            deeper = request if (k, 0) == (request.k, request.offset) else replace(request, k=k, offset=0)
            ranking = self._ranker.ranking(into, direction, vectors, deeper, len(own))
            pages = shown_rows(ranking, request, own, table.gather, copies)
            if not may_be_fuller(ranking, request, pages, k):
                return ranking, pages
            k = min(4 * k, MOST_COLLAPSED)

    def _copies(self, into: Collection, rows: NDArray[np.int64], vectors: NDArray[Any]) -> NDArray[np.int64]:
        known = [name for name in CONTENT_COLUMNS if name in dict(self._version.catalog.columns(into))]
        catalog = self._version.catalog
        return first_copies(
            vectors, rule_of(into, self.manifest.encoder), lambda at: catalog.rows(into, rows[at], known)
        )

    def _resolve(self, parts: Sequence[QueryPart]) -> list[ResolvedQuery]:
        vectors = self._encoder.encode(parts)
        return [
            self.item_query(part, *self.find_item(part.content, part.collection))
            if part.kind == "item"
            else ResolvedQuery(part, vector, part.modality)
            for part, vector in zip(parts, vectors, strict=True)
        ]

    def _find_row(self, collection: Collection, item_id: str) -> int:
        if collection not in self.collections:
            return -1
        try:
            return int(self._version.vectors(collection).find([item_id])[0])
        except UnicodeEncodeError:
            return -1  # half of a surrogate pair: no id of ours

    def _entries(self, into: Collection, pages: Sequence[Page], columns: list[str]) -> dict[int, dict[str, Any]]:
        # `np.unique` would import numpy.ma, a tenth of the time that a search from the command line takes.
        shown = [rows for page in pages for rows in (page.row_ids, *(() if page.copies is None else page.copies))]
        rows = np.array(sorted({row for part in shown for row in part.tolist()}), dtype=np.int64)
        return dict(zip(rows.tolist(), self._version.catalog.rows(into, rows, columns), strict=True))

    def _metadata_columns(self, into: Collection, request: SearchRequest) -> list[str]:
        self._ranker.info(into)
        known = [name for name, _ in self._version.catalog.columns(into)]
        requested = known if request.columns is None else list(request.columns)
        unknown = [name for name in requested if name not in known]
        if unknown:
            raise SearchError(f"columns names no column {unknown[0]!r}; {into} have {', '.join(known)}")
        needed = [name for name in OWN_COLUMNS if name in known]
        by = check_sort(request.sort, known, into)
        return list(dict.fromkeys([*needed, *requested, *([] if by is None else [by])]))
