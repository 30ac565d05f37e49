"""Batches: a picture's regions and a caption each, augmented, read ahead, the same for the same seed and step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.regions.batch import padded_ids, padded_rows
from encoders.regions.precomp import RegionSplit
from encoders.regions.tokens import Tokenizer, Tokens

from .augment import altered, kept_regions, kept_words
from .config import HremConfig
from .states import TokenStates


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step sees.

    Attributes:
        regions: (n, m, region_dim) float32 with its mask.
        region_mask: (n, m).
        words: (n, l) token ids, or (n, l, word_dim) states, with its mask.
        word_mask: (n, l).
        owners: (n,) the picture of each pair.
    """

    regions: torch.Tensor
    region_mask: torch.Tensor
    words: torch.Tensor
    word_mask: torch.Tensor
    owners: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Where batches come from.

    Attributes:
        split: Regions and captions.
        tokens: Of each caption.
        tokenizer: That made them.
        states: Of a frozen transformer; None where it is trained.
        config: Of the run.
    """

    split: RegionSplit
    tokens: list[Tokens]
    tokenizer: Tokenizer
    states: TokenStates | None
    config: HremConfig

    @property
    def batch_size(self) -> int:
        """Captions a step: no more than there are."""
        return min(self.config.batch_size, len(self.tokens))

    @property
    def steps(self) -> int:
        """Steps an epoch; what does not fill a batch waits for another epoch."""
        return len(self.tokens) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on, some of them read ahead."""
        rng = np.random.default_rng((self.config.seed, epoch))
        order = rng.permutation(len(self.tokens))
        held: deque[Future[Batch]] = deque()
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

    def batch(self, rows: NDArray[np.int64], seed: tuple[int, int, int]) -> Batch:
        """Return some captions with their pictures, augmented."""
        rng = np.random.default_rng(seed)
        owners = self.split.owners[rows]
        features = self.split.regions(owners)
        kept = kept_regions(rng, features.shape[:2], self.config.region_drop)
        regions, region_mask = padded_rows([one[stays] for one, stays in zip(features, kept, strict=True)])
        words, word_mask = self._words(rows, rng)
        return Batch(
            regions=regions, region_mask=region_mask, words=words, word_mask=word_mask, owners=torch.from_numpy(owners)
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
        ids = [altered(rng, self.tokens[row], self.tokenizer, drop) for row in rows]
        return padded_ids(ids, self.tokenizer.pad)
