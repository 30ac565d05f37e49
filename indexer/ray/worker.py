"""What runs on a node of a Ray cluster: one encoder, and the same encoding of a shard as everywhere. No Ray here."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from encoders import DecodeLimits, Encoder, load_encoder
from storage.schema import Collection

from ..config import BuildConfig
from ..corpus.item import Item
from ..encode.known_items import KnownItem
from ..encode.pipeline import RejectionLimit, ShardEncoder
from ..encode.reuse import NoReuse, Reuse
from ..encode.shards import Corpus, Entry, Shard, file_state, path_of
from ..progress import SilentProgress

# Reasons that may be those of the node, not of the corpus.
UNREAD = ("missing", "unreadable")

State = tuple[int, int] | None
Known = dict[tuple[str, str], tuple[KnownItem, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker needs for all its shards.

    Attributes:
        spec: Which encoder.
        given: The encoder itself, where the caller brought one.
        config: The settings of the build, for one worker.
        metadata: The corpus's metadata columns.
        folder: Where relative paths of the corpus start.
    """

    spec: str
    given: Encoder | None
    config: BuildConfig
    metadata: pa.Schema
    folder: str


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """What a worker is."""

    node: str
    fingerprint: str
    device: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class ShardOrder:
    """A shard to encode, how its files look to the driver, and the vectors that are known already."""

    shard: Shard
    sights: list[State]
    known: Known


@dataclass(frozen=True, kw_only=True)
class EncodedShard:
    """A finished shard; `unread` holds the positions of entries that could not be read."""

    table: pa.Table
    stages: dict[str, float]
    reused: int
    unread: list[int]


@dataclass(frozen=True, kw_only=True)
class Unlike:
    """A file of a shard, the entry at `position`, looks otherwise on this node: nothing was encoded."""

    node: str
    position: int
    seen: State


class Worker:
    """Encodes shards, one at a time, with an encoder that stays loaded. Becomes an actor of Ray."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._node = platform.node()

    def start(self) -> WorkerInfo:
        """Load the encoder and say what it is.

        Raises:
            EncoderError: It cannot be loaded on this node.
        """
        setup = self._setup
        # A worker is a process of its own. Where there is no such folder, relative paths are told as missing.
        with suppress(OSError):
            os.chdir(setup.folder)
        self._encoder = setup.given or load_encoder(setup.spec, setup.config.device, setup.config.precision)
        return WorkerInfo(
            node=self._node,
            fingerprint=self._encoder.fingerprint,
            device=self._encoder.device.partition(":")[0],
            precision=self._encoder.precision,
        )

    def encode(self, order: ShardOrder) -> EncodedShard | Unlike:
        """Return a shard encoded, or the first of its files that is not here what it is for the driver."""
        shard = order.shard
        for position, (seen, expected) in enumerate(zip(sights(shard.entries), order.sights, strict=True)):
            if seen != expected:
                return Unlike(node=self._node, position=position, seen=seen)
        held = Held()
        job = ShardEncoder(
            corpus=Corpus(digest="", images=0, texts=0, unreadable=0),
            encoder=self._encoder,
            staging=held,
            reuse=Taken(order.known) if order.known else NoReuse(),
            config=self._setup.config,
            metadata=self._setup.metadata,
            progress=SilentProgress(),
            rejected=RejectionLimit(config=self._setup.config, items=len(shard.entries)),
        )
        report = job.run([shard])
        table = held.tables[shard.number]
        reasons = table.column("reason").to_pylist()
        return EncodedShard(
            table=table,
            stages=report.stages,
            reused=report.reused,
            unread=[position for position, reason in enumerate(reasons) if reason in UNREAD],
        )


class Held:
    """Keeps shards in memory until they are sent."""

    def __init__(self) -> None:
        self.tables: dict[int, pa.Table] = {}

    def has(self, shard: int) -> bool:
        """Return whether a shard was written."""
        return shard in self.tables

    def read(self, shard: int) -> pa.Table:
        """Return a shard that was written."""
        return self.tables[shard]

    def write(self, shard: int, table: pa.Table) -> None:
        """Keep a shard."""
        self.tables[shard] = table


class Taken:
    """The items of one shard that have not changed since the version that is updated, as the driver found."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._vectors = {(key[0], item.row_id): vector for key, (item, vector) in known.items()}

    def unchanged(self, item: Item) -> KnownItem | None:
        """Return what the driver found."""
        taken = self._known.get((item.collection, item.item_id))
        return taken[0] if taken else None

    def same_bytes(self, item: Item, sha256: str) -> KnownItem | None:
        """Return None: the driver has looked."""
        return None

    def by_content(self, item: Item, limits: DecodeLimits, content: bytes | None = None) -> KnownItem | None:
        """Return None: the driver has looked."""
        return None

    def vector(self, collection: Collection, row_id: int) -> np.ndarray:
        """Return the vector that came along."""
        return self._vectors[collection, row_id]


def known_of(reuse: Reuse, entries: Sequence[Entry], limits: DecodeLimits) -> Known:
    """Return what can be taken over of a shard, with its vectors; called where the version is open.

    Files that are new or look changed are read here if a known image has as many bytes.
    """
    if isinstance(reuse, NoReuse):
        return {}
    items = [entry for entry in entries if isinstance(entry, Item)]
    known = [(item, reuse.unchanged(item) or reuse.by_content(item, limits)) for item in items]
    return {
        (item.collection, item.item_id): (entry, reuse.vector(item.collection, entry.row_id))
        for item, entry in known
        if entry is not None
    }


def sights(entries: Sequence[Entry]) -> list[State]:
    """Return bytes and modification time of the file behind each entry, None without one, as this machine sees it."""
    seen: dict[Path, State] = {}
    states: list[State] = []
    for entry in entries:
        path = path_of(entry)
        if path is not None and path not in seen:
            seen[path] = file_state(path)
        states.append(None if path is None else seen[path])
    return states
