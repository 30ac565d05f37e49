"""Decoding for one call of many images: the next batch is decoded while one is encoded, of very many in processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..base import ImageLike
from ..formats.films import film_of
from .processes import DecodeProcesses
from .shared_pixels import Slot, joined

T = TypeVar("T")
R = TypeVar("R")

# Two that are held at once: one that is encoded and one that is decoded.
BATCHES_HELD = 2


def taken_ahead(batches: Iterable[Sequence[T]], submit: Callable[[T], Future[R]]) -> Generator[list[R], None, None]:
    """Yield the results of each batch in order; those of the next one are worked on meanwhile.

    What is closed before its end, or fails, first waits for what has begun and leaves out the rest.

    Args:
        batches: Of what there is to do.
        submit: Puts one thing on its way.

    Raises:
        Exception: The first that a thing of a batch raised, in their order.
    """
    held: deque[list[Future[R]]] = deque()
    try:
        for batch in batches:
            held.append([submit(one) for one in batch])
            if len(held) == BATCHES_HELD:
                yield [one.result() for one in held[0]]
                held.popleft()
        while held:
            yield [one.result() for one in held[0]]
            held.popleft()
    finally:
        left = [one for batch in held for one in batch]
        for one in left:
            one.cancel()
        wait(left)


@dataclass(frozen=True)
class DecodedBatch:
    """Images of a call, decoded.

    Attributes:
        pixels: (n, 3, H, W) uint8, in shared memory where the images lie there one after the other.
        slots: Where processes have written them; None for images that were decoded in this process.
    """

    pixels: np.ndarray
    slots: Sequence[Slot | None]

    def release(self) -> None:
        """Let the memory be used for other images; the pixels may not be read any more."""
        for slot in self.slots:
            if slot is not None:
                slot.release()


def decoded_batches(
    batches: Iterable[Sequence[ImageLike]],
    decode: Callable[[Any], np.ndarray],
    submit: Callable[..., Future[Any]],
    processes: DecodeProcesses | None = None,
) -> Generator[DecodedBatch, None, None]:
    """Yield batches of images decoded, in order, each to be released once it is encoded.

    Args:
        batches: Of images.
        decode: Returns the (3, H, W) bytes of one image, decoded in this process.
        submit: Has a thread call what it is given.
        processes: Decode images of files and of bytes once they have been started, with `BATCHES_HELD` batches of
            slots; this process decodes frames of films and images that are decoded already.

    Raises:
        ImageError: The first image that cannot be decoded.
    """

    def begin(image: ImageLike) -> Future[tuple[np.ndarray, Slot | None]]:
        # In the order of the images, so that the slots of a batch lie one after the other.
        slot = processes.pixels.take() if processes is not None and _is_for_process(image, processes) else None
        return submit(_decoded, image, decode, processes, slot)

    with closing(taken_ahead(batches, begin)) as decoded:
        for found in decoded:
            slots = [slot for _, slot in found]
            yield DecodedBatch(joined([pixels for pixels, _ in found], slots), slots)


def _is_for_process(image: ImageLike, processes: DecodeProcesses) -> bool:
    """Return whether a process may decode an image."""
    if isinstance(image, bytes):
        return processes.is_ready
    return processes.is_ready and isinstance(image, str | Path) and film_of(Path(image).name) is None


def _decoded(
    image: Any, decode: Callable[[Any], np.ndarray], processes: DecodeProcesses | None, slot: Slot | None
) -> tuple[np.ndarray, Slot | None]:
    if processes is None or slot is None:
        return decode(image), None
    processes.decode(image if isinstance(image, bytes) else Path(image), slot)
    return slot.pixels, slot
