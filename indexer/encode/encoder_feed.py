"""Batches of images and texts on their way through the encoder, and shards that are finished once theirs are back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from encoders.decoding.shared_pixels import joined

from .decode_pool import Prepared
from .several_devices import EncoderTeam
from .shards import ShardTable

# Encoders sort texts by length within a call, so that little is padded; more texts a call gain nothing.
TEXT_BLOCK = 1024
# On a CPU: one that is computed and one that waits, so that the encoder never does.
_BATCHES_UNDER_WAY = 2


@dataclass(frozen=True, slots=True)
class OpenShard:
    """A shard that some rows or vectors are still missing from."""

    number: int
    table: ShardTable


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one shard, and the vectors that will be theirs."""

    shard: OpenShard
    positions: list[int]
    vectors: Future[np.ndarray]
    images: int = 0
    texts: int = 0


class Listener(Protocol):
    """Hears what the foreground waits for."""

    def waiting(self, images: int, texts: int) -> AbstractContextManager[None]:
        """Return what stands around the wait for a batch of so many images or texts."""


@dataclass(frozen=True, kw_only=True)
class EncoderFeed:
    """Puts batches through the encoder in the order in which they come, texts and images of several shards alike.

    The next shard is begun while the last batches of this one are under way, so that the encoder does not wait between
    them. A shard is finished in its turn, once all of its batches are back.

    Attributes:
        team: Who encodes.
        encode_texts: The team's, behind the prompt.
        threads: Feed them, as many as the team says.
        listener: Hears of each batch.
        finished: Is given each shard that is whole, in order, in the thread that hands batches over.
    """

    team: EncoderTeam
    encode_texts: Callable[[list[str]], np.ndarray]
    threads: ThreadPoolExecutor
    listener: Listener
    finished: Callable[[OpenShard], None]
    _under_way: deque[_Batch | OpenShard] = field(default_factory=deque)

    def images(self, shard: OpenShard, images: Sequence[tuple[int, Prepared]]) -> None:
        """Hand over a batch of positions and images, not to be changed any more; waits while enough are under way."""
        if images:
            positions, prepared = [position for position, _ in images], [image for _, image in images]
            vectors = self.threads.submit(self._encoded, prepared)
            self._start(_Batch(shard, positions, vectors, images=len(images)))

    def texts(self, shard: OpenShard, texts: Sequence[tuple[int, str]]) -> None:
        """Hand over a batch of positions and texts likewise; on a CPU they are encoded before this returns."""
        if not texts:
            return
        positions, words = [position for position, _ in texts], [text for _, text in texts]
        if not self.team.on_cpu_alone:
            self._start(_Batch(shard, positions, self.threads.submit(self.encode_texts, words), texts=len(texts)))
            return
        # Beside the images that are under way, whose thread keeps the cores busy while this one tokenises.
        with self.listener.waiting(0, len(texts)):
            shard.table.set_vectors(positions, self.encode_texts(words))

    def end(self, shard: OpenShard) -> None:
        """Say that nothing more of a shard will come."""
        self._under_way.append(shard)
        self._take_down_to(self._most)

    def finish(self) -> None:
        """Wait for all batches."""
        self._take_down_to(0)

    def _start(self, batch: _Batch) -> None:
        self._under_way.append(batch)
        self._take_down_to(self._most)

    @property
    def _most(self) -> int:
        return max(_BATCHES_UNDER_WAY, self.team.threads)

    def _take_down_to(self, count: int) -> None:
        batches = sum(isinstance(one, _Batch) for one in self._under_way)
        while self._under_way and (batches > count or isinstance(self._under_way[0], OpenShard)):
            taken = self._under_way.popleft()
            if isinstance(taken, OpenShard):
                self.finished(taken)
                continue
            with self.listener.waiting(taken.images, taken.texts):
                taken.shard.table.set_vectors(taken.positions, taken.vectors.result())
            batches -= 1

    def _encoded(self, images: list[Prepared]) -> np.ndarray:
        slots = [image.slot for image in images]
        pixels = joined([image.pixels for image in images if image.pixels is not None], slots)
        vectors = self.team.encode_pixels(pixels)
        for slot in slots:
            if slot is not None:
                slot.release()
        return vectors


class ShardStore(Protocol):
    """Where finished shards go, by number; as a rule `storage.staging.Staging`."""

    def has(self, shard: int) -> bool:
        """Whether a shard is there, whole."""

    def read(self, shard: int) -> pa.Table:
        """Return a shard that is there."""

    def write(self, shard: int, table: pa.Table) -> None:
        """Keep a shard, durably."""


class ShardWriter:
    """Writes shards in a thread, one after the other, behind what goes on in the foreground."""

    def __init__(self, staging: ShardStore, thread: ThreadPoolExecutor) -> None:
        self._staging, self._thread = staging, thread
        self._written: Future[None] | None = None

    def write(self, number: int, table: pa.Table) -> None:
        """Have a shard written; waits for the one before, and raises what went wrong with it."""
        self.wait()
        self._written = self._thread.submit(self._staging.write, number, table)

    def wait(self) -> None:
        """Wait until what was given is durable."""
        if self._written is not None:
            self._written.result()
