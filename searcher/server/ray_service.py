"""Search past one machine, by Ray Serve: copies of an index, or several indexes with one merged answer.

Every score is an exact cosine, so the best of several indexes are the best of all of them: by score, ties by item id.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import TwinlensError, first_line
from storage.files.layout import MANIFEST
from storage.schema import COLLECTIONS, Collection, EncoderInfo, Modality, direction_of
from storage.store import IndexStore

from ..errors import QueryError, SearchError
from ..hits import Hits
from ..query_encoder import EncoderChoice, QueryEncoder
from ..request import query_part
from ..searcher import Searcher

APPLICATION = "twinlens"
MAX_BODY = 20 * 2**20
# Searches that one replica works on at once, and that wait for all of them; more get a 503 at once.
UNDER_WAY, WAITING = 16, 256
TRIES = 3
NUMBERS = {"k": int, "ann_recall": float, "nprobe": int, "oversample": int}


@dataclass(frozen=True, kw_only=True)
class Served:
    """One version of an index as it is to be served; replicas refuse any other bytes under its path.

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


class Replica:
    """One copy of one index, opened and verified on its node. Becomes a deployment of Ray Serve."""

    def __init__(self, served: Served) -> None:
        store = IndexStore.open(served.path)
        found = _manifest_sha256(store, served.version)
        if found != served.manifest_sha256:
            raise SearchError(
                f"version {served.version} of {served.path} is another one on this node (manifest {found}, "
                f"expected {served.manifest_sha256}); copy the index again"
            )
        self._searcher = Searcher.open(served.path, version=served.version)

    async def search(
        self, into: Collection, modality: Modality, vectors: np.ndarray, k: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return `{"hits": [...]}` with one list of hits a vector, or `{"error": "..."}`."""
        return await asyncio.to_thread(self._search, into, modality, vectors, k, options)

    def pid(self) -> int:
        """Return the process that this copy lives in."""
        return os.getpid()

    def _search(
        self, into: Collection, modality: Modality, vectors: np.ndarray, k: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        ask = getattr(self._searcher, direction_of(modality, into))
        try:
            found: list[Hits] = ask(vectors, k, **options)
        except TwinlensError as error:
            return {"error": str(error)}
        return {"hits": [[hit.to_json() for hit in hits] for hits in found]}


class Front:
    """Answers requests: encodes the query once, asks every index, merges. Becomes a deployment of Ray Serve."""

    def __init__(self, served: Sequence[Served], choice: EncoderChoice, *replicas: Any) -> None:
        self._served, self._replicas = served, replicas
        first = served[0]
        self._encoder = QueryEncoder(choice, first.encoder, first.dim, first.path, prompt=first.prompt)

    async def __call__(self, request: Any) -> Any:
        """Answer `GET /search?text=...`, or `POST /search` with JSON or with a picture; and `GET /healthz`."""
        response: Any = import_module("starlette.responses").JSONResponse
        if request.url.path == "/healthz":
            return response({"ok": True, "indexes": [one.path.rpartition("/")[2] for one in self._served]})
        if request.url.path != "/search":
            return response({"error": "there is /search and /healthz"}, status_code=404)
        try:
            return response(await self._answer(request))
        except TwinlensError as error:
            return response({"error": " ".join(str(error).split())}, status_code=400)
        except _engine_errors() as error:
            return response({"error": f"an index does not answer: {first_line(error)}"}, status_code=503)

    async def _answer(self, request: Any) -> dict[str, Any]:
        asked = await _asked(request)
        query, modality = _query_of(asked)
        into = _into(asked.get("into"), self._served[0].collections)
        options: dict[str, Any] = {
            name: _number(name, asked[name]) for name in ("ann_recall", "nprobe", "oversample") if name in asked
        }
        if not isinstance(asked.get("where", ""), str):
            raise QueryError(f"where={str(asked['where'])[:40]!r} is no text; give a predicate such as 'width >= 640'")
        options |= {"where": asked["where"]} if asked.get("where") else {}
        options |= {"exact": True} if str(asked.get("exact", "")).lower() in ("1", "true") else {}
        k = _number("k", asked.get("k", 10))
        understood = query_part(query, modality)
        vectors = await asyncio.to_thread(self._encoder.encode, [understood])
        answers = await asyncio.gather(
            *(self._ask(replica, into, modality, vectors, k, options) for replica in self._replicas)
        )
        return {"query": understood.label, "into": into, "hits": self._merged(answers, k)}

    async def _ask(self, replica: Any, *given: Any) -> list[dict[str, Any]]:
        """Ask one index; a search changes nothing, so one that is lost with its replica is asked again."""
        for last in range(TRIES):
            try:
                answer = await replica.search.remote(*given)
                break
            except _engine_errors():
                if last == TRIES - 1:
                    raise
        if "error" in answer:
            raise SearchError(answer["error"])
        hits: list[dict[str, Any]] = answer["hits"][0]
        return hits

    def _merged(self, answers: Sequence[list[dict[str, Any]]], k: int) -> list[dict[str, Any]]:
        if len(answers) == 1:
            return answers[0]
        names = [one.path.rpartition("/")[2] for one in self._served]
        return merge([[{**hit, "index": name} for hit in hits] for name, hits in zip(names, answers, strict=True)], k)


def merge(answers: Sequence[Sequence[Mapping[str, Any]]], k: int) -> list[dict[str, Any]]:
    """Return the k best hits of several indexes, ranked anew: by score, equal scores by item id."""
    best = sorted((hit for hits in answers for hit in hits), key=lambda hit: (-hit["score"], hit["item_id"]))[:k]
    return [{**hit, "rank": rank} for rank, hit in enumerate(best, start=1)]


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
    *,
    replicas: int = 1,
    cpus: float = 1,
    host: str = "127.0.0.1",
    port: int = 8000,
    encoder: str | None = None,
    device: str = "auto",
) -> str:
    """Serve indexes on the Ray cluster that this process is connected to; when this returns, every copy is open.

    Returns the address to ask.

    Args:
        indexes: One index, or several that hold different items and are searched as one.
        replicas: Copies of each index, on as many nodes as Ray finds room on.
        cpus: Processors that Ray sets aside for each copy, and for each of as many front ends, which encode.
        host: Where the front listens, on the cluster's head; there is no password, so think before you open it.
        port: Likewise.
        encoder: Its spec, for indexes of ready-made vectors.
        device: Where the front encodes queries.

    Raises:
        TwinlensError: The indexes cannot be compared, or a node lacks one of them.
    """
    served = [Served.of(path) for path in indexes]
    check_alike(served)
    serve: Any = import_module("ray.serve")
    serve.start(http_options={"host": host, "port": port})
    options = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": cpus}}
    copies = [
        serve.deployment(name=f"index-{number}", max_ongoing_requests=UNDER_WAY, **options)(Replica).bind(one)
        for number, one in enumerate(served)
    ]
    front = serve.deployment(name="front", max_ongoing_requests=64, max_queued_requests=WAITING, **options)(Front)
    choice = EncoderChoice(encoder=encoder, device=device)
    try:
        serve.run(front.bind(served, choice, *copies), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise SearchError(f"the indexes cannot be served: {first_line(error)}; is each on every node?") from error
    return f"http://{host}:{port}/search"


async def _asked(request: Any) -> dict[str, Any]:
    """Return what a request asks for: its parameters, and its body as a picture or as JSON."""
    asked: dict[str, Any] = dict(request.query_params)
    if request.method == "GET":
        return asked
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise QueryError(f"the body has more than {MAX_BODY} bytes; send a smaller picture")
    if request.headers.get("content-type", "").startswith("image/"):
        return {**asked, "image": body}
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"the body is neither JSON nor sent as image/...: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise QueryError('the body is not a JSON object; send e.g. {"text": "a dog", "k": 5}')
    return {**asked, **{key: value for key, value in values.items() if key != "image"}}


def _query_of(asked: Mapping[str, Any]) -> tuple[Any, Modality]:
    given = [name for name in ("text", "vector", "image") if name in asked]
    if len(given) != 1:
        raise QueryError("give one of text=..., a JSON body with text or vector, or a picture as the body")
    if given[0] == "image":
        return asked["image"], "image"
    if given[0] == "text":
        return asked["text"], "text"
    try:
        vector = np.asarray(asked["vector"], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise QueryError(f"the vector is no list of numbers: {first_line(error)}") from error
    if vector.ndim != 1:
        raise QueryError(f"the vector has shape {vector.shape}; give one list of numbers")
    return vector, "text"


def _into(asked: Any, held: Sequence[Collection]) -> Collection:
    for name in held:
        if asked in (None, name):
            return name
    raise QueryError(f"into={asked!r} is not served; search {' or '.join(held)}")


def _number(name: str, value: Any) -> Any:
    kind = NUMBERS[name]
    try:
        return kind(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else kind("")
    except (ValueError, OverflowError) as error:
        raise QueryError(f"{name}={str(value)[:40]!r} is no number") from error


def _engine_errors() -> tuple[type[Exception], ...]:
    errors: Any = import_module("ray.exceptions")
    return (errors.RayActorError, errors.ActorUnavailableError)


def _manifest_sha256(store: IndexStore, number: int) -> str:
    return hashlib.sha256((store.version_path(number) / MANIFEST).read_bytes()).hexdigest()


def _fingerprint(served: Served) -> str | None:
    return served.encoder.fingerprint if served.encoder else None
