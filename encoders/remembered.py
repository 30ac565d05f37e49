"""What is remembered of an encoder that was loaded: its identity, beside the state of the files that it came from.

Hashing the weights of ViT-B-32 takes a second, and importing torch takes several. While every file is as it was (size,
modification time, last change, inode) and so are the packages that read them, the fingerprint is what it was too. The
record lies in the user's cache; without one, the model is loaded and hashed.

The cache holds what was computed once for this machine or a model and may be thrown away at any time. It lies in
`$TWINLENS_CACHE`, else in `$XDG_CACHE_HOME/twinlens`, else in `~/.cache/twinlens`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import StorageError
from storage.files.atomic import make_folder, replace_file
from storage.files.canonical_json import build, canonical, parse, to_plain
from storage.schema import EncoderInfo


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


FOLDER_PREFIX = "local-dir:"
_KIND = "encoders"
# They make a model and its tokenizer of the files.
_PACKAGES = ("open_clip_torch", "timm", "tokenizers", "torch", "transformers")
_OWN_CODE = ("checkpoints.py", "lite.py", "remembered.py", "two_towers.py")
# The clock that files are stamped by may be behind the one of `time.time_ns` by a tick of the system.
_TICK_NS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class FileState:
    """One file or folder as the system describes it; all zero where there is none."""

    path: str
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Return the state of what is at a path now, links followed."""
        try:
            seen = path.stat()
        except OSError:
            return cls(path=str(path))
        return cls(
            path=str(path),
            size=seen.st_size,
            mtime_ns=max(seen.st_mtime_ns, 0),
            ctime_ns=max(seen.st_ctime_ns, 0),
            inode=seen.st_ino,
        )


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """An encoder that was loaded before.

    Attributes:
        info: Its identity, as an index records it.
        head: SHA-256 over everything in the fingerprint but the weights.
        files: Whatever the model was made of, and the code that made it.
        packages: Versions of the packages that took part.
    """

    info: EncoderInfo
    head: str
    files: tuple[FileState, ...]
    packages: Mapping[str, str]

    @property
    def holds(self) -> bool:
        """Whether every file and package is what it was."""
        return self.packages == _packages() and all(FileState.of(Path(one.path)) == one for one in self.files)


def recall(spec: str) -> Remembered | None:
    """Return what is remembered of the encoder that a spec names, if all that it is made of is as it was.

    Imports no torch and opens no weights: a file that was changed and given its old times is told by its last change.
    """
    data = read_cached(_KIND, absolute_spec(spec))
    if data is None:
        return None
    with suppress(ValueError):
        known: Remembered = build(Remembered, parse(data), "remembered")
        return known if known.holds else None
    return None


def remember(info: EncoderInfo, head: str, files: Sequence[Path], began_ns: int) -> None:
    """Keep the identity of an encoder that was just loaded and hashed.

    Args:
        info: Its identity.
        head: As in `Remembered`.
        files: Whatever it was made of. Without any nothing is kept.
        began_ns: When loading began, by `time.time_ns`. What has changed since may not be what was read.
    """
    states = [FileState.of(path) for path in [*files, *_own_code()]]
    if not files or any(max(one.mtime_ns, one.ctime_ns) >= began_ns - _TICK_NS for one in states):
        return
    known = Remembered(info=info, head=head, files=tuple(states), packages=_packages())
    write_cached(_KIND, info.spec, canonical(to_plain(known)))


def absolute_spec(spec: str) -> str:
    """Return the spec that loads the same folder from any working directory; other specs as they are."""
    if not spec.startswith(FOLDER_PREFIX):
        return spec
    return f"{FOLDER_PREFIX}{Path(spec.removeprefix(FOLDER_PREFIX)).expanduser().resolve()}"


def folder_and_files(folder: Path) -> tuple[Path, ...]:
    """Return a folder and the files in it: its own state changes with any that comes or goes."""
    with suppress(OSError):
        return (folder, *sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_file()))
    return ()


def _own_code() -> list[Path]:
    return [Path(__file__).with_name(name) for name in _OWN_CODE]


def _packages() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
