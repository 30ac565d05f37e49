"""Reading and decoding images ahead of the encoder, in threads and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders import DecodeLimits, Encoder, ImageError
from encoders.opening import open_image, pixels_for

from .plan import Entry, Shard, file_state
from .rejection import Rejection
from .reuse import KnownItem, Reuse
from .sources.item import Item


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is ready: its facts, and either pixels for the encoder or a vector known already."""

    facts: KnownItem
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

    def prepare(self, item: Item) -> Prepared | Rejection:
        """Read, check, decode and preprocess one image; an item that has not changed is not read at all."""
        known = self.reuse.unchanged(item)
        if known is not None:
            return self._known(known)
        content = item.content if isinstance(item.content, bytes | Path) else Path(item.content)
        try:
            image = open_image(self.encoder, content, self.limits)
        except ImageError as error:
            return Rejection(
                item_id=item.item_id, collection="images", uri=item.uri, stage="decode",
                reason=error.reason, detail=error.detail,
            )  # fmt: skip
        size, mtime = (file_state(content) or (None, None)) if isinstance(content, Path) else (image.file_bytes, None)
        facts = KnownItem(-1, item.uri, image.sha256, image.width, image.height, size, mtime)
        known = self.reuse.same_bytes(item, image.sha256)
        if known is not None:
            return Prepared(facts, vector=self.reuse.vector("images", known.row_id))
        return Prepared(facts, pixels=pixels_for(self.encoder, image.pixels))

    def _known(self, known: KnownItem) -> Prepared:
        return Prepared(known, vector=self.reuse.vector("images", known.row_id))


def read_ahead(shards: Iterable[Shard], reader: ImageReader, pool: ThreadPoolExecutor, window: int) -> Iterator[Step]:
    """Yield every entry in order while at most `window` images, of this shard or the next ones, are under way."""
    held: deque[Step] = deque()
    images = 0
    for shard in shards:
        for entry in shard.entries:
            is_image = isinstance(entry, Item) and entry.collection == "images"
            held.append(Step(shard, entry, pool.submit(reader.prepare, entry) if is_image else None))  # type: ignore[arg-type]
            images += is_image
            while images > window:
                step = held.popleft()
                images -= step.image is not None
                yield step
    yield from held
