"""A tower on disk that was exported from an encoder: its files, their checksums, and where they are kept.

The text and the image tower of a fingerprint lie in the user's cache, below `text-towers` and `image-towers`, or in a
version of an index that was built with `--portable`. Either way their files are checked against their checksums before
anything parses them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.remembered import user_cache
from storage.errors import StorageError
from storage.files import atomic
from storage.files.canonical_json import build, canonical, parse, to_plain
from storage.files.layout import (
    TOWER_DESCRIPTION,
    TOWER_FILES,
    TOWER_WEIGHTS,
    FileEntry,
    Verify,
    check,
    open_regular,
    sha256_of,
)

from .errors import TowerError

Rows = NDArray[np.float32]
Kind = Literal["text", "image"]
KINDS: tuple[Kind, ...] = ("text", "image")
REMEDY = "export it again with `twinlens encoders export SPEC`"
FORMAT = 1
_MAX_DESCRIPTION = 1 << 16
_MAX_HEADER = 1 << 20
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CHECKSUM = "checksum"


@dataclass(frozen=True, kw_only=True)
class TowerDescription:
    """What every exported tower says of itself, in its `tower.json`.

    Attributes:
        fingerprint: That of the encoder that it is of.
        spec: The encoder, for messages.
        lowest_cosine: The lowest to the encoder's own vectors, over what it was compared on.
        files: Size and SHA-256 of its other files.
        format: Version of these files.
    """

    fingerprint: str
    spec: str
    lowest_cosine: float = 0.0
    files: Mapping[str, FileEntry]
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Return the bytes of `tower.json`, with a checksum over all the rest in it."""
        plain = to_plain(self)
        return canonical({**plain, _CHECKSUM: sha256_of(canonical(plain))})

    @classmethod
    def from_json(cls, data: bytes, path: Path) -> Self:
        """Parse the bytes of `tower.json`.

        Raises:
            TowerError: They are not what `to_json` writes.
        """
        try:
            plain = parse(data)
            if not isinstance(plain, dict) or plain.get("format") != FORMAT:
                raise ValueError(f"it is not of format {FORMAT}")
            if plain.pop(_CHECKSUM, None) != sha256_of(canonical(plain)):
                raise ValueError("its own checksum does not fit")
            info: Self = build(cls, plain, "tower")
        except (ValueError, RecursionError) as error:
            raise TowerError(f"{path} is damaged ({error}); {REMEDY}") from error
        return info

    @classmethod
    def read(cls, folder: Path, kind: Kind, verify: Verify) -> Self:
        """Return what the tower in a folder says of itself, its files checked.

        Raises:
            TowerError: It is damaged.
            CorruptIndexError: A file is missing or damaged.
        """
        with open_regular(folder, TOWER_DESCRIPTION) as file:
            info = cls.from_json(file.read(_MAX_DESCRIPTION), folder / TOWER_DESCRIPTION)
        if set(info.files) != set(TOWER_FILES[f"{kind}_tower"]) - {TOWER_DESCRIPTION}:
            raise TowerError(f"{folder / TOWER_DESCRIPTION} names the files {sorted(info.files)}; {REMEDY}")
        for name, entry in info.files.items():
            check(folder, name, entry, verify)
        return info


@contextmanager
def explained(kind: Kind, folder: Path) -> Iterator[None]:
    """Say of which tower what is wrong with its files."""
    try:
        yield
    except StorageError as error:
        raise TowerError(f"the {kind} tower in {folder} cannot be used: {error}") from error


class Tower(Protocol):
    """An open tower."""

    @property
    def info(self) -> TowerDescription:
        """What it says of itself."""

    @property
    def dim(self) -> int:
        """Length of its vectors."""


T = TypeVar("T", bound=Tower)


def find_tower(
    kind: Kind, open_tower: Callable[[Path, Verify], T], fingerprint: str, dim: int, inside: Path | None
) -> T | None:
    """Return a tower of an encoder: that inside a version of an index, else that in the user's cache.

    Args:
        kind: Which of the two.
        open_tower: Opens the one in a folder.
        fingerprint: That of the encoder.
        dim: Length of the vectors that it must give.
        inside: The folder of a tower that was checked against its checksums already; None for none.

    Raises:
        TowerError: There is one, and it is damaged or of another encoder.
    """
    cached = cache_folder(kind, fingerprint) if _FINGERPRINT.fullmatch(fingerprint) else None
    for folder in (inside, cached):
        if folder is None or not (folder / TOWER_DESCRIPTION).exists():
            continue
        tower = open_tower(folder, "size" if folder == inside else "full")
        if (tower.info.fingerprint, tower.dim) != (fingerprint, dim):
            raise TowerError(
                f"the {kind} tower in {folder} is that of {tower.info.spec!r} (fingerprint {tower.info.fingerprint}, "
                f"{tower.dim} values) and not that of the encoder {fingerprint} ({dim} values); {REMEDY}"
            )
        return tower
    return None


Find = Callable[[str, int, Path | None], Tower | None]
"""From a fingerprint, the length of its vectors and a tower in an index to the tower that `find_tower` finds."""


def copy_tower(kind: Kind, find: Find, fingerprint: str, dim: int, folder: Path, inside: Path | None = None) -> bool:
    """Copy a tower of an encoder to a new folder, from where it is found; return whether there was one.

    Raises:
        StorageError: The disk refuses.
    """
    tower = None
    with suppress(TowerError):
        tower = find(fingerprint, dim, inside)
    if tower is None:
        return False
    whole = inside if inside is not None and (inside / TOWER_DESCRIPTION).exists() else cache_folder(kind, fingerprint)
    with atomic.explained(f"write the {kind} tower to", folder):
        shutil.copytree(whole, folder)
    return True


def cache_folder(kind: Kind, fingerprint: str) -> Path:
    """Return where the user's cache keeps a tower of an encoder, whether or not it is there.

    Raises:
        TowerError: The fingerprint is none.
    """
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise TowerError(f"{fingerprint[:80]!r} is no fingerprint of an encoder, which has 64 hexadecimal digits")
    try:
        return user_cache() / f"{kind}-towers" / fingerprint
    except RuntimeError as error:
        raise TowerError(f"there is no cache for towers: {error}; set TWINLENS_CACHE to a folder") from error


def refusal_file(kind: Kind, fingerprint: str) -> Path:
    """Return the file that remembers why a tower of an encoder was not exported, whether or not it is there."""
    return cache_folder(kind, fingerprint).with_suffix(".refused")


def was_refused(kind: Kind, fingerprint: str) -> bool:
    """Return whether a tower of an encoder could not be exported, so that trying again is of no use."""
    return not _FINGERPRINT.fullmatch(fingerprint) or refusal_file(kind, fingerprint).is_file()


def mapped_weights(folder: Path) -> dict[str, Rows]:
    """Return the float32 tensors of `weights.safetensors`, mapped: what no query needs is never read.

    Raises:
        TowerError: It is not a file of float32 tensors that lie within it.
    """
    path = folder / TOWER_WEIGHTS
    with open_regular(folder, TOWER_WEIGHTS) as file:
        data = np.memmap(file, dtype=np.uint8, mode="r")
        length = int(data[:8].view("<u8")[0]) if len(data) >= 8 else 0
        if not 0 < length <= min(_MAX_HEADER, len(data) - 8):
            raise TowerError(f"{path} is no safetensors file; {REMEDY}")
        try:
            header = json.loads(bytes(data[8 : 8 + length]))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            return {name: _tensor(data[8 + length :], entry) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TowerError(f"{path} is damaged ({error}); {REMEDY}") from error


def _tensor(data: NDArray[np.uint8], entry: Mapping[str, Any]) -> Rows:
    start, stop = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if entry["dtype"] != "F32" or not 0 <= start <= stop <= len(data) or start % 4:
        raise ValueError(f"a tensor of {entry['dtype']} from byte {start} to {stop}")
    tensor: Rows = np.asarray(data[start:stop]).view(np.float32).reshape(shape)
    return tensor
