"""From a request to hits: concurrent ones are batched, in one call of the encoder or of the index for all that wait."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders import DecodeLimits
from encoders.errors import ImageError
from encoders.images import open_image, pixels_for
from storage.errors import TwinlensError
from storage.schema import Collection, Direction, direction_of

from ..hits import Hits
from ..query import QueryPart, ResolvedQuery
from ..query_encoder import unit_rows
from ..relevance_map import map_of, windows
from ..request import SearchRequest
from .encoding import Encoding
from .errors import RefusedError
from .image_cache import QueryImages, Thumbnails
from .lanes import Lane
from .live_index import LiveIndex
from .metrics import Metrics
from .settings import ServerSettings
from .snapshot import Snapshot
from .watching.access_log import note_search
from .watching.recall_monitor import RecallMonitor

T = TypeVar("T")
R = TypeVar("R")

Vector = NDArray[np.float32]
OnHits = Callable[[Snapshot, SearchRequest, ResolvedQuery, Hits], object]
_STATUS_OF_IMAGE = {
    "too_large": 413,
    "too_many_pixels": 413,
    "too_slow": 413,
    "not_an_image": 415,
    "unsupported_format": 415,
}
# Calls that are worked on at once, and threads for those that turn out slow. Thumbnails of indexed images go apart from
# query images, and filters, which may take seconds, apart from all others.
_LANES = {"filter": (2, 3), "image": (2, 4), "thumbnail": (2, 4), "look-up": (2, 4)}
_BATCHED = ("encode", "search")
# So many of the requests that may be under way may wait for one lane.
_WAITING_SHARE = 2


# So long after a batch its size still says how many callers are about; then the next one is taken for alone.
_MEMORY_SECONDS = 0.02


class Batcher(Generic[T, R]):
    """Collects the items that arrive while a call is running, and gives them to the next call together.

    One that comes alone is worked on at once. When the last batches held several, a batch waits up to `wait` seconds
    for as many to come again: callers that were answered together come back together, but not in the same instant.
    Belongs to one event loop.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R | BaseException]],
        pool: Executor,
        *,
        most: int,
        wait: float,
        on_batch: Callable[[int], object] = lambda size: None,
    ) -> None:
        """Set up a batcher.

        Args:
            work: From the items of a batch to one answer each, in order; an exception as answer is raised for its
                caller alone, one that is raised for all of them.
            pool: Where the work runs, one batch at a time.
            most: Items a batch at most.
            wait: Seconds to wait at most for the callers of the last batches.
            on_batch: Called with the size of each batch.
        """
        self._work = work
        self._pool = pool
        self._most = most
        self._wait = wait
        self._on_batch = on_batch
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._recent = (1, 1)
        self._ended = 0.0

    async def submit(self, item: T) -> R:
        """Return the answer to one item.

        Raises:
            BaseException: What `work` gave or raised for it.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        self._arrived.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                await self._answer(self._take())
        finally:
            self._task = None

    async def _gather(self) -> None:
        """Wait a little for as many as came lately."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._ended > _MEMORY_SECONDS:
            return
        expected = min(max(self._recent), self._most)
        deadline = loop.time() + self._wait
        while len(self._waiting) < expected and (left := deadline - loop.time()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        taken: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(taken) < self._most:
            item, answer = self._waiting.popleft()
            if not answer.done():  # its caller may have gone meanwhile
                taken.append((item, answer))
        return taken

    async def _answer(self, taken: list[tuple[T, asyncio.Future[R]]]) -> None:
        if not taken:
            return
        self._on_batch(len(taken))
        loop = asyncio.get_running_loop()
        results: Sequence[R | BaseException]
        try:
            results = await loop.run_in_executor(self._pool, self._work, [item for item, _ in taken])
        except Exception as error:  # noqa: BLE001 - it belongs to the callers, and is raised there
            results = [error] * len(taken)
        self._recent, self._ended = (self._recent[1], len(taken)), loop.time()
        for (_, answer), value in zip(taken, results, strict=True):
            _settle(answer, value)


def _settle(answer: asyncio.Future[R], value: R | BaseException) -> None:
    if answer.done():
        return
    if isinstance(value, BaseException):
        answer.set_exception(value)
    else:
        answer.set_result(value)


class Engine:
    """Answers requests on snapshots that the caller holds. Belongs to one event loop.

    Attributes:
        on_hits: Called with what was searched in this process, for what, and what was found.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._limits = DecodeLimits(max_bytes=settings.max_body, max_pixels=settings.max_pixels)
        self._metrics = metrics
        self.on_hits: OnHits = _nobody
        waiting = max(1, settings.concurrency // _WAITING_SHARE)
        self._lanes = {
            name: Lane(name, width=width, threads=threads, waiting=waiting, on_full=metrics.refused.labels("full").inc)
            for name, (width, threads) in _LANES.items()
        }
        # One thread each: a call uses all cores by itself.
        self._pools = {name: ThreadPoolExecutor(1, thread_name_prefix=f"twinlens-{name}") for name in _BATCHED}
        most, wait = settings.batch, settings.wait_ms / 1e3
        self._text_batches: Batcher[tuple[Snapshot, QueryPart], Vector] = Batcher(
            _encode_texts, self._pools["encode"], most=most, wait=wait, on_batch=self._counted("text")
        )
        self._image_batches: Batcher[tuple[Snapshot, NDArray[Any]], Vector] = Batcher(
            _encode_pixels, self._pools["encode"], most=most, wait=wait, on_batch=self._counted("image")
        )
        self._searches: Batcher[tuple[Snapshot, SearchRequest, ResolvedQuery], Hits] = Batcher(
            _search, self._pools["search"], most=most, wait=wait, on_batch=self._counted("search")
        )

    async def search(self, snapshot: Snapshot, request: SearchRequest) -> tuple[Direction, Hits]:
        """Return the direction that was searched, and the hits; an item is no hit of its own.

        Raises:
            TwinlensError: The request cannot be answered; the message says why.
        """
        query = await self.resolve_all(snapshot, request)
        hits = await self.hits(snapshot, request.ranked, query)
        return direction_of(query.modality or "text", hits.collection), hits

    async def resolve_all(self, snapshot: Snapshot, request: SearchRequest) -> ResolvedQuery:
        """Return the parts of a request as the one vector to search with.

        Raises:
            TwinlensError: A part cannot be used with this version, or they cancel one another.
        """
        if not request.is_composed:
            return await self.resolve(snapshot, request.part)
        queries = await asyncio.gather(*(self.resolve(snapshot, part) for part in request.parts))
        return await self.run("look-up", snapshot.searcher.composed, request, queries)

    async def resolve(self, snapshot: Snapshot, part: QueryPart) -> ResolvedQuery:
        """Return the vector to search with.

        Raises:
            TwinlensError: The text, image, item or vector cannot be used with this version.
        """
        if part.kind == "item":
            return await self.run("look-up", snapshot.item_query, part)
        if part.kind == "text":
            return ResolvedQuery(part, await self._text(snapshot, part), "text")
        if part.kind == "image":
            pixels = await self.run("image", _decode, snapshot, part.content, self._limits)
            return ResolvedQuery(part, await self._image_batches.submit((snapshot, pixels)), "image")
        if part.kind == "words":
            return ResolvedQuery(part, np.zeros(snapshot.dim, dtype=np.float32), None)
        return ResolvedQuery(part, unit_rows(part.content, snapshot.dim)[0], part.modality)

    async def hits(self, snapshot: Snapshot, request: SearchRequest, query: ResolvedQuery) -> Hits:
        """Return the hits of a query by the options of a request.

        Raises:
            TwinlensError: The filter or an option cannot be used with this version.
        """
        into = request.into or snapshot.collections[0]
        if request.where is not None:
            await self.prepare_filter(snapshot, into, request.where)
        if request.sort is not None and into in snapshot.collections:
            snapshot.check_sort(into, request.sort)
        note_search(snapshot, request, query)
        request = request.with_words_of(query.part)
        hits = await self.answer(snapshot, replace(request, parts=(), into=into), query)
        snapshot.remember(hits.collection, hits.item_ids.tolist(), hits.row_ids.tolist())
        return hits

    async def relevance_map(self, snapshot: Snapshot, image: Image.Image, query: Vector) -> Vector:
        """Return how near each part of an image is to a query (dim,), (8, 8).

        Raises:
            TwinlensError: This version has no encoder, or too many images wait already.
        """
        pixels = await self.run("thumbnail", _window_pixels, snapshot, image)
        vectors = await asyncio.gather(*(self._image_batches.submit((snapshot, one)) for one in pixels))
        return map_of(np.stack(vectors) @ query)

    async def run(self, lane: str, work: Callable[..., T], *arguments: Any) -> T:
        """Return what `work` gives in one of the engine's threads: `look-up`, `filter`, `image`, `thumbnail`.

        Raises:
            RefusedError: 503, too many calls of this kind wait already.
        """
        return await self._lanes[lane].run(work, *arguments)

    async def prepare(self, encoding: Encoding) -> None:
        """Load what text queries need; those that come meanwhile wait for it."""
        await asyncio.get_running_loop().run_in_executor(self._pools["encode"], encoding.prepare)

    def close(self) -> None:
        """Let the threads end; what waits for one is not begun."""
        for lane in self._lanes.values():
            lane.close()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    async def prepare_filter(self, snapshot: Snapshot, into: Collection, where: str) -> None:
        """Evaluate a filter that is new apart from the searches, which it would hold up."""
        if not snapshot.has_filter(into, where):
            await self.run("filter", snapshot.prepare_filter, into, where)

    async def answer(self, snapshot: Snapshot, request: SearchRequest, query: ResolvedQuery) -> Hits:
        """Rank, together with the searches that wait and are like this one."""
        hits = await self._searches.submit((snapshot, request, query))
        self.on_hits(snapshot, request, query, hits)
        return hits

    async def _text(self, snapshot: Snapshot, part: QueryPart) -> Vector:
        known = snapshot.encoding.query_encoder.known_text(part.content)
        if known is not None:
            self._metrics.known_texts.inc()
            return known
        return await self._text_batches.submit((snapshot, part))

    def _counted(self, stage: str) -> Callable[[int], object]:
        return self._metrics.batches.labels(stage).observe


def _nobody(snapshot: Snapshot, request: SearchRequest, query: ResolvedQuery, hits: Hits) -> None:
    """Nobody listens."""


def _decode(snapshot: Snapshot, data: bytes, limits: DecodeLimits) -> NDArray[Any]:
    encoder = snapshot.encoding.image_encoder()
    try:
        return pixels_for(encoder, open_image(encoder, data, limits).pixels)
    except ImageError as error:
        status = _STATUS_OF_IMAGE.get(error.reason, 400)
        raise RefusedError(status, f"the query image cannot be used: {error}") from error


def _window_pixels(snapshot: Snapshot, image: Image.Image) -> list[NDArray[Any]]:
    encoder = snapshot.encoding.image_encoder()
    return [pixels_for(encoder, window) for window in windows(image)]


def _encode_texts(batch: Sequence[tuple[Snapshot, QueryPart]]) -> list[Vector | BaseException]:
    def encode(group: Sequence[tuple[Snapshot, QueryPart]]) -> Vector:
        return group[0][0].encoding.texts([part for _, part in group])

    return _grouped(batch, lambda one: id(one[0].encoding), encode)


def _encode_pixels(batch: Sequence[tuple[Snapshot, NDArray[Any]]]) -> list[Vector | BaseException]:
    def encode(group: Sequence[tuple[Snapshot, NDArray[Any]]]) -> Vector:
        snapshot = group[0][0]
        return unit_rows(
            snapshot.encoding.image_encoder().encode_pixels(np.stack([pixels for _, pixels in group])), snapshot.dim
        )

    return _grouped(batch, lambda one: id(one[0].encoding), encode)


def _search(batch: Sequence[tuple[Snapshot, SearchRequest, ResolvedQuery]]) -> list[Hits | BaseException]:
    def key(one: tuple[Snapshot, SearchRequest, ResolvedQuery]) -> Hashable:
        snapshot, request, query = one
        return snapshot, query.modality, query.part.kind == "words", tuple(request.options.values())

    def search(group: Sequence[tuple[Snapshot, SearchRequest, ResolvedQuery]]) -> list[Hits]:
        snapshot, request, _ = group[0]
        return snapshot.searcher.answer(request, [query for _, _, query in group])

    return _grouped(batch, key, search)


def _grouped(
    batch: Sequence[T], key: Callable[[T], Hashable], work: Callable[[list[T]], Iterable[Any]]
) -> list[Any | BaseException]:
    """Return one answer a request from one call of `work` a group; what fails in a group fails for it alone."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for position, one in enumerate(batch):
        groups[key(one)].append(position)
    results: list[Any | BaseException] = [None] * len(batch)
    for positions in groups.values():
        try:
            answers: list[Any | BaseException] = list(work([batch[position] for position in positions]))
        except (TwinlensError, MemoryError) as error:
            answers = [error] * len(positions)
        for position, answer in zip(positions, answers, strict=True):
            results[position] = answer
    return results


class Service:
    """One server's parts.

    Attributes:
        live: The index.
        settings: The limits.
        metrics: The counters.
        engine: Answers requests.
        recall: Compares some searches with the exact search.
        thumbnails: Of indexed images.
        query_images: What the page was asked with lately.
    """

    def __init__(
        self, live: LiveIndex, settings: ServerSettings, engine: Callable[[ServerSettings, Metrics], Engine] = Engine
    ) -> None:
        self.live = live
        self.settings = settings
        self.metrics = Metrics()
        self.engine = engine(settings, self.metrics)
        self.thumbnails = Thumbnails(DecodeLimits())
        self.query_images = QueryImages()
        live.add_listener(self.metrics)
        self.recall = RecallMonitor(live, self.metrics, settings.measure_every)
        self.engine.on_hits = self.recall.offer

    def hide(self, message: str) -> str:
        """Return a message without paths of this machine."""
        for path in self.live.secret_paths:
            message = message.replace(path, "...")
        return message

    def close(self) -> None:
        """Close the index and end the threads."""
        self.engine.close()
        self.recall.close()
        self.live.close()
