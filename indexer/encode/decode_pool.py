"""Reading and decoding images ahead of the encoder, in threads and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from encoders import DecodeLimits, Encoder, ImageError, decode_image
from encoders.formats.films import film_of
from encoders.images import open_image, pixels_for
from storage.schema import ImageInfo

from ..corpus.item import Item, LazyBytes, Rejection
from ..corpus.remote.fetch import FETCHES, WebImage
from ..errors import ContentError
from .known_items import KnownItem
from .reuse import Reuse
from .shards import Entry, Shard, file_state


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is ready: what is known of it, and either pixels for the encoder or a vector known already."""

    info: ImageInfo
    pixels: np.ndarray | None = None
    vector: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a shard on its way to the encoder; `image` is there for image items."""

    shard: Shard
    entry: Entry
    image: Future[Prepared | Rejection] | None


@dataclass(frozen=True, kw_only=True)
class ImageReader:
    """Turns image items into pixels, and whatever cannot be one into a `Rejection`."""

    encoder: Encoder
    reuse: Reuse
    limits: DecodeLimits

    def fetch(self, item: Item) -> bytes | Rejection:
        """Fetch one image from the web; one that is known already is not fetched."""
        if self.reuse.unchanged(item) is not None:
            return b""
        try:
            return item.content.read(self.limits.max_bytes) if isinstance(item.content, LazyBytes) else b""
        except ContentError as error:
            return item.rejected("read", error.reason, error.detail)

    def prepare(self, item: Item, fetched: Future[bytes | Rejection] | None = None) -> Prepared | Rejection:
        """Read, check, decode and preprocess one image; an item that has not changed is not read at all."""
        content = fetched.result() if fetched is not None else None
        if isinstance(content, Rejection):
            return content
        known = self.reuse.unchanged(item) or self.reuse.by_content(item, self.limits, content)
        if known is not None and _within(item, known.info, self.limits):
            return self._known(self._completed(item, known))
        try:
            image = open_image(self.encoder, self._read(item) if content is None else content, self.limits)
        except (ImageError, ContentError) as error:
            return item.rejected("decode" if isinstance(error, ImageError) else "read", error.reason, error.detail)
        file_bytes, mtime_ns = _state(item) or (image.info.file_bytes, None)
        info = replace(image.info, file_bytes=file_bytes, mtime_ns=mtime_ns)
        known = self.reuse.same_bytes(item, info.sha256)
        if known is not None:
            return Prepared(info, vector=self.reuse.vector("images", known.row_id))
        return Prepared(info, pixels=pixels_for(self.encoder, image.pixels))

    def _read(self, item: Item) -> Path | bytes:
        if isinstance(item.content, LazyBytes):
            return item.content.read(self.limits.max_bytes)
        return item.content if isinstance(item.content, bytes | Path) else Path(item.content)

    def _completed(self, item: Item, known: KnownItem) -> KnownItem:
        """Read an image again for what an older version did not keep of it; one of the web is not fetched for that."""
        if not known.missing or isinstance(item.content, WebImage):
            return known
        try:
            read = decode_image(self._read(item), self.limits).info
        except (ImageError, ContentError):
            return known  # what is known of it stays
        if read.sha256 != known.info.sha256:
            return known
        return replace(known, info=replace(known.info, **{name: getattr(read, name) for name in known.missing}))

    def _known(self, known: KnownItem) -> Prepared:
        return Prepared(known.info, vector=self.reuse.vector("images", known.row_id))


def _within(item: Item, info: ImageInfo, limits: DecodeLimits) -> bool:
    """Whether an image that is known keeps limits that may be narrower than they were; no film is read whole."""
    pixels, content = (info.width or 0) * (info.height or 0), item.content
    file_bytes = 0 if isinstance(content, Path) and film_of(content.name) else info.file_bytes or 0
    return pixels <= limits.max_pixels and file_bytes <= limits.max_bytes


def _state(item: Item) -> tuple[int | None, int | None] | None:
    if isinstance(item.content, LazyBytes):
        return item.content.state
    return None if isinstance(item.content, bytes) else file_state(Path(item.content)) or (None, None)


def read_ahead(shards: Iterable[Shard], reader: ImageReader, pool: ThreadPoolExecutor, window: int) -> Iterator[Step]:
    """Yield every entry in order while at most `window` images, of this shard or the next ones, are under way.

    Images of the web wait for their servers in threads of their own, which start with the first of them.
    """
    fetches = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
    try:
        yield from _read_ahead(shards, window, _Starter(reader, pool, fetches))
    finally:
        # Whatever ended the loop: do not fetch what nobody will use.
        fetches.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Starter:
    """Puts an image on its way."""

    reader: ImageReader
    pool: ThreadPoolExecutor
    fetches: ThreadPoolExecutor

    def start(self, item: Item) -> Future[Prepared | Rejection]:
        if not isinstance(item.content, WebImage):
            return self.pool.submit(self.reader.prepare, item)
        return self.pool.submit(self.reader.prepare, item, self.fetches.submit(self.reader.fetch, item))


def _read_ahead(shards: Iterable[Shard], window: int, starter: _Starter) -> Iterator[Step]:
    held: deque[Step] = deque()
    images = 0
    for shard in shards:
        for entry in shard.entries:
            image = starter.start(entry) if isinstance(entry, Item) and entry.collection == "images" else None
            held.append(Step(shard, entry, image))
            images += image is not None
            while images > window:
                step = held.popleft()
                images -= step.image is not None
                yield step
    yield from held
