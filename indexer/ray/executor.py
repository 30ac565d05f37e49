"""The same shards on a Ray cluster: workers encode, and the driver alone stages, merges and publishes.

Ray places the workers, carries shards and tables, and tells when a worker or its node is lost; a lost shard is given to
another worker. Shards that are finished are durable in staging, so that a killed driver resumes like any other build.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from encoders import Encoder
from storage.errors import TwinlensError, first_line

from ..config import BuildConfig
from ..corpus.item import shown
from ..encode.pipeline import EncodeReport, ShardEncoder
from ..encode.shards import Shard, path_of
from ..errors import BuildError
from .connection import connect_ray
from .worker import EncodedShard, ShardOrder, Unlike, Worker, WorkerInfo, WorkerSetup, known_of, sights

# A worker has one shard that it encodes and one that waits beside it.
UNDER_WAY = 2
# Workers that may be lost over one shard: the shard itself is then the likely cause, e.g. by the memory it takes.
MOST_LOSSES = 4
SECONDS_A_LOOK = 5.0
PATIENCE_SECONDS = 600.0


class RayExecutor:
    """Encodes on a Ray cluster.

    Raises:
        TwinlensError: Ray is not installed, no cluster answers, or it has no room for the workers.
    """

    def __init__(self, config: BuildConfig, given: Encoder | None) -> None:
        if config.device.startswith("cuda:"):
            raise BuildError(f"--device {config.device} names a GPU of this machine; with --executor ray say cuda")
        self._ray, self._owned = connect_ray(config.address, "--executor ray")
        self._given = given
        try:
            self._room = Room.of(self._ray.nodes(), config)
        except BaseException:
            self._close()
            raise

    def placed(self, config: BuildConfig) -> BuildConfig:
        """Return the settings with the device of the workers: shards of a GPU are not mixed with a CPU's."""
        return replace(config, device="cuda") if self._room.gpus and config.device == "auto" else config

    def encode(self, job: ShardEncoder, shards: Iterable[Shard]) -> EncodeReport:
        """Put every shard that is not finished yet into the job's staging, durably.

        Raises:
            BuildError: A node does not see the corpus as this machine does, its encoder is another one, or no worker
                is left. What was encoded is kept.
        """
        started = time.perf_counter()
        job.progress.note(f"Ray: {self._room}")
        job.meter.begin()
        crew = Crew(ray=self._ray, job=job, room=self._room, setup=self._setup(job))
        try:
            crew.run(job.unfinished(shards))
        finally:
            crew.dismiss()
            self._close()
        job.report.executor = {
            "name": "ray",
            **self._room.to_json(),
            "nodes": sorted(crew.nodes),
            "lost": crew.lost,
            "seconds_to_start": round(crew.seconds_to_start, 3),
        }
        job.report.seconds = time.perf_counter() - started
        return job.report

    def _setup(self, job: ShardEncoder) -> Any:
        """What every worker needs, once in the cluster's store."""
        batch_size = None if self._room.gpus else job.encoder.batch_size
        config = replace(
            job.config,
            executor="local",
            address=None,
            ray_workers=None,
            max_rejected=None,
            device=self._room.device,
            decode_workers=job.config.decode_workers or self._room.cpus,
            batch_size=job.config.batch_size or batch_size,
        )
        setup = WorkerSetup(
            spec=job.encoder.spec, given=self._given, config=config, metadata=job.metadata, folder=str(Path.cwd())
        )
        try:
            return self._ray.put(setup)
        except TypeError as error:
            raise BuildError(
                f"encoder {job.encoder.spec!r} cannot be sent to workers ({error}); "
                "give its spec in place of the object"
            ) from error

    def _close(self) -> None:
        if self._owned:
            self._ray.shutdown()


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many workers, and what each takes of a node."""

    workers: int
    cpus: int
    gpus: int

    @classmethod
    def of(cls, nodes: Sequence[dict[str, Any]], config: BuildConfig) -> Room:
        """Return the room that a cluster has: the most CPUs a worker with which as many as were requested fit.

        Raises:
            BuildError: They do not fit, or there is no GPU for `--device cuda`.
        """
        free = [one["Resources"] for one in nodes if one["Alive"] and one["Resources"].get("CPU", 0) >= 1]
        gpus = int(sum(node.get("GPU", 0) for node in free))
        if config.device == "cuda" and not gpus:
            raise BuildError(f"device 'cuda' was asked for, but the {len(free)} nodes of the cluster have no GPU")
        gpu = int(gpus > 0 and config.device != "cpu")
        workers = config.ray_workers or (gpus if gpu else len(free))
        largest = int(max((node["CPU"] for node in free), default=0))
        for cpus in range(largest, 0, -1):
            if workers and sum(_fitting(node, cpus, gpu) for node in free) >= workers:
                return cls(workers=workers, cpus=cpus, gpus=gpu)
        held = f"{int(sum(node['CPU'] for node in free))} CPUs and {gpus} GPUs on {len(free)} nodes"
        raise BuildError(f"the Ray cluster has {held}, too few for {workers} workers; give a smaller --workers")

    @property
    def device(self) -> str:
        """The device of the workers."""
        return "cuda" if self.gpus else "cpu"

    def to_json(self) -> dict[str, int]:
        """Return the figures for the report of a build."""
        return {"workers": self.workers, "cpus_a_worker": self.cpus, "gpus_a_worker": self.gpus}

    def __str__(self) -> str:
        gpu = " and a GPU" if self.gpus else ""
        return f"{self.workers} workers with {self.cpus} CPUs{gpu} each"


def _fitting(node: dict[str, float], cpus: int, gpu: int) -> int:
    by_cpu = int(node["CPU"] // cpus)
    return min(by_cpu, int(node.get("GPU", 0))) if gpu else by_cpu


@dataclass(eq=False)
class Member:
    """One worker: its actor, and how many shards it has."""

    actor: Any
    info: WorkerInfo | None = None
    shards: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is under way; without a shard it is the start of a worker."""

    member: Member
    shard: Shard | None


@dataclass(kw_only=True)
class Crew:
    """The workers of one build and the shards that they have.

    `lost` counts workers, `nodes` names the machines, `seconds_to_start` passed until the last worker was there.
    """

    ray: Any
    job: ShardEncoder
    room: Room
    setup: Any
    lost: int = 0
    seconds_to_start: float = 0.0
    nodes: set[str] = field(default_factory=set)
    _started: float = field(default_factory=time.monotonic)
    _members: list[Member] = field(default_factory=list)
    _calls: dict[Any, Call] = field(default_factory=dict)
    _again: deque[Shard] = field(default_factory=deque)
    _losses: Counter[int] = field(default_factory=Counter)
    _stillborn: int = 0

    def run(self, shards: Iterator[Shard]) -> None:
        """Encode all shards; each is staged as it comes in."""
        first = next(shards, None)
        if first is None:
            return
        todo = chain([first], shards)
        for _ in range(self.room.workers):
            self._hire()
        quiet_since = time.monotonic()
        while self._hand_out(todo):
            done, _ = self.ray.wait(list(self._calls), num_returns=1, timeout=SECONDS_A_LOOK)
            if done:
                self._settle(done[0])
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > PATIENCE_SECONDS and not any(one.shards for one in self._members):
                raise BuildError(
                    f"no worker could start for {PATIENCE_SECONDS:.0f} s: the Ray cluster has no room for {self.room}; "
                    "add a node and run the same command again, what was encoded is kept"
                )

    def dismiss(self) -> None:
        """End all workers."""
        for member in self._members:
            self.ray.kill(member.actor)

    def _hire(self) -> None:
        remote = self.ray.remote(
            num_cpus=self.room.cpus, num_gpus=self.room.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        member = Member(remote(Worker).remote(self.setup))
        self._members.append(member)
        self._calls[member.actor.start.remote()] = Call(member, None)

    def _hand_out(self, todo: Iterator[Shard]) -> bool:
        """Give shards to workers that are free, evenly; return whether any is left or under way."""
        for _ in range(UNDER_WAY):
            for member in sorted(self._members, key=lambda one: one.shards):
                if member.info is None or member.shards >= UNDER_WAY:
                    continue
                shard = self._again.popleft() if self._again else next(todo, None)
                if shard is None:
                    return any(call.shard is not None for call in self._calls.values())
                self._send(member, shard)
        return True

    def _send(self, member: Member, shard: Shard) -> None:
        known = known_of(self.job.reuse, shard.entries, self.job.config.limits)
        order = ShardOrder(shard=shard, sights=sights(shard.entries), known=known)
        self._calls[member.actor.encode.remote(order)] = Call(member, shard)
        member.shards += 1

    def _settle(self, ref: Any) -> None:
        call = self._calls.pop(ref)
        try:
            answer = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            raise _told(error) from error
        except self.ray.exceptions.RayError as error:
            self._lose(call, error)
            return
        if call.shard is None:
            self._welcome(call.member, answer)
            return
        call.member.shards -= 1
        if isinstance(answer, Unlike):
            self._look_again(call, answer)
        else:
            self._take(call, answer)

    def _welcome(self, member: Member, info: WorkerInfo) -> None:
        expected = self.job.encoder
        if info.fingerprint != expected.fingerprint:
            raise BuildError(
                f"node {info.node} has another encoder under {expected.spec!r} ({info.fingerprint}) than this machine "
                f"({expected.fingerprint}); give every node the same weights and the same twinlens"
            )
        others = {(one.info.precision, one.info.device) for one in self._members if one.info}
        if others - {(info.precision, info.device)}:
            raise BuildError(f"node {info.node} would encode in {info.precision} and others do not; name a --precision")
        member.info = info
        self.job.report.device, self.job.report.precision = info.device, info.precision
        self._stillborn = 0
        self.nodes.add(info.node)
        if not self.lost:
            self.seconds_to_start = time.monotonic() - self._started

    def _take(self, call: Call, answer: EncodedShard) -> None:
        assert call.shard is not None
        node = call.member.info.node if call.member.info else "?"
        _check_unread(call.shard, answer, node)
        self.job.staging.write(call.shard.number, answer.table)
        for stage, seconds in answer.stages.items():
            self.job.report.stages[stage] += seconds
        self.job.report.reused += answer.reused
        self.job.count(answer.table)
        working = sum(one.info is not None for one in self._members)
        self.job.meter.add_shard(answer.table, f"{working} workers")

    def _look_again(self, call: Call, answer: Unlike) -> None:
        """Send a shard once more if a file of it has just changed; else the node sees another corpus than we do."""
        assert call.shard is not None
        now = sights(call.shard.entries)[answer.position]
        if now != answer.seen:
            path = path_of(call.shard.entries[answer.position])
            raise BuildError(
                f"node {answer.node} sees {_told_state(answer.seen)} at {str(path and path.absolute())!r}, this "
                f"machine {_told_state(now)}; every node must reach the corpus under the same path, by a shared "
                "folder or by copies that keep modification times. What was encoded is kept"
            )
        self._again.append(call.shard)

    def _lose(self, call: Call, error: Exception) -> None:
        """Give what a lost worker had to others, and hire another one in its place."""
        self.lost += 1
        gone = call.member
        self._stillborn += gone.info is None
        if self._stillborn >= MOST_LOSSES * self.room.workers:
            raise BuildError(
                f"{self._stillborn} workers in a row were lost before they could begin: {first_line(error)}; is the "
                "same twinlens on every node, and memory enough for the encoder?"
            ) from error
        self._members.remove(gone)
        self.ray.kill(gone.actor)
        left = [call, *(self._calls.pop(ref) for ref in [r for r, c in self._calls.items() if c.member is gone])]
        for shard in (one.shard for one in left if one.shard is not None):
            self._losses[shard.number] += 1
            if self._losses[shard.number] >= MOST_LOSSES:
                raise BuildError(
                    f"{MOST_LOSSES} workers were lost over shard {shard.number}, which begins with "
                    f"{shown(shard.entries[0].uri, 200)!r}: {first_line(error)}; try a smaller --shard-cost or "
                    "--batch-size"
                ) from error
            self._again.append(shard)
        where = f" on {gone.info.node}" if gone.info else ""
        self.job.progress.note(f"a worker{where} is lost; its shards go to others ({first_line(error)})")
        self._hire()


def _check_unread(shard: Shard, answer: EncodedShard, node: str) -> None:
    """Refuse a shard in which a file is called unreadable that can be read here: nothing is lost in silence."""
    for position in answer.unread:
        path = path_of(shard.entries[position])
        if path is None or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError:
            continue
        raise BuildError(
            f"node {node} cannot read {str(path)!r}, which this machine can; every node must be allowed to read the "
            "corpus. What was encoded is kept"
        )


def _told(error: Any) -> Exception:
    """Return what to raise for an error of a worker: ours as it is, another one with its last line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, TwinlensError):
        return cause
    return BuildError(f"a Ray worker failed: {first_line(cause or error)}; is the same twinlens on every node?")


def _told_state(state: tuple[int, int] | None) -> str:
    return "no file" if state is None else f"a file of {state[0]} bytes, changed at {state[1]} ns"
