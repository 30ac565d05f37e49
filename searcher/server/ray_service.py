"""The server application on Ray Serve: copies of an index, or several indexes that are searched as one.

Front ends run the same application as `twinlens serve`; replicas, each a copy of one index on its node, rank. Every
score is an exact cosine, so the best of several indexes are the best of all of them: by score, ties by item id.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from storage.errors import TwinlensError, first_line
from storage.files.layout import MANIFEST
from storage.schema import COLLECTIONS, Collection, EncoderInfo
from storage.store import IndexStore

from ..errors import SearchError
from ..hits import Hits
from ..query import ResolvedQuery
from ..request import SearchRequest
from ..searcher import Searcher
from ..sorting import in_order
from .app import create_app
from .engine import Engine
from .errors import RefusedError
from .live_index import LiveIndex
from .metrics import Metrics
from .settings import ServerSettings
from .snapshot import Snapshot

APPLICATION = "twinlens"
# Searches that one replica works on at once.
_CONCURRENT_SEARCHES = 16
_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Served:
    """One version of an index as it is to be served; processes refuse any other bytes under its path.

    Attributes:
        path: The folder, absolute; the same on every node.
        version: Its number.
        manifest_sha256: Checksum of its manifest, which holds those of all its files.
        dim: Length of its vectors.
        encoder: What made them; None for ready-made vectors.
        prompt: The template that texts go through.
        collections: The halves that it has.
    """

    path: str
    version: int
    manifest_sha256: str
    dim: int
    encoder: EncoderInfo | None
    prompt: str | None
    collections: tuple[Collection, ...]

    @classmethod
    def of(cls, path: str | Path) -> Served:
        """Return the current version of an index.

        Raises:
            StorageError: There is none, or its manifest is damaged.
        """
        store = IndexStore.open(path)
        manifest = store.manifest()
        with store.open_version(manifest.version, verify="size") as version:
            dim = version.dim
        return cls(
            path=str(Path(path).resolve()),
            version=manifest.version,
            dim=dim,
            encoder=manifest.encoder,
            manifest_sha256=_manifest_sha256(store, manifest.version),
            prompt=manifest.encoding.prompt,
            collections=tuple(name for name in COLLECTIONS if name in manifest.collections),
        )

    def check(self) -> None:
        """Refuse another version under the path of this node.

        Raises:
            TwinlensError: The manifest differs, or there is none.
        """
        checksum = _manifest_sha256(IndexStore.open(self.path), self.version)
        if checksum != self.manifest_sha256:
            raise SearchError(
                f"version {self.version} of {self.path} is another one on this node (manifest {checksum}, "
                f"expected {self.manifest_sha256}); copy the index again"
            )


class Replica:
    """One copy of one index, opened and verified on its node. Becomes a deployment of Ray Serve."""

    def __init__(self, served: Served, verify: Literal["full", "size"] = "full") -> None:
        served.check()
        self._searcher = Searcher.open(served.path, version=served.version, verify=verify)

    async def search(self, request: SearchRequest, query: ResolvedQuery) -> Hits | TwinlensError:
        """Return the hits of a query that is a vector already, or why there are none."""
        return await asyncio.to_thread(self._search, request, query)

    def pid(self) -> int:
        """Return the process that this copy lives in."""
        return os.getpid()

    def _search(self, request: SearchRequest, query: ResolvedQuery) -> Hits | TwinlensError:
        try:
            return self._searcher.answer(request, [query])[0]
        except TwinlensError as error:
            return error


class RayEngine(Engine):
    """Encodes queries in this process, and lets the replicas of every index rank."""

    def __init__(self, settings: ServerSettings, metrics: Metrics, *, replicas: Sequence[Any]) -> None:
        super().__init__(settings, metrics)
        self._replicas = replicas

    async def prepare_filter(self, snapshot: Snapshot, into: Collection, where: str) -> None:
        """Check a filter; each replica evaluates it when a search brings it."""
        await self.run("filter", snapshot.check_filter, into, where)

    async def answer(self, snapshot: Snapshot, request: SearchRequest, query: ResolvedQuery) -> Hits:
        """Return the best hits of all indexes."""
        into = request.into or snapshot.collections[0]
        # A page of all indexes together is cut from the first hits of each.
        alone = len(self._replicas) == 1
        if (request.diversity or request.collapse or request.words is not None) and not alone:
            name = "diversity" if request.diversity else "collapse" if request.collapse else "words"
            raise SearchError(f"{name} ranks within one index, and several are served here; leave it out")
        deeper = request if alone else replace(request, k=request.k + request.offset, offset=0)
        offsets = [snapshot.offset(into, position) for position in range(len(self._replicas))]
        results = await asyncio.gather(
            *(
                self._ask(handle, deeper, _for_index(snapshot, query, position))
                for position, handle in enumerate(self._replicas)
            )
        )
        return merge(results, request, [version.name for version in snapshot.versions], offsets)

    async def _ask(self, handle: Any, request: SearchRequest, query: ResolvedQuery) -> Hits:
        """Ask one index; a search changes nothing, so one that is lost with its replica is asked again."""
        for last in range(_TRIES):
            try:
                answer = await handle.search.remote(request, query)
                break
            except _engine_errors() as error:
                if last == _TRIES - 1:
                    message = f"an index does not answer: {first_line(error)}; try again in a second"
                    raise RefusedError(503, message, {"Retry-After": "1"}) from error
        if isinstance(answer, TwinlensError):
            raise answer
        hits: Hits = answer
        return hits


def _for_index(snapshot: Snapshot, query: ResolvedQuery, position: int) -> ResolvedQuery:
    """Return a query as one index takes it: what it was made from stays here, an item is excluded where it is."""

    def here(row: tuple[Collection, int]) -> tuple[Collection, int] | None:
        local = row[1] - snapshot.offset(row[0], position)
        return (row[0], local) if 0 <= local < snapshot.versions[position].count(row[0]) else None

    examples = tuple(local for row in query.examples if (local := here(row)) is not None)
    row = None if query.row is None else here(query.row)
    return query._replace(part=replace(query.part, content=None), row=row, examples=examples)


def merge(results: Sequence[Hits], request: SearchRequest, names: Sequence[str], offsets: Sequence[int]) -> Hits:
    """Return the k best hits of several indexes, ranked anew: by score, equal scores by item id.

    Args:
        results: The hits of each index.
        request: Says which of them are shown, by `k` and `offset`.
        names: Of the indexes; each hit of several says which it is from, in its metadata as `index`.
        offsets: What to add to the row ids of each.
    """
    if len(results) == 1:
        return results[0]
    merged = [
        (-hit.score, hit.item_id, row + offset, replace(hit, metadata={**hit.metadata, "index": name}))
        for hits, name, offset in zip(results, names, offsets, strict=True)
        for hit, row in zip(hits, hits.row_ids.tolist(), strict=True)
    ]
    merged.sort(key=lambda one: one[:2])
    best = merged[request.offset : request.offset + request.k]
    found = replace(
        results[0],
        row_ids=np.array([row for _, _, row, _ in best], dtype=np.int64),
        scores=np.array([-score for score, _, _, _ in best], dtype=np.float32),
        offset=request.offset,
        hits=tuple(replace(hit, rank=rank) for rank, (_, _, _, hit) in enumerate(best, start=request.offset + 1)),
    )
    return in_order(found, request.sort)


class Front:
    """One front end: the server's application. Becomes the ingress deployment of Ray Serve."""

    def __init__(self, served: Sequence[Served], settings: ServerSettings, *replicas: Any) -> None:
        for one in served:
            one.check()
        self._settings = settings
        self._replicas = replicas
        paths, versions = [Path(one.path) for one in served], [one.version for one in served]
        self._live = LiveIndex(paths, settings, pinned=versions)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application, which Ray Serve runs."""
        return create_app(self._live, self._settings, engine=partial(RayEngine, replicas=self._replicas))


def check_alike(served: Sequence[Served]) -> None:
    """Refuse indexes whose scores cannot be compared.

    Raises:
        SearchError: They differ in encoder, prompt, dimensions or halves, or one is named twice.
    """
    first = served[0]
    for other in served[1:]:
        for what, one, two in (
            ("encoder", _fingerprint(first), _fingerprint(other)),
            ("prompt", first.prompt, other.prompt),
            ("length of vectors", first.dim, other.dim),
            ("collections", first.collections, other.collections),
        ):
            if one != two:
                raise SearchError(f"{other.path} has {what} {two!r} and {first.path} {one!r}; serve them apart")
    if len({one.path for one in served}) < len(served):
        raise SearchError(f"{first.path} is named twice among the indexes; copies of one are asked for by --replicas")


def deploy(
    indexes: Sequence[str | Path],
    settings: ServerSettings | None = None,
    *,
    replicas: int = 1,
    fronts: int = 1,
    cpus: float = 1,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> str:
    """Serve indexes on the Ray cluster that this process is connected to; when this returns, every copy is open.

    Returns the address of the page and the API.

    Args:
        indexes: One index, or several that hold different items and are searched as one.
        settings: Limits and the rest, of each front end.
        replicas: Copies of each index, on as many nodes as Ray finds room on.
        fronts: Front ends, which encode queries and answer HTTP. Links to dropped images stay with the front end that
            took them, so the page wants one.
        cpus: Processors that Ray sets aside for each copy and each front end.
        host: Where Ray Serve listens, on the cluster's head.
        port: Likewise.

    Raises:
        TwinlensError: The indexes cannot be compared, or a node lacks one of them.
    """
    settings = settings or ServerSettings()
    served = [Served.of(path) for path in indexes]
    check_alike(served)
    serve: Any = import_module("ray.serve")
    serve.start(http_options={"host": host, "port": port})
    # Ray kills a process that has not ended by then, whatever its threads are doing.
    options = {"ray_actor_options": {"num_cpus": cpus}, "graceful_shutdown_timeout_s": settings.grace}
    copies = [
        serve.deployment(
            name=f"index-{number}", num_replicas=replicas, max_ongoing_requests=_CONCURRENT_SEARCHES, **options
        )(Replica).bind(one, settings.verify)
        for number, one in enumerate(served)
    ]
    # The application refuses by itself what is above its limit, so that much and more must reach it.
    front = serve.deployment(
        name="front", num_replicas=fronts, max_ongoing_requests=2 * settings.concurrency, **options
    )(serve.ingress()(Front))
    try:
        serve.run(front.bind(served, settings, *copies), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise SearchError(f"the indexes cannot be served: {first_line(error)}; is each on every node?") from error
    return f"http://{host}:{port}/"


def _engine_errors() -> tuple[type[Exception], ...]:
    errors: Any = import_module("ray.exceptions")
    return (errors.RayActorError, errors.ActorUnavailableError)


def _manifest_sha256(store: IndexStore, number: int) -> str:
    return hashlib.sha256((store.version_path(number) / MANIFEST).read_bytes()).hexdigest()


def _fingerprint(served: Served) -> str | None:
    return served.encoder.fingerprint if served.encoder else None
