"""Encoding shards: images are read ahead in threads, one thread feeds the encoder, another writes behind it.

A shard's last batches are computed while the next shard's first ones are put together.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders import Encoder
from encoders.base import backend_of
from encoders.decoding.processes import DecodeProcesses

from ..config import BuildConfig, with_prompt
from ..corpus.item import Item, Rejection, shown
from ..errors import BuildError, RejectedError
from ..progress import Progress
from .decode_pool import ImageReader, Prepared, Step, decode_processes, device_jpegs, read_ahead
from .encoder_feed import TEXT_BLOCK, EncoderFeed, OpenShard, ShardStore, ShardWriter
from .reuse import Reuse
from .several_devices import EncoderTeam, team_of
from .shards import IMAGE_COST, TEXT_COST, Corpus, Shard, ShardTable, is_of

WAITING, IMAGES, TEXTS, WRITING = "reading and decoding images", "encoding images", "encoding texts", "writing"
"""What the thread in the foreground waits for."""

# What a text takes of an image, with any model. The first batches, of which some are computed behind others, say less.
LEAST_SHARE, MOST_SHARE = 1 / 32, 1 / 2


@dataclass(kw_only=True)
class EncodeProgress:
    """Counts what is done, and tells a `Progress`.

    A text takes a fraction of what an image takes, and a shard's texts come after its images: a rate over both would be
    wrong by turns. So the rest is reckoned in images, each text as the share of one that it was measured to take.

    Attributes:
        progress: Whom to tell.
        corpus: What there is in all.
        stages: Seconds that the foreground has waited for each stage; kept up to date by others.
        images: Images done, however that came.
        texts: Texts done.
    """

    progress: Progress
    corpus: Corpus
    stages: Mapping[str, float]
    images: int = 0
    texts: int = 0
    _resumed: tuple[int, int] = (0, 0)
    _began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Begin the stage; what is done before does not count for its rate."""
        self._began = time.monotonic()
        self.progress.stage("encode", self.corpus.items)

    def add(self, *, images: int = 0, texts: int = 0, unreadable: int = 0, hint: str = "") -> None:
        """Add items that are done, in a few words why it takes as long as it does."""
        self.images += images
        self.texts += texts
        counts = ((self.images, self.corpus.images, "images"), (self.texts, self.corpus.texts, "texts"))
        said = [f"{min(done, total):,} of {total:,} {name}" for done, total, name in counts if total]
        said = said if len(said) > 1 else []
        self.progress.advance(images + texts + unreadable, ", ".join([*said, *([hint] if hint else [])]), self.left())

    def add_shard(self, table: pa.Table, hint: str, *, resumed: bool = False) -> None:
        """Add all items of a finished shard; `resumed` for one that an earlier run has finished."""
        texts = int(pc.sum(pc.equal(table.column("collection"), "texts")).as_py() or 0)
        images = table.num_rows - texts
        if resumed:
            self._resumed = (self._resumed[0] + images, self._resumed[1] + texts)
        self.add(images=images, texts=texts, hint=hint)

    def left(self, now: float | None = None) -> float | None:
        """Return the seconds until everything is encoded; None while nothing tells how fast it goes."""
        images, texts = self.images - self._resumed[0], self.texts - self._resumed[1]
        share = self._share(images, texts)
        done = images + texts * share
        if not done:
            return None
        to_do = max(self.corpus.images - self.images, 0) + max(self.corpus.texts - self.texts, 0) * share
        return to_do * ((time.monotonic() if now is None else now) - self._began) / done

    def _share(self, images: int, texts: int) -> float:
        """What a text takes of the time of an image: as measured, or as is usual while one of them is yet to come."""
        for_images, for_texts = self.stages[WAITING] + self.stages[IMAGES], self.stages[TEXTS]
        if not (images and texts and for_images and for_texts):
            return TEXT_COST / IMAGE_COST
        measured = (for_texts / texts) / (for_images / images)
        return min(max(measured, LEAST_SHARE), MOST_SHARE)


@dataclass(frozen=True, kw_only=True)
class RejectionLimit:
    """Counts the rejected rows of shards by reason, up to `max_rejected` of `items`."""

    config: BuildConfig
    items: int
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table) -> None:
        """Add the rows of a shard.

        Raises:
            RejectedError: With these, more items were rejected than the caller allows.
        """
        self.reasons.update(table.column("reason").drop_null().to_pylist())
        if self.reasons.total() <= self.config.rejection_limit(self.items):
            return
        example = table.filter(pc.is_valid(table.column("reason"))).slice(0, 1).to_pylist()
        first = f", for example {shown(example[0]['uri'], 200)!r}: {example[0]['detail']}" if example else ""
        raise RejectedError(
            f"{self.reasons.total()} items were rejected, more than --max-rejected {self._limit} allows{first}; "
            "fix them or raise the limit. What was encoded is kept"
        )

    def counted(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield shards as they come, each once it has been added."""
        for table in tables:
            self.add(table)
            yield table

    @property
    def _limit(self) -> str:
        """The limit as it is written on the command line."""
        limit = self.config.max_rejected or 0
        return f"{limit:.4g}" if limit == 0 or limit >= 1 else f"{limit * 100:.4g}%"


@dataclass
class EncodeReport:
    """What encoding did, and what the foreground waited for: the slowest stage is the one that it waits for most.

    `device`, `backend` and `precision` are those of the encoder that ran, wherever it did; None where none was needed.
    """

    shards: int = 0
    items: int = 0
    rejected: int = 0
    resumed: int = 0
    reused: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys((WAITING, IMAGES, TEXTS, WRITING), 0.0))
    reasons: dict[str, int] = field(default_factory=dict)
    executor: dict[str, Any] = field(default_factory=lambda: {"name": "local"})
    device: str | None = None
    backend: str = "torch"
    precision: str | None = None

    @property
    def bottleneck(self) -> str:
        """The stage that more speed would help most."""
        return max(self.stages, key=lambda name: self.stages[name])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; rates are items a second."""
        encoded = self.items - self.resumed - self.reused
        return {
            "items": self.items,
            "rejected": self.rejected,
            "resumed": self.resumed,
            "reused": self.reused,
            "seconds": round(self.seconds, 3),
            "items_per_second": round(encoded / max(self.seconds, 1e-9), 1),
            "bottleneck": self.bottleneck,
            "stages": {name: round(value, 3) for name, value in self.stages.items()},
            "executor": self.executor,
        }

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of a block to a stage."""
        started = time.perf_counter()
        yield
        self.stages[stage] += time.perf_counter() - started

    def count(self, table: pa.Table, rejected: RejectionLimit) -> None:
        """Add the rows of a finished shard, which `rejected` has counted too."""
        self.shards += 1
        self.items += table.num_rows
        self.rejected = rejected.reasons.total()
        self.reasons = dict(rejected.reasons)


class Threads(NamedTuple):
    """Who decodes images, who feeds the encoder with them, and who writes shards."""

    decode: ThreadPoolExecutor
    feed: ThreadPoolExecutor
    write: ThreadPoolExecutor


@dataclass(frozen=True, kw_only=True)
class ShardEncoder:
    """Encodes those shards of a corpus that are not finished yet."""

    corpus: Corpus
    encoder: Encoder
    staging: ShardStore
    reuse: Reuse
    config: BuildConfig
    metadata: pa.Schema
    progress: Progress
    rejected: RejectionLimit
    report: EncodeReport = field(default_factory=EncodeReport)
    read_from_ns: int = field(default_factory=time.time_ns)

    def run(self, shards: Iterable[Shard]) -> EncodeReport:
        """Encode shards in order; a finished one is durable, whatever happens to the rest.

        Raises:
            RejectedError: More items than `max_rejected` were rejected.
        """
        started = time.perf_counter()
        team = team_of(self.encoder, self.config, self.progress)
        batch_size = team.batch_size
        self.report.device, self.report.precision = self.encoder.device, self.encoder.precision
        self.report.backend = backend_of(self.encoder)
        if len(team.devices) > 1:
            self.report.executor |= {"devices": list(team.devices)}
        self.meter.begin()
        with ExitStack() as stack:
            processes = decode_processes(self.encoder, self.config, self.corpus.images, self._window)
            if processes is not None:
                self._begin(stack.enter_context(processes), stack, team)
            jpegs = device_jpegs(self.encoder, self.config, self.progress)
            if jpegs is not None:
                stack.enter_context(jpegs)
            reader = ImageReader(
                encoder=self.encoder, reuse=self.reuse, limits=self.config.limits, processes=processes, jpegs=jpegs
            )
            pool, writer = (stack.enter_context(ThreadPoolExecutor(count)) for count in (self.config.workers, 1))
            try:
                with ThreadPoolExecutor(team.threads) as feeder:
                    self._encode_all(self.unfinished(shards), Threads(pool, feeder, writer), reader, team)
            finally:
                # Whatever ended the loop: do not decode images that nobody will use.
                pool.shutdown(wait=True, cancel_futures=True)
            if processes is not None and processes.failure is not None:
                self.progress.note(f"images were decoded in threads: {processes.failure}")
        self.report.seconds = time.perf_counter() - started
        if (less := team.batch_size) < batch_size:
            where = " or ".join(team.devices)
            self.progress.note(f"{where} had no memory for {batch_size} images at once: --batch-size {less}")
        return self.report

    def _begin(self, processes: DecodeProcesses, stack: ExitStack, team: EncoderTeam) -> None:
        """Pin the memory of processes for a GPU, and wait for those that were asked for by name."""
        if self.config.decode_in == "processes":
            processes.wait()
        if not team.on_cpu_alone:
            from encoders.transfer import pinned

            memory = processes.pixels.array
            if not stack.enter_context(pinned(memory, self.encoder.device)):
                self.progress.note(f"CUDA cannot pin {memory.nbytes / 1e6:,.0f} MB: each batch is copied once more")

    def _encode_all(self, shards: Iterator[Shard], threads: Threads, reader: ImageReader, team: EncoderTeam) -> None:
        writer = ShardWriter(self.staging, threads.write)

        def finished(shard: OpenShard) -> None:
            table = shard.table.finish()
            with self.report.timed(WRITING):
                writer.write(shard.number, table)
            self.count(table)

        feed = EncoderFeed(
            team=team,
            encode_texts=with_prompt(team.encode_texts, self.config.prompt),
            threads=threads.feed,
            listener=self,
            finished=finished,
        )
        steps = read_ahead(shards, reader, threads.decode, self._window)
        for _, group in groupby(steps, key=lambda step: step.shard.number):
            self._encode(group, feed)
        feed.finish()
        writer.wait()

    @contextmanager
    def waiting(self, images: int, texts: int) -> Iterator[None]:
        """Time the wait for a batch of images or of texts, and count it."""
        with self.report.timed(IMAGES if images else TEXTS):
            yield
        self.meter.add(images=images, texts=texts, hint=f"limit: {self.report.bottleneck}")

    @cached_property
    def meter(self) -> EncodeProgress:
        """How far this is."""
        return EncodeProgress(progress=self.progress, corpus=self.corpus, stages=self.report.stages)

    @property
    def _batch_size(self) -> int:
        return self.config.batch_size or self.encoder.batch_size

    @property
    def _window(self) -> int:
        return (1 + self.config.gpus) * self._batch_size + self.config.workers

    def unfinished(self, shards: Iterable[Shard]) -> Iterator[Shard]:
        """Yield the shards that are not there yet, or not of these items; those that are, are counted as resumed."""
        for shard in shards:
            table = self.staging.read(shard.number) if self.staging.has(shard.number) else None
            if table is None or not is_of(table, shard):
                yield shard
                continue
            self.report.resumed += table.num_rows
            self.count(table)
            self.meter.add_shard(table, "finished before", resumed=True)

    def _encode(self, steps: Iterable[Step], feed: EncoderFeed) -> None:
        """Hand everything of a shard to the encoder."""
        shard: OpenShard | None = None
        images: list[tuple[int, Prepared]] = []
        texts: list[tuple[int, str]] = []
        for step in steps:
            if shard is None:
                table = ShardTable(self.encoder.dim, self.metadata, step.shard.digest, self.read_from_ns)
                shard = OpenShard(step.shard.number, table)
            if isinstance(step.entry, Rejection):
                shard.table.reject(step.entry)
                self.meter.add(unreadable=1)
            elif step.image is None:
                self._take_text(shard.table, step.entry, texts)
            else:
                self._take_image(shard.table, step.entry, step.image, images)
            if len(images) == self._batch_size:
                feed.images(shard, images)
                images = []
            if len(texts) == TEXT_BLOCK:
                feed.texts(shard, texts)
                texts = []
        if shard is None:
            raise BuildError("a shard without items; this is a defect of twinlens")
        feed.images(shard, images)
        feed.texts(shard, texts)
        feed.end(shard)

    def _take_text(self, table: ShardTable, item: Item, texts: list[tuple[int, str]]) -> None:
        position, known = table.add_text(item), self.reuse.unchanged(item)
        if known is None:
            texts.append((position, str(item.content)))
        else:
            self._take_over(table, position, self.reuse.vector("texts", known.row_id))
            self.meter.add(texts=1)

    def _take_image(
        self, table: ShardTable, item: Item, image: Future[Prepared | Rejection], images: list[tuple[int, Prepared]]
    ) -> None:
        with self.report.timed(WAITING):
            prepared = image.result()
        if isinstance(prepared, Rejection):
            table.reject(prepared)
            self.meter.add(images=1)
            return
        position = table.add_image(item, prepared.info)
        if prepared.pixels is not None:
            images.append((position, prepared))
        elif prepared.vector is not None:
            self._take_over(table, position, prepared.vector)
            self.meter.add(images=1)

    def _take_over(self, table: ShardTable, position: int, vector: np.ndarray) -> None:
        table.set_vectors([position], vector[None])
        self.report.reused += 1

    def count(self, table: pa.Table) -> None:
        """Count a finished shard.

        Raises:
            RejectedError: With it, more items than `max_rejected` were rejected.
        """
        self.rejected.add(table)
        self.report.count(table, self.rejected)


class Executor(Protocol):
    """Encodes the shards of a build, wherever it does so: the tables in staging are the same."""

    def placed(self, config: BuildConfig) -> BuildConfig:
        """Return the settings with the device that will be used, where that differs from this process's."""

    def encode(self, job: ShardEncoder, shards: Iterable[Shard]) -> EncodeReport:
        """Put every shard that is not finished yet into the job's staging, durably."""


class LocalExecutor:
    """This process."""

    def placed(self, config: BuildConfig) -> BuildConfig:
        """Return the settings as they are."""
        return config

    def encode(self, job: ShardEncoder, shards: Iterable[Shard]) -> EncodeReport:
        """Encode here."""
        return job.run(shards)
