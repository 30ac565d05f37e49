"""The user's cache: what was computed once for this machine or this model, and may be thrown away at any time.

It lies in `$TWINLENS_CACHE`, else in `$XDG_CACHE_HOME/twinlens`, else in `~/.cache/twinlens`.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from ..errors import StorageError
from .atomic import make_folder, replace_file


def user_cache() -> Path:
    """Return the folder of the cache, which need not exist."""
    if given := os.environ.get("TWINLENS_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base if base and Path(base).is_absolute() else Path.home() / ".cache") / "twinlens"


def read_cached(kind: str, key: str) -> bytes | None:
    """Return what was kept under a key, or None; a cache that cannot be read is one that is empty."""
    with suppress(OSError, RuntimeError):
        return _path(kind, key).read_bytes()
    return None


def write_cached(kind: str, key: str, data: bytes) -> None:
    """Keep bytes under a key, whole or not at all; where that fails, they are computed anew the next time."""
    with suppress(OSError, RuntimeError, StorageError):  # RuntimeError: there is no home folder
        path = _path(kind, key)
        make_folder(path.parent)
        replace_file(path, data, "cache")()


def _path(kind: str, key: str) -> Path:
    name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return user_cache() / kind / f"{name}.json"
