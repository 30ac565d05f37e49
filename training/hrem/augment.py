"""What a training step does not get to see: regions and words left out at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoders.regions.tokens import Tokenizer, Tokens

# Of the words that are touched: hidden, exchanged for a random one, and left out are the rest.
HIDDEN, EXCHANGED = 0.5, 0.1
Mask = NDArray[np.bool_]


def kept_regions(rng: np.random.Generator, shape: tuple[int, int], drop: float) -> Mask:
    """Return (n, regions) which regions stay; each goes with probability `drop`, but one of a picture stays."""
    kept: Mask = rng.random(shape) >= drop
    empty = np.flatnonzero(~kept.any(1))
    kept[empty, rng.integers(shape[1], size=len(empty))] = True
    return kept


def altered(rng: np.random.Generator, tokens: Tokens, tokenizer: Tokenizer, drop: float) -> tuple[int, ...]:
    """Return the ids of a caption with each word touched with probability `drop`, all its pieces alike.

    Half of these words are hidden, a tenth become random ids, the others go; the marks at both ends stay.
    """
    fates = rng.random(_words(tokens)) / drop if drop else np.ones(_words(tokens))
    found = []
    for number, word in zip(tokens.ids, tokens.words, strict=True):
        fate = 1.0 if word < 0 else fates[word]
        if fate >= 1:
            found.append(number)
        elif fate < HIDDEN:
            found.append(tokenizer.mask)
        elif fate < HIDDEN + EXCHANGED:
            found.append(tokenizer.ordinary[int(rng.integers(len(tokenizer.ordinary)))])
    return tuple(found)


def kept_words(rng: np.random.Generator, tokens: Tokens, drop: float) -> Mask:
    """Return which tokens stay where states are ready-made: words go with probability `drop`, the marks stay."""
    stays = rng.random(_words(tokens)) >= drop
    return np.array([word < 0 or stays[word] for word in tokens.words])


def _words(tokens: Tokens) -> int:
    return max(tokens.words, default=-1) + 1


def lengths(tokens: Sequence[Tokens]) -> NDArray[np.int64]:
    """Return how many tokens each caption has."""
    return np.array([len(one.ids) for one in tokens], dtype=np.int64)
