"""Vectors remembered by content across calls: what was encoded once is not encoded again, in memory or on disk."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder
from encoders.base import backend_of
from storage.lru import Lru

from .errors import MatcherError

Vector = NDArray[np.float32]
Key = bytes

# 130,000 vectors of 512 dimensions: all of Flickr8k's images and captions three times over.
DEFAULT_BYTES = 256 * 2**20
# SQLite takes so many values in one question at least.
_ASKED_AT_ONCE = 500
_SECONDS_FOR_OTHERS = 60.0
_CREATE = "CREATE TABLE IF NOT EXISTS vectors (number INTEGER PRIMARY KEY, key BLOB UNIQUE, vector BLOB, crc INTEGER)"


def text_key(text: str) -> Key:
    """Return what a text is remembered by."""
    return hashlib.sha256(b"text\0" + text.encode("utf-8", "surrogatepass")).digest()


def image_key(sha256: str) -> Key:
    """Return what an image is remembered by, from the hash of its file or of its pixels."""
    return hashlib.sha256(f"image\0{sha256}".encode()).digest()


class VectorMemory:
    """The vectors that one encoder gave last, up to a number of bytes. Safe from many threads and processes.

    With a folder they lie in one file there, `FINGERPRINT-PRECISION-BACKEND.sqlite`, which any matcher with the same
    encoder finds again. A vector that was damaged on disk is encoded again.
    """

    def __init__(self, encoder: Encoder, max_bytes: int = DEFAULT_BYTES, folder: Path | None = None) -> None:
        """Set up an empty memory, or open the one in a folder.

        Args:
            encoder: Whose vectors these are.
            max_bytes: The size of all vectors; those unused (on disk: kept) for longest go first. 0 remembers nothing.
            folder: Where they are kept; None keeps them in this process.

        Raises:
            MatcherError: The folder cannot be written, or holds something else under that name.
        """
        self.max_bytes = max_bytes
        self._dim = encoder.dim
        self._kept: Lru[Key, Vector] = Lru(max_bytes, lambda vector: vector.nbytes)
        self._file: Path | None = None
        if folder is not None and max_bytes:
            name = f"{encoder.fingerprint[:32]}-{encoder.precision}-{backend_of(encoder)}.sqlite"
            self._file = _made(folder) / name
            with closing(self._connection()) as disk, self._explained(), disk:
                disk.execute(_CREATE)

    def get(self, keys: Iterable[Key]) -> dict[Key, Vector]:
        """Return those of the vectors that are remembered."""
        distinct = list(dict.fromkeys(keys))
        found = {key: vector for key in distinct if (vector := self._kept.get(key)) is not None}
        missing = [key for key in distinct if key not in found]
        if self._file is None or not missing:
            return found
        read = self._read(missing)
        for key, vector in read.items():
            self._kept.put(key, vector)
        return found | read

    def put(self, vectors: Mapping[Key, Vector]) -> None:
        """Remember vectors."""
        if not self.max_bytes or not vectors:
            return
        # A row of a batch would keep the whole batch in memory.
        own = {key: np.array(vector, dtype=np.float32) for key, vector in vectors.items()}
        for key, vector in own.items():
            self._kept.put(key, vector)
        if self._file is not None:
            self._write(own)

    def _read(self, keys: list[Key]) -> dict[Key, Vector]:
        found = {}
        with closing(self._connection()) as disk, self._explained():
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                part = keys[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = disk.execute(f"SELECT key, vector, crc FROM vectors WHERE key IN ({marks})", part)
                for key, data, crc in rows:
                    if len(data) == 4 * self._dim and zlib.crc32(data) == crc:
                        found[bytes(key)] = np.frombuffer(data, dtype="<f4").astype(np.float32)
        return found

    def _write(self, vectors: Mapping[Key, Vector]) -> None:
        data = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        rows = [(key, blob, zlib.crc32(blob)) for key, blob in data]
        keep = max(1, self.max_bytes // (4 * self._dim))
        with closing(self._connection()) as disk, self._explained(), disk:
            disk.executemany("INSERT OR REPLACE INTO vectors (key, vector, crc) VALUES (?, ?, ?)", rows)
            disk.execute("DELETE FROM vectors WHERE number <= (SELECT max(number) FROM vectors) - ?", (keep,))

    def _connection(self) -> sqlite3.Connection:
        with self._explained():
            return sqlite3.connect(str(self._file), timeout=_SECONDS_FOR_OTHERS)

    def _explained(self) -> _Explained:
        return _Explained(self._file)


class _Explained:
    """Tells errors of SQLite as a `MatcherError` that names the file."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise MatcherError(
                f"the remembered vectors in {str(self._file)!r} cannot be used: {error}; remove the file, or give "
                "another folder as remember_in"
            ) from error


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MatcherError(
            f"cannot make the folder remember_in={str(folder)!r}: {error.strerror}; give another one"
        ) from error
    return folder
