"""Export into Milvus, a server or the embedded milvus-lite: a collection each for images and texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..errors import StorageError
from .engine import VectorEngine, points
from .files import extra
from .rows import ITEM_ID, VECTOR, Pairs, Rows

TOKEN = "MILVUS_TOKEN"
MAX_ID_BYTES = 65_535


class MilvusTarget(VectorEngine):
    """Writes `NAME_images__exporting` and renames it to `NAME_images` once all collections are whole."""

    def __init__(self, address: str, name: str, *, force: bool) -> None:
        """Connect; a token for the server is taken from the environment (`MILVUS_TOKEN`).

        Raises:
            StorageError: The package is missing, or nothing answers at the address.
        """
        self._api = extra("pymilvus", "milvus", "pymilvus")
        self._address, self._name, self._force = address, name, force
        self._client: Any = self._try("connect", self._api.MilvusClient, address, token=os.environ.get(TOKEN, ""))
        self._written: list[str] = []

    def _discard(self) -> None:
        for name in self._written:
            self._client.drop_collection(_temporary(name))

    def write(self, rows: Rows, pairs: Pairs) -> None:
        """Insert all rows of one collection under a temporary name, then count them.

        Raises:
            StorageError: The collection is there already, an item id is too long, or the engine refuses something.
        """
        name = f"{self._name}_{rows.collection}"
        if not self._force and self._try("look for", self._client.has_collection, name):
            raise StorageError(f"{self._address} has a collection {name!r} already; give another --name, or --force")
        self._try("clear", self._client.drop_collection, _temporary(name))
        self._written.append(name)
        self._try("make", self._create, _temporary(name), rows)
        for batch in points(rows, pairs):
            entries = [
                {"row_id": row_id, VECTOR: vector, **_checked(payload)}
                for row_id, vector, payload in zip(batch.row_ids, batch.vectors, batch.payloads, strict=True)
            ]
            self._try("insert into", self._client.insert, _temporary(name), entries)
        self._try("flush", self._client.flush, _temporary(name))
        self._check_count(name, len(rows.row_ids))

    def publish(self) -> None:
        """Give the collections their names; those that they replace go last.

        Raises:
            StorageError: The engine refuses; what it has then, the message says.
        """
        for name in self._written:
            replaces = bool(self._try("look for", self._client.has_collection, name))
            if replaces:
                self._try("clear", self._client.drop_collection, _old(name))
                self._try("rename", self._client.rename_collection, name, _old(name))
            self._try("rename", self._client.rename_collection, _temporary(name), name)
            if replaces:
                self._try("drop", self._client.drop_collection, _old(name))

    def _create(self, name: str, rows: Rows) -> None:
        kinds = self._api.DataType
        schema = self._client.create_schema(enable_dynamic_field=True)
        schema.add_field("row_id", kinds.INT64, is_primary=True)
        schema.add_field(ITEM_ID, kinds.VARCHAR, max_length=MAX_ID_BYTES)
        kind = kinds.FLOAT16_VECTOR if rows.dtype == "float16" else kinds.FLOAT_VECTOR
        schema.add_field(VECTOR, kind, dim=rows.dim)
        index = self._client.prepare_index_params()
        index.add_index(VECTOR, index_type="AUTOINDEX", metric_type="COSINE")
        self._client.create_collection(name, schema=schema, index_params=index)

    def _check_count(self, name: str, expected: int) -> None:
        options = {"output_fields": ["count(*)"], "consistency_level": "Strong"}
        (answer,) = self._try("count", self._client.query, _temporary(name), filter="", **options)
        if int(answer["count(*)"]) != expected:
            raise StorageError(f"{self._address} holds {answer['count(*)']} of {expected} rows of {name}; run it again")

    def _try(self, action: str, step: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return step(*given, **named)
        except self._api.MilvusException as error:
            raise StorageError(
                f"cannot {action} collections {self._name}_* at {self._address}: {error.message}; "
                "fix that and run it again"
            ) from error


def _temporary(name: str) -> str:
    return f"{name}__exporting"


def _old(name: str) -> str:
    return f"{name}__replaced"


def _checked(payload: dict[str, Any]) -> dict[str, Any]:
    if len(payload[ITEM_ID].encode()) > MAX_ID_BYTES:
        raise StorageError(
            f"item_id {payload[ITEM_ID][:80]!r}... has more than {MAX_ID_BYTES} bytes, the limit of Milvus"
        )
    return payload
