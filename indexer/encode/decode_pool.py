"""Reading and decoding images ahead of the encoder and in order, in threads; for a GPU processes decode for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders import DecodeLimits, Encoder, ImageError, decode_image
from encoders.decoding.processes import DecodeProcesses, processes_pay
from encoders.decoding.shared_pixels import Slot
from encoders.formats.films import film_of
from encoders.images import open_image, pixels_for
from storage.schema import ImageInfo

from ..config import BuildConfig
from ..corpus.item import Item, LazyBytes, Rejection
from ..corpus.remote.fetch import FETCHES, WebImage
from ..errors import BuildError, ContentError
from ..progress import Progress
from .build_encoder import has_backends, loaded
from .known_items import KnownItem
from .reuse import Reuse
from .shards import Entry, Shard, file_state

if TYPE_CHECKING:
    from encoders.device_jpegs import DeviceJpegs


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is ready: what is known of it, and either pixels for the encoder or a vector known already.

    `slot` is where the pixels lie that a process has decoded, to be released once they are encoded.
    """

    info: ImageInfo
    pixels: np.ndarray | None = None
    vector: np.ndarray | None = None
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a shard on its way to the encoder; `image` is there for image items."""

    shard: Shard
    entry: Entry
    image: Future[Prepared | Rejection] | None


@dataclass(frozen=True, kw_only=True)
class ImageReader:
    """Turns image items into pixels, and whatever cannot be one into a `Rejection`; in this process without others."""

    encoder: Encoder
    reuse: Reuse
    limits: DecodeLimits
    processes: DecodeProcesses | None = None
    jpegs: DeviceJpegs | None = None

    def slot(self, item: Item) -> Slot | None:
        """Return room for an image that a process is to decode; None where it is decoded in this one.

        Images are while the processes are started, and frames of films, which processes of their own read already.
        """
        if (
            self.processes is None
            or not self.processes.is_ready
            or (isinstance(item.content, Path) and film_of(item.content.name))
        ):
            return None
        return self.processes.pixels.take()

    def fetch(self, item: Item) -> bytes | Rejection:
        """Fetch one image from the web; one that is known already is not fetched."""
        if self.reuse.unchanged(item) is not None:
            return b""
        try:
            return item.content.read(self.limits.max_bytes) if isinstance(item.content, LazyBytes) else b""
        except ContentError as error:
            return item.rejected("read", error.reason, error.detail)

    def prepare(
        self, item: Item, fetched: Future[bytes | Rejection] | None = None, slot: Slot | None = None
    ) -> Prepared | Rejection:
        """Read, check, decode and preprocess one image; an item that has not changed is not read at all.

        Args:
            item: The image.
            fetched: Its bytes, where they come from the web.
            slot: Where a process is to write its pixels; None decodes it here.
        """
        content = fetched.result() if fetched is not None else None
        prepared = content if isinstance(content, Rejection) else self._prepared(item, content, slot)
        if slot is not None and getattr(prepared, "slot", None) is None:
            slot.release()
        return prepared

    def _prepared(self, item: Item, content: bytes | None, slot: Slot | None) -> Prepared | Rejection:
        known = self.reuse.unchanged(item) or self.reuse.by_content(item, self.limits, content)
        if known is not None and _within(item, known.info, self.limits):
            return self._known(self._completed(item, known))
        try:
            source = self._read(item) if content is None else content
            there = self.jpegs.read(source, self.limits) if self.jpegs is not None else None
            read, opened = self._opened(source, slot) if there is None else (there.info, there.pixels)
        except (ImageError, ContentError) as error:
            return item.rejected("decode" if isinstance(error, ImageError) else "read", error.reason, error.detail)
        file_bytes, mtime_ns = _state(item) or (read.file_bytes, None)
        info = replace(read, file_bytes=file_bytes, mtime_ns=mtime_ns)
        known = self.reuse.same_bytes(item, info.sha256)
        if known is not None:
            return Prepared(info, vector=self.reuse.vector("images", known.row_id))
        if slot is not None:
            return Prepared(info, pixels=slot.pixels, slot=slot)
        return Prepared(info, pixels=opened if there is not None else pixels_for(self.encoder, opened))

    def _opened(self, source: Path | bytes, slot: Slot | None) -> tuple[ImageInfo, Any]:
        """Return what is known of an image, and the image itself where it is not in its slot already."""
        if slot is not None and self.processes is not None:
            return self.processes.decode(source, slot), None
        image = open_image(self.encoder, source, self.limits)
        return image.info, image.pixels

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
        fetched = self.fetches.submit(self.reader.fetch, item) if isinstance(item.content, WebImage) else None
        # In the order of the items, so that the slots of a batch lie one after the other.
        return self.pool.submit(self.reader.prepare, item, fetched, self.reader.slot(item))


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


# Beside those that are read ahead: a batch that is put together and one that waits, and two that each GPU computes.
_BATCHES_HELD, _BATCHES_A_GPU = 2, 2


def decode_processes(encoder: Encoder, config: BuildConfig, images: int, window: int) -> DecodeProcesses | None:
    """Return the processes that decode the images of a build once they run; None where its threads do.

    Args:
        encoder: Of the build.
        config: Says whether there is a choice. `auto` takes processes for an encoder on a GPU, which encodes more
            images than the threads of one process can decode, from four threads and 10,000 images on; not in an update
            whose encoder is loaded when it is first needed, as it may encode few.
        images: How many there are.
        window: How many are read ahead.

    Raises:
        BuildError: Processes are asked for, and the encoder opens images in its own way.
    """
    pays = encoder.device != "cpu" and processes_pay(config.workers, images)
    if config.decode_in in ("threads", "gpu") or (config.decode_in == "auto" and not pays):
        return None
    if config.decode_in == "processes":
        encoder = loaded(encoder)
    preprocessing = getattr(encoder, "preprocess_config", None)
    if preprocessing is None and config.decode_in == "auto":
        return None
    if preprocessing is None:
        raise BuildError(
            f"encoder {encoder.spec!r} opens images in its own way, which processes do not know; leave --decode-in out"
        )
    batches = _BATCHES_HELD + _BATCHES_A_GPU * config.gpus
    slots = window + batches * (config.batch_size or encoder.batch_size)
    return DecodeProcesses(preprocessing, config.limits, processes=config.workers, slots=slots)


def device_jpegs(encoder: Encoder, config: BuildConfig, progress: Progress) -> DeviceJpegs | None:
    """Return what decodes JPEG files on the GPU of an encoder, where that was asked for and passes its gate.

    Args:
        encoder: Of the build; it is loaded.
        config: Says whether it was asked for.
        progress: Told where threads decode all the same.

    Raises:
        BuildError: The encoder is not on a GPU, or opens images in its own way.
        EncoderError: The decoder is not installed.
    """
    if config.decode_in != "gpu":
        return None
    encoder = loaded(encoder)
    if encoder.device == "cpu" or not has_backends(encoder):
        what = "is on the CPU" if encoder.device == "cpu" else "opens images in its own way"
        raise BuildError(f"--decode-in gpu: encoder {encoder.spec!r} {what}; leave --decode-in out")
    from encoders.cpu_backends import GATE
    from encoders.device_jpegs import DeviceJpegs, lowest_cosine

    jpegs = DeviceJpegs(encoder.preprocess_config, encoder.device)
    try:
        cosine = lowest_cosine(jpegs, encoder)
    except BaseException:
        jpegs.close()
        raise
    if cosine >= GATE:
        return jpegs
    jpegs.close()
    why = f"{cosine:.4f} is below {GATE}" if cosine else "it decodes none of the golden photographs"
    progress.note(f"images are decoded in threads, not on {encoder.device}: cosine to the usual decoder: {why}")
    return None
