"""Texts to token ids without torch: the cleaning of open_clip, its byte-pair tokenizer, and those of Hugging Face."""

from __future__ import annotations

import html
import json
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np

from ..errors import TowerError
from .transformer import Ids

Clean = Literal["lower", "whitespace", "canonicalize"]


@dataclass(frozen=True, kw_only=True)
class TokenizerInfo:
    """How the texts of a tower become token ids.

    Attributes:
        kind: `bpe`, open_clip's own tokenizer, or `tokenizers`, a `tokenizer.json` of Hugging Face.
        clean: What is done to a text first, by open_clip's names.
        context_length: Tokens at most; the rest of a text is cut.
        fill: The id that fills texts up to `context_length`, for models in which padding takes part; None for none.
        zeroed: An id that is replaced by 0; None for none.
    """

    kind: Literal["bpe", "tokenizers"]
    clean: Clean
    context_length: int
    fill: int | None = None
    zeroed: int | None = None


class Tokenizer(Protocol):
    """Cleaned texts to token ids, cut to the context length."""

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""


class TextTokenizer:
    """The tokenizer of a text tower: texts to token ids, as many as there are, or filled up. Not for many threads."""

    def __init__(self, info: TokenizerInfo, data: bytes) -> None:
        """Make the tokenizer from the bytes of its file: merges, or a `tokenizer.json`.

        Raises:
            TowerError: The bytes are neither, or the package that reads them is not installed.
        """
        self._info = info
        self._clean = CLEANERS[info.clean]
        made = BytePairTokenizer.of_file if info.kind == "bpe" else _hugging_face
        self._tokenizer: Tokenizer = made(data, info.context_length)

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return the token ids of each text."""
        return [self._finished(ids) for ids in self._tokenizer([self._clean(text) for text in texts])]

    def _finished(self, ids: list[int]) -> Ids:
        info = self._info
        if info.fill is not None:
            ids = ids + [info.fill] * (info.context_length - len(ids))
        array = np.array(ids, dtype=np.int64)
        if info.zeroed is not None:
            array[array == info.zeroed] = 0
        return array


def _repaired(text: str) -> str:
    """Return open_clip's `basic_clean` of a text: mojibake repaired, HTML entities replaced."""
    # Nothing in such a text is changed by either; this saves the import of ftfy for most queries.
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.strip()
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _single_spaced(text: str) -> str:
    return " ".join(_repaired(text).split())


def _canonical(text: str) -> str:
    bare = _repaired(text).replace("_", " ").translate(_NO_PUNCTUATION).lower()
    return " ".join(bare.split())


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
CLEANERS: dict[Clean, Callable[[str], str]] = {
    "lower": lambda text: _single_spaced(text).lower(),
    "whitespace": _single_spaced,
    "canonicalize": _canonical,
}


def _byte_symbols() -> list[str]:
    """Return a printable character for each byte, which the vocabulary of GPT-2 and CLIP is written in."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_SYMBOLS = _byte_symbols()
# The order in which the vocabulary lists them: printable bytes first.
_BASE = sorted(_SYMBOLS)
_START, _END = "<start_of_text>", "<end_of_text>"
_END_OF_WORD = "</w>"
_CONTRACTIONS = rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d"
# Of a text in ASCII. Any other needs the classes of Unicode, which the package `regex` has and `re` has not.
_ASCII_WORDS = re.compile(rf"{_CONTRACTIONS}|[a-z]+|[0-9]|[^\sa-z0-9]+", re.IGNORECASE | re.ASCII)


@cache
def _unicode_words() -> Any:
    import regex

    return regex.compile(rf"{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE)


class BytePairTokenizer:
    """The byte-pair tokenizer of CLIP (Sennrich et al. 2016; Radford et al. 2021), with the ids of open_clip's own."""

    def __init__(self, merges: Sequence[str], context_length: int) -> None:
        """Use merges, each two symbols and a space between, the first learned first."""
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        vocabulary = [*_BASE, *(symbol + _END_OF_WORD for symbol in _BASE), *(m.replace(" ", "") for m in merges)]
        self._ids = {symbol: number for number, symbol in enumerate([*vocabulary, _START, _END])}
        self._length = context_length
        self._start, self._end = self._ids[_START], self._ids[_END]
        self._of_word = lru_cache(maxsize=10_000)(self._word_ids)

    @classmethod
    def of_file(cls, data: bytes, context_length: int) -> BytePairTokenizer:
        """Return the tokenizer of a file that holds the merges as a JSON list.

        Raises:
            TowerError: It holds anything else.
        """
        try:
            merges = json.loads(data)
        except ValueError as error:
            raise TowerError(f"the tokenizer of the text tower cannot be read: {error}") from error
        if not isinstance(merges, list) or not all(isinstance(one, str) and one.count(" ") == 1 for one in merges):
            raise TowerError("the tokenizer of the text tower is no list of merges of two symbols each")
        return cls(merges, context_length)

    @property
    def vocabulary(self) -> dict[str, int]:
        """The id of each symbol."""
        return self._ids

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, start and end included."""
        return [self._text_ids(text) for text in texts]

    def _text_ids(self, text: str) -> list[int]:
        words = _ASCII_WORDS if text.isascii() else _unicode_words()
        ids = [self._start]
        for match in words.finditer(text):
            ids += self._of_word(match[0])
            if len(ids) >= self._length:
                break
        return [*ids[: self._length - 1], self._end]

    def _word_ids(self, word: str) -> tuple[int, ...]:
        if word in (_START, _END):
            return (self._ids[word],)
        symbols = [_SYMBOLS[byte] for byte in word.encode("utf-8", "surrogatepass")]
        symbols[-1] += _END_OF_WORD
        while len(symbols) > 1:
            pairs = [f"{first} {second}" for first, second in pairwise(symbols)]
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            symbols = _merged(symbols, best)
        return tuple(self._ids[symbol] for symbol in symbols)


def _merged(symbols: list[str], pair: str) -> list[str]:
    """Return the symbols with every occurrence of a pair, from the left, made one."""
    first, _, second = pair.partition(" ")
    merged: list[str] = []
    position = 0
    while position < len(symbols):
        if symbols[position : position + 2] == [first, second]:
            merged.append(first + second)
            position += 2
        else:
            merged.append(symbols[position])
            position += 1
    return merged


def _hugging_face(data: bytes, context_length: int) -> Tokenizer:
    try:
        from tokenizers import Tokenizer as FastTokenizer
    except ImportError as error:
        raise TowerError(f"this text tower needs the package 'tokenizers': {error}") from error
    try:
        made: Any = FastTokenizer.from_str(data.decode("utf-8"))
    except Exception as error:
        raise TowerError(f"the tokenizer of the text tower cannot be read: {error}") from error
    made.enable_truncation(context_length)
    made.no_padding()
    return lambda texts: [one.ids for one in made.encode_batch(list(texts))]
