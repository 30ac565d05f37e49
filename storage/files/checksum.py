"""Checksums: size and SHA-256 of a file, as the manifest records them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import CorruptIndexError
from .atomic import drop_cache
from .layout import open_regular

Verify = Literal["full", "size"]


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """Size in bytes and SHA-256, in hexadecimal, of one file."""

    bytes: int
    sha256: str


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def measure(root: Path, name: str, *, from_disk: bool = False) -> FileEntry:
    """Read a file and return its entry; `from_disk` asks the kernel to read it anew and not from its cache.

    Raises:
        CorruptIndexError: It is missing or not a regular file.
    """
    with open_regular(root, name) as file:
        if from_disk:
            drop_cache(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(bytes=file.tell(), sha256=digest)


def check(root: Path, name: str, expected: FileEntry, verify: Verify) -> None:
    """Compare a file with what the manifest says of it: its size, and for `full` its checksum.

    Raises:
        CorruptIndexError: They differ; the message names the file and both values.
    """
    with open_regular(root, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.bytes:
            raise CorruptIndexError(
                f"{root / name} has {size} bytes and the manifest says {expected.bytes}; "
                "roll back to another version or build again"
            )
        if verify == "size":
            return
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected.sha256:
        raise CorruptIndexError(
            f"{root / name} has SHA-256 {sha256} and the manifest says {expected.sha256}; "
            "roll back to another version or build again"
        )
