"""Export into Qdrant, a server or its embedded form: a collection and an alias each for images and texts."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from typing import Any

from ..errors import StorageError
from .engine import VectorEngine, points
from .files import extra
from .rows import Pairs, Rows

API_KEY = "QDRANT_API_KEY"
SECONDS = 120


class QdrantTarget(VectorEngine):
    """Writes new collections and, once all are whole, moves the aliases `NAME_images` and `NAME_texts` in one step."""

    def __init__(self, address: str, name: str, *, force: bool) -> None:
        """Connect; an API key is taken from the environment (`QDRANT_API_KEY`).

        Raises:
            StorageError: The package is missing, or nothing answers at the address.
        """
        api: Any = extra("qdrant_client", "qdrant", "qdrant-client")
        self._models = api.models
        self._address, self._name, self._force = address, name, force
        server = re.match(r"https?://", address) is not None
        location = (
            {"url": address, "api_key": os.environ.get(API_KEY), "timeout": SECONDS} if server else {"path": address}
        )
        self._client: Any = None
        self._client = self._try("connect", api.QdrantClient, **location)
        self._written: dict[str, str] = {}

    def _discard(self) -> None:
        for collection in self._written.values():
            self._client.delete_collection(collection)

    def write(self, rows: Rows, pairs: Pairs) -> None:
        """Insert all rows of one collection into a new collection, then count them.

        Raises:
            StorageError: The alias is there already, or the engine refuses something.
        """
        alias = f"{self._name}_{rows.collection}"
        self._refuse_taken(alias)
        collection = f"{alias}__v{rows.version.number}_{secrets.token_hex(4)}"
        self._written[alias] = collection
        models = self._models
        kind = models.Datatype.FLOAT16 if rows.dtype == "float16" else models.Datatype.FLOAT32
        # Unit vectors: their dot product is the cosine, and Qdrant leaves them as they are.
        shape = models.VectorParams(size=rows.dim, distance=models.Distance.DOT, datatype=kind)
        self._try("make", self._client.create_collection, collection, vectors_config=shape)
        for batch in points(rows, pairs):
            sent = models.Batch(ids=batch.row_ids, vectors=batch.vectors.tolist(), payloads=batch.payloads)
            self._try("insert into", self._client.upsert, collection, points=sent, wait=True)
        held = self._try("count", self._client.count, collection, exact=True).count
        if held != len(rows.row_ids):
            raise StorageError(f"{self._address} holds {held} of {len(rows.row_ids)} rows of {alias}; run it again")

    def publish(self) -> None:
        """Move all aliases at once, then remove what they named before."""
        models, before = self._models, self._aliases()
        steps: list[Any] = []
        for alias, collection in self._written.items():
            if alias in before:
                steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
            made = models.CreateAlias(collection_name=collection, alias_name=alias)
            steps.append(models.CreateAliasOperation(create_alias=made))
        self._try("name", self._client.update_collection_aliases, change_aliases_operations=steps)
        for name in self._left_behind():
            self._try("drop", self._client.delete_collection, name)

    def _refuse_taken(self, alias: str) -> None:
        if alias in self._aliases():
            if not self._force:
                raise StorageError(f"{self._address} has an alias {alias!r} already; give another --name, or --force")
        elif self._try("look for", self._client.collection_exists, alias):
            raise StorageError(
                f"{self._address} has a collection {alias!r} that no export made; give another --name, or remove it"
            )

    def _aliases(self) -> dict[str, str]:
        aliases = self._try("look for", self._client.get_aliases).aliases
        return {alias.alias_name: alias.collection_name for alias in aliases}

    def _left_behind(self) -> list[str]:
        """Return collections that exports made under these aliases, replaced now or left by a killed one."""
        ours = re.compile(f"(?:{'|'.join(map(re.escape, self._written))})__v[0-9]+_[0-9a-f]{{8}}")
        kept = {*self._aliases().values()}
        names = [one.name for one in self._try("list", self._client.get_collections).collections]
        return [name for name in names if ours.fullmatch(name) and name not in kept]

    def _try(self, action: str, step: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Take a step; the client has no common error, so whatever it raises is told as one line."""
        try:
            return step(*given, **named)
        except StorageError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise StorageError(f"cannot {action} collections {self._name}_* at {self._address}: {reason}") from error
