"""A text tower on disk: its files, where they are kept, and opening one for the fingerprint of an encoder.

The tower of a fingerprint lies in the user's cache, below `text-towers`, or in a version of an index that was built
with `--portable`. Either way its files are checked against their checksums before anything parses them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import StorageError
from storage.files.atomic import explained
from storage.files.canonical_json import build, canonical, parse, to_plain
from storage.files.layout import TOWER_FILES, FileEntry, Verify, check, open_regular, sha256_of
from storage.files.user_cache import user_cache

from ..errors import TextTowerError
from .tokenize import TextTokenizer, TokenizerInfo
from .transformer import Architecture, Rows, TextTransformer

DESCRIPTION, WEIGHTS, TOKENIZER = TOWER_FILES
_FORMAT = 1
_MAX_DESCRIPTION = 1 << 16
_MAX_HEADER = 1 << 20
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CHECKSUM = "checksum"


@dataclass(frozen=True, kw_only=True)
class TowerInfo:
    """What a text tower says of itself, in its `tower.json`.

    Attributes:
        fingerprint: That of the encoder whose texts it encodes.
        spec: The encoder, for messages.
        architecture: What is computed.
        tokenizer: How texts become token ids.
        lowest_cosine: The lowest to the encoder's own vectors, over the texts that it was compared on.
        files: Size and SHA-256 of its other files.
        format: Version of these files.
    """

    fingerprint: str
    spec: str
    architecture: Architecture
    tokenizer: TokenizerInfo
    lowest_cosine: float
    files: Mapping[str, FileEntry]
    format: int = _FORMAT

    def to_json(self) -> bytes:
        """Return the bytes of `tower.json`, with a checksum over all the rest in it."""
        plain = to_plain(self)
        return canonical({**plain, _CHECKSUM: sha256_of(canonical(plain))})

    @classmethod
    def from_json(cls, data: bytes, path: Path) -> TowerInfo:
        """Parse the bytes of `tower.json`.

        Raises:
            TextTowerError: They are not what `to_json` writes.
        """
        try:
            plain = parse(data)
            if not isinstance(plain, dict) or plain.get("format") != _FORMAT:
                raise ValueError(f"it is not of format {_FORMAT}")
            if plain.pop(_CHECKSUM, None) != sha256_of(canonical(plain)):
                raise ValueError("its own checksum does not fit")
            info: TowerInfo = build(cls, plain, "tower")
        except (ValueError, RecursionError) as error:
            raise TextTowerError(f"{path} is damaged ({error}); {REMEDY}") from error
        return info


REMEDY = "export it again with `twinlens encoders export SPEC`"


class TextTower:
    """A text tower that is open: texts to unit vectors, by NumPy alone. Not for many threads at once.

    Attributes:
        info: What it says of itself.
        dim: Length of its vectors.
    """

    def __init__(self, info: TowerInfo, transformer: TextTransformer, tokenizer: TextTokenizer) -> None:
        self.info = info
        self.dim = info.architecture.dim
        self._transformer = transformer
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, folder: Path, verify: Verify = "full") -> TextTower:
        """Open the tower in a folder, its weights mapped and not read.

        Raises:
            TextTowerError: A file is missing or damaged.
        """
        try:
            info = read_info(folder)
            for name in (WEIGHTS, TOKENIZER):
                check(folder, name, info.files[name], verify)
            with open_regular(folder, TOKENIZER) as file:
                tokenizer = TextTokenizer(info.tokenizer, file.read())
            weights = mapped_weights(folder)
            return cls(info, TextTransformer(info.architecture, weights), tokenizer)
        except StorageError as error:
            raise TextTowerError(f"the text tower in {folder} cannot be used: {error}") from error

    def token_ids(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the token ids of each text."""
        return self._tokenizer(texts)

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Return (n, dim) float32 unit rows for texts, in the order given; texts too long for the model are truncated.

        Raises:
            TextTowerError: A vector is not finite.
        """
        vectors = self._transformer.encode(self._tokenizer(texts))
        if not np.isfinite(vectors).all():
            raise TextTowerError(f"the text tower of {self.info.spec!r} gave values that are not finite; {REMEDY}")
        return vectors


def read_info(folder: Path) -> TowerInfo:
    """Return what the tower in a folder says of itself.

    Raises:
        TextTowerError: It is damaged.
        CorruptIndexError: It is missing.
    """
    with open_regular(folder, DESCRIPTION) as file:
        info = TowerInfo.from_json(file.read(_MAX_DESCRIPTION), folder / DESCRIPTION)
    if set(info.files) != {WEIGHTS, TOKENIZER}:
        raise TextTowerError(f"{folder / DESCRIPTION} names the files {sorted(info.files)}; {REMEDY}")
    return info


def cache_folder(fingerprint: str) -> Path:
    """Return where the user's cache keeps the text tower of an encoder, whether or not it is there.

    Raises:
        TextTowerError: The fingerprint is none.
    """
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise TextTowerError(f"{fingerprint[:80]!r} is no fingerprint of an encoder, which has 64 hexadecimal digits")
    try:
        return user_cache() / "text-towers" / fingerprint
    except RuntimeError as error:
        raise TextTowerError(f"there is no cache for text towers: {error}; set TWINLENS_CACHE to a folder") from error


def refusal_file(fingerprint: str) -> Path:
    """Return the file that remembers why the text tower of an encoder was not exported, whether or not it is there."""
    return cache_folder(fingerprint).with_suffix(".refused")


def was_refused(fingerprint: str) -> bool:
    """Return whether the text tower of an encoder could not be exported, so that trying again is of no use."""
    return not _FINGERPRINT.fullmatch(fingerprint) or refusal_file(fingerprint).is_file()


def find_text_tower(fingerprint: str, dim: int, inside: Path | None = None) -> TextTower | None:
    """Return the text tower of an encoder: that inside a version of an index, else that in the user's cache.

    Args:
        fingerprint: That of the encoder.
        dim: Length of the vectors that it must give.
        inside: The folder of a tower that was checked against its checksums already; None for none.

    Raises:
        TextTowerError: There is one, and it is damaged or of another encoder.
    """
    cached = cache_folder(fingerprint) if _FINGERPRINT.fullmatch(fingerprint) else None
    for folder in (inside, cached):
        if folder is None or not (folder / DESCRIPTION).exists():
            continue
        tower = TextTower.open(folder, "size" if folder == inside else "full")
        if (tower.info.fingerprint, tower.dim) != (fingerprint, dim):
            raise TextTowerError(
                f"the text tower in {folder} is that of {tower.info.spec!r} (fingerprint {tower.info.fingerprint}, "
                f"{tower.dim} values) and not that of the encoder {fingerprint} ({dim} values); {REMEDY}"
            )
        return tower
    return None


def copy_text_tower(fingerprint: str, dim: int, folder: Path, inside: Path | None = None) -> bool:
    """Copy the text tower of an encoder to a new folder, if one is found as `find_text_tower` finds it.

    Raises:
        StorageError: The disk refuses.
    """
    found = None
    with suppress(TextTowerError):
        found = find_text_tower(fingerprint, dim, inside)
    if found is None:
        return False
    whole = inside if inside is not None and (inside / DESCRIPTION).exists() else cache_folder(fingerprint)
    with explained("write the text tower to", folder):
        shutil.copytree(whole, folder)
    return True


def mapped_weights(folder: Path) -> dict[str, Rows]:
    """Return the float32 tensors of `weights.safetensors`, mapped: what no text needs is never read.

    Raises:
        TextTowerError: It is not a file of float32 tensors that lie within it.
    """
    path = folder / WEIGHTS
    with open_regular(folder, WEIGHTS) as file:
        data = np.memmap(file, dtype=np.uint8, mode="r")
        length = int(data[:8].view("<u8")[0]) if len(data) >= 8 else 0
        if not 0 < length <= min(_MAX_HEADER, len(data) - 8):
            raise TextTowerError(f"{path} is no safetensors file; {REMEDY}")
        try:
            header = json.loads(bytes(data[8 : 8 + length]))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            return {name: _tensor(data[8 + length :], entry) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TextTowerError(f"{path} is damaged ({error}); {REMEDY}") from error


def _tensor(data: NDArray[np.uint8], entry: Mapping[str, Any]) -> Rows:
    start, stop = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if entry["dtype"] != "F32" or not 0 <= start <= stop <= len(data) or start % 4:
        raise ValueError(f"a tensor of {entry['dtype']} from byte {start} to {stop}")
    tensor: Rows = np.asarray(data[start:stop]).view(np.float32).reshape(shape)
    return tensor
