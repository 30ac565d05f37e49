"""The token states of a frozen transformer, computed once and kept as 16-bit floats."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from encoders.device import Placement
from encoders.regions.batch import padded_ids
from encoders.regions.text_tower import BertStates
from encoders.regions.tokens import Tokens
from storage import atomic

from .augment import lengths

BATCH = {"cpu": 64, "cuda": 512}
Told = Callable[[int, int], None]


class TokenStates:
    """States of captions, one after the other in one array."""

    def __init__(self, flat: NDArray[np.float16], counts: NDArray[np.int64]) -> None:
        self._flat = flat
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts

    def __getitem__(self, row: int) -> NDArray[np.float16]:
        """Return (tokens, word_dim) of one caption."""
        return self._flat[self._starts[row] : self._ends[row]]


def token_states(
    words: BertStates, tokens: Sequence[Tokens], pad: int, placement: Placement, folder: Path, told: Told
) -> TokenStates:
    """Return the states of captions, from the folder where they lie there already.

    Raises:
        StorageError: The folder cannot be written.
    """
    counts = lengths(tokens)
    path = folder / f"states-{_key(words, tokens)}.npy"
    if not path.is_file():
        flat = _computed(words, tokens, pad, placement, told)
        with atomic.explained("keep token states in", folder):
            atomic.make_folder(folder)
            partial = path.with_name(f".{path.name}.partial")
            with partial.open("wb") as file:
                np.save(file, flat)
            partial.replace(path)
    return TokenStates(np.load(path, allow_pickle=False), counts)


def _computed(
    words: BertStates, tokens: Sequence[Tokens], pad: int, placement: Placement, told: Told
) -> NDArray[np.float16]:
    counts = lengths(tokens)
    starts = np.cumsum(counts) - counts
    dim = int(words.bert.config.hidden_size)
    flat = np.empty((int(counts.sum()), dim), dtype=np.float16)
    order = np.argsort(counts, kind="stable")
    size = BATCH[placement.kind]
    words.bert.to(placement.device).eval()
    for begin in range(0, len(order), size):
        part = order[begin : begin + size]
        ids, mask = padded_ids([tokens[row].ids for row in part], pad)
        with torch.inference_mode():
            states = words.states(ids.to(placement.device), mask.to(placement.device)).cpu().numpy()
        for row, found in zip(part, states, strict=True):
            flat[starts[row] : starts[row] + counts[row]] = found[: counts[row]]
        told(min(begin + size, len(order)), len(order))
    return flat


def _key(words: BertStates, tokens: Sequence[Tokens]) -> str:
    digest = hashlib.sha256(save({name: value.cpu().contiguous() for name, value in words.bert.state_dict().items()}))
    for one in tokens:
        digest.update(np.array([len(one.ids), *one.ids], dtype=np.int64).tobytes())
    return digest.hexdigest()[:24]
