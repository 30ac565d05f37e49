"""Texts to token ids, and which tokens make one word."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from encoders.errors import EncoderError

VOCABULARY_FILE = "vocabulary.json"
_WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
_PAD, _UNKNOWN, _START, _END, _MASK = "<pad>", "<unk>", "<start>", "<end>", "<mask>"
_SPECIAL = (_PAD, _UNKNOWN, _START, _END, _MASK)


@dataclass(frozen=True)
class Tokens:
    """One text.

    Attributes:
        ids: The first and the last are the marks of beginning and end.
        words: For each token the number of its word, -1 for the marks.
    """

    ids: tuple[int, ...]
    words: tuple[int, ...]


class Tokenizer(Protocol):
    """Texts to tokens.

    Attributes:
        pad: Id of padding.
        mask: Id of a hidden word.
        size: Ids in all.
    """

    pad: int
    mask: int
    size: int

    @property
    def ordinary(self) -> Sequence[int]:
        """Ids that may stand for a word."""

    def __call__(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, cut to the length that the tower takes."""

    def save(self, folder: Path) -> None:
        """Write what `load_vocabulary` or transformers reads again."""


class BertTokens:
    """A fast tokenizer of transformers with the marks of BERT; not safe from two threads at once."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        if (
            not getattr(tokenizer, "is_fast", False)
            or tokenizer.mask_token_id is None
            or tokenizer.pad_token_id is None
        ):
            raise EncoderError(
                f"the text encoder's tokenizer is a {type(tokenizer).__name__} without a fast form, padding or a mask "
                "token; give the folder or hub name of a BERT"
            )
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self.pad, self.mask, self.size = tokenizer.pad_token_id, tokenizer.mask_token_id, len(tokenizer)
        special = set(tokenizer.all_special_ids)
        # Sorted, since the vocabulary comes in another order each time that the tokenizer is loaded.
        self._ordinary = sorted(
            number
            for word, number in tokenizer.get_vocab().items()
            if number not in special and not word.startswith("[unused")
        )

    @property
    def ordinary(self) -> Sequence[int]:
        """Ids that may stand for a word."""
        return self._ordinary

    def __call__(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text."""
        encoded = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens, padding=False)
        return [
            Tokens(tuple(ids), tuple(-1 if word is None else word for word in encoded.word_ids(row)))
            for row, ids in enumerate(encoded["input_ids"])
        ]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's own files."""
        self._tokenizer.save_pretrained(folder)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Words and word pieces with their ids."""
        words: dict[str, int] = self._tokenizer.get_vocab()
        return words


class WordTokens:
    """Lower-case words of a vocabulary, each one token; for the recurrent network."""

    def __init__(self, words: Sequence[str], max_tokens: int) -> None:
        self.vocabulary = {word: number for number, word in enumerate((*_SPECIAL, *words))}
        self._max_tokens = max_tokens
        self.pad, self.mask, self.size = 0, self.vocabulary[_MASK], len(self.vocabulary)

    @property
    def ordinary(self) -> Sequence[int]:
        """Ids that may stand for a word."""
        return range(len(_SPECIAL), self.size)

    @classmethod
    def of(cls, texts: Iterable[str], max_tokens: int, at_least: int = 2) -> WordTokens:
        """Return the vocabulary of words that come at least so many times, the most frequent first."""
        counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))
        kept = sorted(
            (word for word, count in counts.items() if count >= at_least), key=lambda word: (-counts[word], word)
        )
        return cls(kept, max_tokens)

    def __call__(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text."""
        return [self._one(text) for text in texts]

    def save(self, folder: Path) -> None:
        """Write the words in the order of their ids."""
        words = list(self.vocabulary)[len(_SPECIAL) :]
        (folder / VOCABULARY_FILE).write_text(json.dumps(words, ensure_ascii=False) + "\n", encoding="utf-8")

    def _one(self, text: str) -> Tokens:
        known = self.vocabulary
        words = _WORD.findall(text.lower())[: self._max_tokens - 2]
        ids = (known[_START], *(known.get(word, known[_UNKNOWN]) for word in words), known[_END])
        return Tokens(ids, (-1, *range(len(words)), -1))


def load_vocabulary(folder: Path, max_tokens: int) -> WordTokens:
    """Return the words that `WordTokens.save` wrote.

    Raises:
        OSError, ValueError: The file is missing or damaged.
    """
    words = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
    if not isinstance(words, list):
        raise ValueError(f"{VOCABULARY_FILE} is no list of words")
    return WordTokens([str(word) for word in words], max_tokens)


def padded_ids(ids: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (n, longest) int64 ids and the mask of those that are no padding."""
    lengths = np.array([len(one) for one in ids])
    mask = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
    table = np.full(mask.shape, pad, dtype=np.int64)
    table[mask] = [number for one in ids for number in one]
    return torch.from_numpy(table), torch.from_numpy(mask)


def padded_rows(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (n, longest, dim) float32 for arrays of (length, dim), zeros behind each, and the mask."""
    lengths = np.array([len(one) for one in rows])
    mask = np.arange(int(lengths.max())) < lengths[:, None]
    table = np.zeros((*mask.shape, rows[0].shape[1]), dtype=np.float32)
    table[mask] = np.concatenate(rows)
    return torch.from_numpy(table), torch.from_numpy(mask)
