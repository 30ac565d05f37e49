"""The text tower of an encoder, opened from disk: texts to unit vectors by NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.files.layout import TOWER_TOKENIZER, Verify, open_regular

from ..errors import TowerError
from ..tower_files import REMEDY, TowerDescription, explained, find_tower, mapped_weights
from .tokenize import TextTokenizer, TokenizerInfo
from .transformer import Architecture, Rows, TextTransformer


@dataclass(frozen=True, kw_only=True)
class TextTowerInfo(TowerDescription):
    """What a text tower says of itself.

    Attributes:
        architecture: What is computed.
        tokenizer: How texts become token ids.
    """

    architecture: Architecture
    tokenizer: TokenizerInfo


class TextTower:
    """A text tower that is open: texts to unit vectors, by NumPy alone. Not for many threads at once.

    Attributes:
        info: What it says of itself.
        dim: Length of its vectors.
    """

    def __init__(self, info: TextTowerInfo, transformer: TextTransformer, tokenizer: TextTokenizer) -> None:
        self.info = info
        self.dim = info.architecture.dim
        self._transformer = transformer
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, folder: Path, verify: Verify = "full") -> TextTower:
        """Open the tower in a folder, its weights mapped and not read.

        Raises:
            TowerError: A file is missing or damaged.
        """
        with explained("text", folder):
            info = TextTowerInfo.read(folder, "text", verify)
            with open_regular(folder, TOWER_TOKENIZER) as file:
                tokenizer = TextTokenizer(info.tokenizer, file.read())
            return cls(info, TextTransformer(info.architecture, mapped_weights(folder)), tokenizer)

    def token_ids(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the token ids of each text."""
        return self._tokenizer(texts)

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Return (n, dim) float32 unit rows for texts, in the order given; texts too long for the model are truncated.

        Raises:
            TowerError: A vector is not finite.
        """
        vectors = self._transformer.encode(self._tokenizer(texts))
        if not np.isfinite(vectors).all():
            raise TowerError(f"the text tower of {self.info.spec!r} gave values that are not finite; {REMEDY}")
        return vectors


def find_text_tower(fingerprint: str, dim: int, inside: Path | None = None) -> TextTower | None:
    """Return the text tower of an encoder: that inside a version of an index, else that in the user's cache.

    Args:
        fingerprint: That of the encoder.
        dim: Length of the vectors that it must give.
        inside: The folder of a tower that was checked against its checksums already; None for none.

    Raises:
        TowerError: There is one, and it is damaged or of another encoder.
    """
    return find_tower("text", TextTower.open, fingerprint, dim, inside)
