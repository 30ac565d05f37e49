"""Batches of HREM: the regions of an image and a caption each, augmented and read ahead.

Three subjects in this order: augmentation of regions and words; states of captions under a frozen transformer, computed
once and kept on disk; batches. A batch depends on the seed and its step alone.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from encoders.device import Placement
from storage.files import atomic

from .config import HremConfig
from .towers.region_features import RegionSplit
from .towers.region_towers import BertStates, Padding
from .towers.tokens import Tokenizer, Tokens, padded_ids, padded_rows

# Shares of the words touched that are hidden, and exchanged for a random one; the others are left out.
HIDDEN, EXCHANGED = 0.5, 0.1
# Captions in one forward pass of a frozen transformer.
STATES_BATCH = {"cpu": 64, "cuda": 512}
Mask = NDArray[np.bool_]
Advance = Callable[[int, int], None]
"""Told how many captions are done, of how many."""


def kept_regions(rng: np.random.Generator, shape: tuple[int, int], drop: float) -> Mask:
    """Return (n, regions) which regions stay; each goes with probability `drop`, but one of an image stays."""
    kept: Mask = rng.random(shape) >= drop
    empty = np.flatnonzero(~kept.any(1))
    kept[empty, rng.integers(shape[1], size=len(empty))] = True
    return kept


def augmented_ids(rng: np.random.Generator, tokens: Tokens, tokenizer: Tokenizer, drop: float) -> tuple[int, ...]:
    """Return the ids of a caption with each word touched with probability `drop`, all its pieces alike.

    Half of these words are hidden, a tenth become random ids, the others go; the marks at both ends stay.
    """
    fates = rng.random(_words(tokens)) / drop if drop else np.ones(_words(tokens))
    ids: list[int] = []
    for number, word in zip(tokens.ids, tokens.words, strict=True):
        fate = 1.0 if word < 0 else fates[word]
        if fate >= 1:
            ids.append(number)
        elif fate < HIDDEN:
            ids.append(tokenizer.mask)
        elif fate < HIDDEN + EXCHANGED:
            ids.append(tokenizer.ordinary[int(rng.integers(len(tokenizer.ordinary)))])
    return tuple(ids)


def kept_words(rng: np.random.Generator, tokens: Tokens, drop: float) -> Mask:
    """Return which tokens stay where states are ready-made: words go with probability `drop`, the marks stay."""
    stays = rng.random(_words(tokens)) >= drop
    return np.array([word < 0 or stays[word] for word in tokens.words])


def _words(tokens: Tokens) -> int:
    return max(tokens.words, default=-1) + 1


def lengths(tokens: Sequence[Tokens]) -> NDArray[np.int64]:
    """Return how many tokens each caption has."""
    return np.array([len(one.ids) for one in tokens], dtype=np.int64)


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
    words: BertStates, tokens: Sequence[Tokens], pad: int, placement: Placement, folder: Path, advance: Advance
) -> TokenStates:
    """Return the states of captions, from the folder where they lie there already.

    Raises:
        StorageError: The folder cannot be written.
    """
    counts = lengths(tokens)
    path = folder / f"states-{_key(words, tokens)}.npy"
    if not path.is_file():
        flat = _computed(words, tokens, pad, placement, advance)
        with atomic.explained("keep token states in", folder):
            atomic.make_folder(folder)
            partial = path.with_name(f".{path.name}.partial")
            with partial.open("wb") as file:
                np.save(file, flat)
            partial.replace(path)
    return TokenStates(np.load(path, allow_pickle=False), counts)


def _computed(
    words: BertStates, tokens: Sequence[Tokens], pad: int, placement: Placement, advance: Advance
) -> NDArray[np.float16]:
    counts = lengths(tokens)
    starts = np.cumsum(counts) - counts
    dim = int(words.bert.config.hidden_size)
    flat = np.empty((int(counts.sum()), dim), dtype=np.float16)
    order = np.argsort(counts, kind="stable")
    size = STATES_BATCH[placement.kind]
    words.bert.to(placement.device).eval()
    for begin in range(0, len(order), size):
        part = order[begin : begin + size]
        ids, mask = padded_ids([tokens[row].ids for row in part], pad)
        with torch.inference_mode():
            states = words.states(ids.to(placement.device), mask.to(placement.device)).cpu().numpy()
        for row, state in zip(part, states, strict=True):
            flat[starts[row] : starts[row] + counts[row]] = state[: counts[row]]
        advance(min(begin + size, len(order)), len(order))
    return flat


def _key(words: BertStates, tokens: Sequence[Tokens]) -> str:
    digest = hashlib.sha256(save({name: value.cpu().contiguous() for name, value in words.bert.state_dict().items()}))
    for one in tokens:
        digest.update(np.array([len(one.ids), *one.ids], dtype=np.int64).tobytes())
    return digest.hexdigest()[:24]


@dataclass(frozen=True)
class Matches:
    """Which rows and columns of a batch belong together, found on the CPU: to ask a GPU how many do would wait for it.

    Attributes:
        same: (n, n) bool, symmetric.
        rows: The row of each match, in the order of `nonzero`.
        columns: Its column.
    """

    same: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def of(cls, same: torch.Tensor) -> Matches:
        """Return the matches of a matrix that is on the CPU."""
        return cls(same, *same.nonzero(as_tuple=True))

    def through(self, moved: Callable[[torch.Tensor], torch.Tensor]) -> Matches:
        """Return the same moved: pinned, or sent to the device."""
        return Matches(moved(self.same), moved(self.rows), moved(self.columns))


@dataclass(frozen=True, kw_only=True)
class RegionBatch:
    """What a step sees: everything that it needs is found, and pinned for a GPU, by the thread that makes the batch.

    Attributes:
        regions: (n, m, region_dim) float32 with its mask.
        region_mask: (n, m).
        region_padding: Where their padding lies.
        words: (n, l) token ids, or (n, l, word_dim) states, with its mask.
        word_mask: (n, l).
        word_padding: Where their padding lies.
        matches: Which of the pairs are of one image.
    """

    regions: torch.Tensor
    region_mask: torch.Tensor
    region_padding: Padding
    words: torch.Tensor
    word_mask: torch.Tensor
    word_padding: Padding
    matches: Matches


@dataclass(frozen=True, kw_only=True)
class RegionBatches:
    """Where batches come from.

    Attributes:
        split: Regions and captions.
        tokens: Of each caption.
        tokenizer: That made them.
        states: Of a frozen transformer; None where it is trained.
        config: Of the run.
        pin: Puts a tensor where it is copied to the device from; the threads that make batches call it.
    """

    split: RegionSplit
    tokens: list[Tokens]
    tokenizer: Tokenizer
    states: TokenStates | None
    config: HremConfig
    pin: Callable[[torch.Tensor], torch.Tensor]

    @property
    def batch_size(self) -> int:
        """Captions a step: no more than there are."""
        return min(self.config.batch_size, len(self.tokens))

    @property
    def steps(self) -> int:
        """Steps an epoch; what does not fill a batch waits for another epoch."""
        return len(self.tokens) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[RegionBatch]:
        """Yield the batches of an epoch from a step on, some of them read ahead."""
        rng = np.random.default_rng((self.config.seed, epoch))
        order = rng.permutation(len(self.tokens))
        held: deque[Future[RegionBatch]] = deque()
        with ThreadPoolExecutor(self.config.workers) as pool:
            try:
                for step in range(start, self.steps):
                    rows = order[step * self.batch_size : (step + 1) * self.batch_size]
                    held.append(pool.submit(self.batch, rows, (self.config.seed, epoch, step)))
                    if len(held) > self.config.workers:
                        yield held.popleft().result()
                while held:
                    yield held.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, rows: NDArray[np.int64], seed: tuple[int, int, int]) -> RegionBatch:
        """Return some captions with their images, augmented."""
        rng = np.random.default_rng(seed)
        owners = self.split.owners[rows]
        features = self.split.regions(owners)
        kept = kept_regions(rng, features.shape[:2], self.config.region_drop)
        regions, region_mask = padded_rows([one[stays] for one, stays in zip(features, kept, strict=True)])
        words, word_mask = self._words(rows, rng)
        return RegionBatch(
            regions=self.pin(regions),
            region_mask=self.pin(region_mask),
            region_padding=Padding.of(region_mask).through(self.pin),
            words=self.pin(words),
            word_mask=self.pin(word_mask),
            word_padding=Padding.of(word_mask).through(self.pin),
            matches=Matches.of(torch.from_numpy(owners[:, None] == owners)).through(self.pin),
        )

    def plain_words(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return captions as they are, for measuring."""
        if self.states is not None:
            return padded_rows([self.states[int(row)] for row in rows])
        return padded_ids([self.tokens[row].ids for row in rows], self.tokenizer.pad)

    def _words(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        drop = self.config.word_drop
        if self.states is not None:
            return padded_rows([self.states[int(row)][kept_words(rng, self.tokens[row], drop)] for row in rows])
        ids = [augmented_ids(rng, self.tokens[row], self.tokenizer, drop) for row in rows]
        return padded_ids(ids, self.tokenizer.pad)
