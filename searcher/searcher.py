"""Top-k search in one version of an index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.exact_search import exact_search
from storage.schema import COLLECTIONS, TARGETS, Collection, CollectionInfo, Direction
from storage.store import IndexStore

from .errors import SearcherClosedError, SearchError
from .filters import Filters, RowIds
from .hits import OWN_COLUMNS, Hit, Hits
from .operating_points import Choice, choose
from .query_encoder import Embedder, EncoderChoice
from .request import Modality, Query, SearchOptions, SearchParams, Vectors, split_queries, understand, unit_rows

if TYPE_CHECKING:
    from encoders import Encoder
    from storage.manifest import Manifest
    from storage.version import IndexVersion


Vector = NDArray[Any]
Picture = str | Path | bytes | Image.Image
Many = list[Any] | tuple[Any, ...]


class Directions(ABC):
    """The four methods of a searcher, with what each takes and gives."""

    @overload
    def text_to_image(self, query: str, k: int = ..., **options: Unpack[SearchOptions]) -> Hits: ...
    @overload
    def text_to_image(self, query: Many, k: int = ..., **options: Unpack[SearchOptions]) -> list[Hits]: ...
    @overload
    def text_to_image(self, query: Vector, k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...
    def text_to_image(self, query: str | Vector | Many, k: int = 10, **options: Unpack[SearchOptions]) -> Any:
        """Return the images that a text describes best.

        Args:
            query: A text or a ready vector (dim,); or several: a list of them, or an array (n, dim).
            k: Hits wanted, 1 to 10,000; fewer come back where there are fewer.
            **options: `where`, `ann_recall`, `nprobe`, `oversample`, `exact`, `columns`; `SearchParams` says what they
                mean.

        Returns:
            `Hits` for one query, a list of `Hits` for several, in their order.

        Raises:
            SearchError: The query, an option or the filter cannot be used; the message says why.
        """
        return self._search("text_to_image", query, k, options)

    @overload
    def image_to_text(self, query: Picture, k: int = ..., **options: Unpack[SearchOptions]) -> Hits: ...
    @overload
    def image_to_text(self, query: Many, k: int = ..., **options: Unpack[SearchOptions]) -> list[Hits]: ...
    @overload
    def image_to_text(self, query: Vector, k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...
    def image_to_text(self, query: Picture | Vector | Many, k: int = 10, **options: Unpack[SearchOptions]) -> Any:
        """Return the texts that describe a picture best; see `text_to_image`.

        A query is a path, the bytes of a file, a PIL image or a vector; a `str` is a path, and nothing is fetched.
        """
        return self._search("image_to_text", query, k, options)

    @overload
    def image_to_image(self, query: Picture, k: int = ..., **options: Unpack[SearchOptions]) -> Hits: ...
    @overload
    def image_to_image(self, query: Many, k: int = ..., **options: Unpack[SearchOptions]) -> list[Hits]: ...
    @overload
    def image_to_image(self, query: Vector, k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...
    def image_to_image(self, query: Picture | Vector | Many, k: int = 10, **options: Unpack[SearchOptions]) -> Any:
        """Return the images most like a picture; queries as in `image_to_text`, the rest as in `text_to_image`."""
        return self._search("image_to_image", query, k, options)

    @overload
    def text_to_text(self, query: str, k: int = ..., **options: Unpack[SearchOptions]) -> Hits: ...
    @overload
    def text_to_text(self, query: Many, k: int = ..., **options: Unpack[SearchOptions]) -> list[Hits]: ...
    @overload
    def text_to_text(self, query: Vector, k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...
    def text_to_text(self, query: str | Vector | Many, k: int = 10, **options: Unpack[SearchOptions]) -> Any:
        """Return the texts nearest in meaning to a text; see `text_to_image`."""
        return self._search("text_to_text", query, k, options)

    @abstractmethod
    def _search(self, direction: Direction, query: Any, k: int, options: SearchOptions) -> Hits | list[Hits]:
        """Answer one query or several."""


class Gate:
    """Counts the searches under way, so that closing waits for them: unmapping a file under a reader kills it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = Condition()
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        """Hold the gate open for one search.

        Raises:
            SearcherClosedError: It was closed already.
        """
        with self._changed:
            if self._closed:
                raise SearcherClosedError(f"the searcher of {self._name!r} is closed; open another with Searcher.open")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            if self._closed:
                self._changed.notify_all()

    def close(self) -> bool:
        """Let nobody in any more and wait until all are out; return False where it was closed before."""
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: self._inside == 0)
        return first


_MOST_CHOICES = 1024


class _Answer(NamedTuple):
    """Row ids (n, k) padded with -1, scores (n, k) padded with -inf, and how they were found."""

    row_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    choice: Choice


class Searcher(Directions):
    """Answers queries from one version of an index, the current one when it was opened, and keeps it.

    Safe from many threads. Close it, or use it in `with`.
    """

    def __init__(self, version: IndexVersion, choice: EncoderChoice, place: str) -> None:
        """Use an open version of an index, which the searcher then owns; see `open`."""
        self._version = version
        self._place = place
        self._gate = Gate(place)
        self._filters = Filters(version.catalog)
        self._choices: dict[tuple[Any, ...], Choice] = {}
        manifest = version.manifest
        prompt = manifest.encoding.prompt
        self._embedder = Embedder(choice, manifest.encoder, version.dim, place, prompt=prompt)

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

        Raises:
            StorageError: There is no index or no such version, or its files are not what the manifest says.
            EncoderMismatchError: The encoder given is not the one that made the index.
        """
        opened = IndexStore.open(Path(path)).open_version(version, verify=verify)
        choice = EncoderChoice(encoder=encoder, device=device, precision=precision)
        try:
            return cls(opened, choice, str(path))
        except BaseException:
            opened.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What the version says of itself: counts, encoder, plans, operating points."""
        return self._version.manifest

    @property
    def collections(self) -> tuple[Collection, ...]:
        """The halves that this index has, `images` before `texts`."""
        return tuple(name for name in COLLECTIONS if name in self.manifest.collections)

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
        params = SearchParams(k=k, **options)
        self._check_direction(into, direction)
        with self._gate:
            queries = unit_rows(vectors, self._embedder.dim)
            answer = self._answer(into, direction, queries, params)
            names = self._version.vectors(into)
            if answer.row_ids.shape[1] == params.k and answer.row_ids.min(initial=0) >= 0:
                return names.item_ids(answer.row_ids), answer.scores
            found = answer.row_ids >= 0
            item_ids = np.full((len(queries), params.k), None, dtype=object)
            scores = np.full(item_ids.shape, -np.inf, dtype=np.float32)
            width = answer.row_ids.shape[1]
            item_ids[:, :width][found] = names.item_ids(answer.row_ids[found])
            scores[:, :width] = answer.scores
        return item_ids, scores

    def close(self) -> None:
        """Wait for the searches under way and let go of the files; closing again does nothing."""
        if self._gate.close():
            self._version.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _search(self, direction: Direction, query: Any, k: int, options: SearchOptions) -> Hits | list[Hits]:
        params = SearchParams(k=k, **options)
        into = TARGETS[direction]
        modality: Modality = "text" if direction.startswith("text_") else "image"
        with self._gate:
            columns = self._wanted_columns(into, params)
            asked, alone = split_queries(query)
            queries = [understand(one, modality) for one in asked]
            self._info(into)
            if not queries:
                return []
            answer = self._answer(into, direction, self._embedder.embed(queries), params)
            found = self._hits(into, queries, answer, columns, params.where)
        return found[0] if alone else found

    def _answer(self, into: Collection, direction: Direction | None, queries: Vectors, params: SearchParams) -> _Answer:
        info = self._info(into)
        rows = None if params.where is None else self._filters.rows(into, params.where)
        choice = self._choose(into, direction, params, None if rows is None else len(rows))
        k = min(params.k, info.rows if rows is None else len(rows))
        vectors = self._version.vectors(into)
        if choice.exact:
            ids, scores = exact_search(vectors, queries, k, rows)
        else:
            setting = {"nprobe": choice.nprobe, "oversample": choice.oversample}
            ids, scores = self._version.ann(into).search(queries, k, rows=rows, **setting)
            if rows is not None and not _all_in(ids, rows):
                ids, scores = exact_search(vectors, queries, k, rows)
        # Rounding to float16 leaves lengths of 1 +- 0.0003; a cosine is at most 1 all the same.
        np.minimum(scores, 1, out=scores)
        if (low := scores < -1).any():
            scores[low & (ids >= 0)] = -1
        return _Answer(ids, scores, choice)

    def _choose(
        self, into: Collection, direction: Direction | None, params: SearchParams, filtered_rows: int | None
    ) -> Choice:
        """`choose`, remembered: it takes as long as the re-rank of a query, and the same is asked again and again."""
        key = (into, direction, params.k, params.ann_recall, params.nprobe, params.oversample, params.exact)
        choice = self._choices.get(key) if filtered_rows is None else None
        if choice is None:
            choice = choose(self._info(into), direction, params, filtered_rows)
            if filtered_rows is None and len(self._choices) < _MOST_CHOICES:
                self._choices[key] = choice
        return choice

    def _hits(
        self, into: Collection, queries: Sequence[Query], answer: _Answer, columns: list[str], where: str | None
    ) -> list[Hits]:
        known = np.unique(answer.row_ids[answer.row_ids >= 0])
        entries = dict(zip(known.tolist(), self._version.catalog.rows(into, known, columns), strict=True))
        found = []
        for query, ids, scores in zip(queries, answer.row_ids, answer.scores, strict=True):
            ids, scores = ids[ids >= 0], scores[ids >= 0]
            hits = tuple(
                _hit(rank, float(score), entries[row])
                for rank, (row, score) in enumerate(zip(ids.tolist(), scores, strict=True), start=1)
            )
            found.append(
                Hits(
                    query=query,
                    collection=into,
                    row_ids=ids,
                    scores=scores,
                    choice=answer.choice,
                    where=where,
                    hits=hits,
                )
            )
        return found

    def _wanted_columns(self, into: Collection, params: SearchParams) -> list[str]:
        self._info(into)
        known = self._filters.columns(into)
        wanted = known if params.columns is None else list(params.columns)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise SearchError(f"columns names no column {unknown[0]!r}; {into} have {', '.join(known)}")
        needed = [name for name in OWN_COLUMNS if name in known]
        return list(dict.fromkeys([*needed, *wanted]))

    def _info(self, into: Collection) -> CollectionInfo:
        if into not in self.manifest.collections:
            held = " and ".join(f"{self.manifest.collections[name].rows} {name}" for name in self.collections)
            raise SearchError(
                f"the index {self._place} has no {into}, it has {held}; search those, or build it with {into}"
            )
        return self.manifest.collections[into]

    def _check_direction(self, into: Collection, direction: Direction | None) -> None:
        if into not in COLLECTIONS:
            raise SearchError(f"into={into!r} is no collection; give one of {', '.join(COLLECTIONS)}")
        if direction is not None and TARGETS.get(direction) != into:
            fitting = ", ".join(name for name, target in TARGETS.items() if target == into)
            raise SearchError(f"direction={direction!r} does not search {into}; give one of {fitting}")


def _all_in(ids: NDArray[np.int64], rows: RowIds) -> bool:
    """Whether every id but the padding is among `rows`, which ascend."""
    return bool(np.isin(ids[ids >= 0], rows).all())


def _hit(rank: int, score: float, entry: dict[str, Any]) -> Hit:
    metadata = {name: value for name, value in entry.items() if name not in OWN_COLUMNS}
    return Hit(
        rank=rank,
        item_id=entry["item_id"],
        score=score,
        uri=entry["uri"],
        caption=entry["caption"],
        metadata=metadata,
    )
