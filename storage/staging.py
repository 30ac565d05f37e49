"""Finished shards of a running build, from which a killed build goes on."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from .errors import CorruptIndexError, StorageError
from .files import atomic
from .files.canonical_json import canonical, parse, to_plain
from .files.layout import open_regular

PLAN = "plan.json"

# A shard file is an Arrow IPC file followed by its SHA-256, so that one rename makes both durable.
_MAGIC = b"TWINSHRD"
_SHARD_SUFFIX = ".arrow"
_TRAILER = 32 + len(_MAGIC)
_FINGERPRINT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}", re.ASCII)


def is_shard(path: Path) -> bool:
    """Whether a file in a staging folder is called like a finished shard."""
    return path.suffix == _SHARD_SUFFIX and not path.name.startswith(".")


class Staging:
    """The shards of one build; safe from several threads or processes that write different shards."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, root: Path, fingerprint: str) -> Staging:
        """Make, or find again, the staging folder of the build with this fingerprint.

        Raises:
            StorageError: The fingerprint is not a plain name, or the folder cannot be made.
        """
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise StorageError(f"fingerprint {fingerprint!r} is no name for a folder in {root}; use letters and digits")
        with atomic.explained("make", root / fingerprint):
            atomic.make_folder(root / fingerprint)
        return cls(root / fingerprint)

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Keep what the build is about, durably, for people and for the build that resumes.

        Raises:
            StorageError: A value is not JSON's, or the disk is full.
        """
        try:
            data = canonical(to_plain(plan))
        except (TypeError, ValueError) as error:
            raise StorageError(f"the plan of a build cannot be kept in {self.path}: {error}") from error
        with atomic.explained("write", self.path / PLAN):
            atomic.replace_file(self.path / PLAN, data, "plan")()

    def read_plan(self) -> dict[str, Any] | None:
        """Return the plan, or None where none was written.

        Raises:
            CorruptIndexError: The file is damaged.
        """
        path = self.path / PLAN
        if not path.exists():
            return None
        with open_regular(self.path, PLAN) as file:
            try:
                plan = parse(file.read())
            except ValueError as error:
                raise CorruptIndexError(f"{path} is damaged ({error}); remove {self.path} and build again") from error
        return dict(plan)

    def has(self, shard: int) -> bool:
        """Return whether a shard is finished and its checksum holds; it reads the whole shard."""
        try:
            self._map(shard)
        except CorruptIndexError:
            return False
        return True

    def write(self, shard: int, table: pa.Table) -> None:
        """Write a shard whole, durably; one that is there is replaced.

        Raises:
            StorageError: The disk is full or failing; the shard is then not there.
        """
        path = self._shard_path(shard)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        data = memoryview(sink.getvalue())
        with atomic.explained("write", path):
            atomic.replace_file(path, b"".join([data, hashlib.sha256(data).digest(), _MAGIC]), "shard")()

    def read(self, shard: int) -> pa.Table:
        """Return a finished shard, mapped into memory, after checking its checksum.

        Raises:
            CorruptIndexError: It is missing or damaged.
        """
        data = pa.py_buffer(self._map(shard))
        table: pa.Table = pa.ipc.open_file(data.slice(0, data.size - _TRAILER)).read_all()
        return table

    def discard(self) -> None:
        """Remove the folder and all its shards."""
        atomic.remove_folder(self.path)

    def _shard_path(self, shard: int) -> Path:
        return self.path / f"{shard:08d}{_SHARD_SUFFIX}"

    def _map(self, shard: int) -> mmap.mmap:
        path = self._shard_path(shard)
        with open_regular(self.path, path.name) as file:
            try:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise CorruptIndexError(f"{path} is empty; run the build again") from error
        whole = memoryview(mapped)
        body, trailer = whole[:-_TRAILER], whole[-_TRAILER:]
        if bytes(trailer) != hashlib.sha256(body).digest() + _MAGIC:
            raise CorruptIndexError(f"{path} is not the shard that was written; run the build again")
        return mapped
