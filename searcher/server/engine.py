"""From a question to hits: concurrent ones share the encoder's calls and the index's."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from encoders import DecodeLimits
from encoders.errors import ImageError
from encoders.images import open_image, pixels_for
from storage.errors import TwinlensError
from storage.schema import TARGETS, Collection, Direction

from ..errors import QueryError
from ..hits import Hits
from ..request import Query, understand, unit_rows
from .batcher import Batcher
from .errors import RefusedError
from .image_cache import Pictures, QueryPictures
from .live_index import Generation, LiveIndex
from .metrics import Metrics
from .requests import Question
from .settings import ServerSettings

T = TypeVar("T")

Vector = NDArray[np.float32]
_KEPT_TEXTS = 8_192
_STATUS_OF_PICTURE = {"too_large": 413, "too_many_pixels": 413, "not_an_image": 415, "unsupported_format": 415}


@dataclass(frozen=True, kw_only=True)
class Seed:
    """What a search starts from.

    Attributes:
        vector: (dim,), unit length.
        modality: What it stands for; None for a ready vector, which may be either.
        origin: Collection and row of the item that it is; None for one from outside.
    """

    vector: Vector
    modality: Literal["text", "image"] | None
    origin: tuple[Collection, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a search is made; those with equal plans on one version go together."""

    direction: Direction
    k: int
    where: str | None = None
    ann_recall: float | None = None


class Engine:
    """Answers questions on borrowed versions. Belongs to one event loop."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._limits = DecodeLimits(max_bytes=settings.max_body, max_pixels=settings.max_pixels)
        self._metrics = metrics
        self._texts: OrderedDict[Hashable, Vector] = OrderedDict()
        # One thread where a call uses all cores by itself; filters, which may take seconds, apart from all others.
        self._pools = {name: _pool(name, size) for name, size in _POOLS.items()}
        most, wait = settings.batch, settings.wait_ms / 1e3
        self._text_batches: Batcher[tuple[Generation, Query], Vector] = Batcher(
            _encode_texts, self._pools["encode"], most=most, wait=wait, seen=self._counted("text")
        )
        self._image_batches: Batcher[tuple[Generation, NDArray[Any]], Vector] = Batcher(
            _encode_pixels, self._pools["encode"], most=most, wait=wait, seen=self._counted("image")
        )
        self._searches: Batcher[tuple[Generation, Vector, Plan], Hits] = Batcher(
            _search, self._pools["search"], most=most, wait=wait, seen=self._counted("search")
        )

    async def search(self, generation: Generation, question: Question) -> tuple[Direction, Hits]:
        """Return the direction that was searched, and the hits; an item is no hit of its own.

        Raises:
            TwinlensError: The question cannot be answered as it was asked.
        """
        seed = await self.seed(generation, question)
        direction = _direction(generation, seed, question.direction)
        plan = Plan(direction=direction, k=question.k, where=question.where, ann_recall=question.ann_recall)
        return direction, await self.hits(generation, seed, plan)

    async def seed(self, generation: Generation, question: Question) -> Seed:
        """Return the vector to search with.

        Raises:
            TwinlensError: The text, picture, item or vector cannot be used with this version.
        """
        if question.text is not None:
            return Seed(vector=await self._text(generation, question.text), modality="text")
        if question.picture is not None:
            return Seed(vector=await self._picture(generation, question.picture), modality="image")
        if question.item is not None:
            return await self.run("look-up", _item_seed, generation, question.item, question.collection)
        return Seed(vector=unit_rows(np.array(question.vector, dtype=np.float64), generation.dim)[0], modality=None)

    async def hits(self, generation: Generation, seed: Seed, plan: Plan) -> Hits:
        """Return what a search finds.

        Raises:
            TwinlensError: The filter or an option cannot be used with this version.
        """
        own = seed.origin if seed.origin and seed.origin[0] == TARGETS[plan.direction] else None
        asked = replace(plan, k=plan.k + 1) if own else plan
        into = TARGETS[plan.direction]
        if plan.where is not None and not generation.knows_filter(into, plan.where):
            await self.run("filter", generation.prepare_filter, into, plan.where)
        found = await self._searches.ask((generation, seed.vector, asked))
        generation.remember(found.collection, found.item_ids.tolist(), found.row_ids.tolist())
        return _without(found, own[1], plan.k) if own else found

    async def run(self, pool: str, work: Callable[..., T], *arguments: Any) -> T:
        """Return what `work` gives in one of the engine's threads: `look-up`, `filter`, `picture`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools[pool], partial(work, *arguments))

    def close(self) -> None:
        """Let the threads go; what waits for one is not begun."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    async def _text(self, generation: Generation, text: str) -> Vector:
        query = understand(text, "text")
        key = (generation.text_key, text)
        known = self._texts.get(key)
        if known is not None:
            self._texts.move_to_end(key)
            self._metrics.known_texts.inc()
            return known
        vector = await self._text_batches.ask((generation, query))
        self._texts[key] = vector
        if len(self._texts) > _KEPT_TEXTS:
            self._texts.popitem(last=False)
        return vector

    async def _picture(self, generation: Generation, data: bytes) -> Vector:
        pixels = await self.run("picture", _decode, generation, data, self._limits)
        return await self._image_batches.ask((generation, pixels))

    def _counted(self, stage: str) -> Callable[[int], object]:
        return self._metrics.batches.labels(stage).observe


_POOLS = {"encode": 1, "search": 1, "filter": 2, "picture": 2, "look-up": 2}


def _pool(name: str, size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix=f"twinlens-{name}")


def _direction(generation: Generation, seed: Seed, wanted: Direction | None) -> Direction:
    """Return the direction asked for, or the usual one: into images where there are any."""
    if wanted is not None:
        if seed.modality and not wanted.startswith(seed.modality):
            fitting = " or ".join(name for name in TARGETS if name.startswith(seed.modality))
            raise RefusedError(400, f"direction={wanted!r} does not start from {_a(seed.modality)}; give {fitting}")
        return wanted
    # Of a vector nobody says what it stands for; text queries need the most probing, so that holds for images too.
    into = generation.collections[0].removesuffix("s")
    return cast("Direction", f"{seed.modality or 'text'}_to_{into}")


def _a(modality: str) -> str:
    return "a text" if modality == "text" else "an image"


def _item_seed(generation: Generation, item_id: str, collection: Collection | None) -> Seed:
    found, row = generation.find(item_id, collection)
    vector = unit_rows(generation.vector(found, row), generation.dim)[0]
    return Seed(vector=vector, modality="image" if found == "images" else "text", origin=(found, row))


def _decode(generation: Generation, data: bytes, limits: DecodeLimits) -> NDArray[Any]:
    if generation.encoder is None:
        raise QueryError(
            f"the index {generation.place} was built from ready-made vectors and this server has no encoder for it; "
            "search by item or by vector, or start the server with --encoder"
        )
    try:
        return pixels_for(generation.encoder, open_image(generation.encoder, data, limits).pixels)
    except ImageError as error:
        status = _STATUS_OF_PICTURE.get(error.reason, 400)
        raise RefusedError(status, f"the query picture cannot be used: {error}") from error


def _encode_texts(asked: Sequence[tuple[Generation, Query]]) -> list[Vector | BaseException]:
    return _grouped(asked, lambda one: one[0], lambda group: group[0][0].embedder.embed([query for _, query in group]))


def _encode_pixels(asked: Sequence[tuple[Generation, NDArray[Any]]]) -> list[Vector | BaseException]:
    def encode(group: Sequence[tuple[Generation, NDArray[Any]]]) -> Vector:
        generation = group[0][0]
        encoder: Any = generation.encoder  # there is one, or nothing could have been decoded for it
        return unit_rows(encoder.encode_pixels(np.stack([pixels for _, pixels in group])), generation.dim)

    return _grouped(asked, lambda one: id(one[0].encoder), encode)


def _search(asked: Sequence[tuple[Generation, Vector, Plan]]) -> list[Hits | BaseException]:
    def search(group: Sequence[tuple[Generation, Vector, Plan]]) -> list[Hits]:
        generation, _, plan = group[0]
        ask = getattr(generation.searcher, plan.direction)
        vectors = np.stack([vector for _, vector, _ in group])
        found: list[Hits] = ask(vectors, plan.k, where=plan.where, ann_recall=plan.ann_recall)
        return found

    return _grouped(asked, lambda one: (one[0], one[2]), search)


def _grouped(
    asked: Sequence[T], key: Callable[[T], Hashable], work: Callable[[list[T]], Iterable[Any]]
) -> list[Any | BaseException]:
    """Return one answer a question from one call of `work` a group; what fails in a group fails for it alone."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, one in enumerate(asked):
        groups[key(one)].append(place)
    found: list[Any | BaseException] = [None] * len(asked)
    for places in groups.values():
        try:
            answers: list[Any | BaseException] = list(work([asked[place] for place in places]))
        except (TwinlensError, MemoryError) as error:
            answers = [error] * len(places)
        for place, answer in zip(places, answers, strict=True):
            found[place] = answer
    return found


def _without(hits: Hits, row: int, k: int) -> Hits:
    """Return the first `k` hits that are not the row, ranked anew."""
    kept = np.flatnonzero(hits.row_ids != row)[:k]
    ranked = tuple(replace(hits.hits[place], rank=rank) for rank, place in enumerate(kept.tolist(), start=1))
    return replace(hits, row_ids=hits.row_ids[kept], scores=hits.scores[kept], hits=ranked)


class Service:
    """One server's parts.

    Attributes:
        live: The index.
        settings: The limits.
        metrics: The counters.
        engine: Answers questions.
        pictures: Thumbnails.
        remembered: Query pictures.
    """

    def __init__(self, live: LiveIndex, settings: ServerSettings) -> None:
        self.live = live
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(settings, self.metrics)
        self.pictures = Pictures(DecodeLimits())
        self.remembered = QueryPictures()
        live.tell(self.metrics)

    def hide(self, message: str) -> str:
        """Return a message without places on this machine."""
        for place in self.live.secrets:
            message = message.replace(place, "...")
        return message

    def close(self) -> None:
        """Let go of everything."""
        self.engine.close()
        self.live.close()
