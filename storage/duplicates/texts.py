"""Texts that are the same but for case, punctuation and spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_BETWEEN_WORDS = re.compile(r"[\W_]+")


def normalized(text: str) -> str:
    """Return the words of a text in lower case with a space between: what two texts that say the same share.

    A text without words, such as `!`, stays as it is.
    """
    words = _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or text


def repeated(texts: Iterable[str], others: Iterable[str]) -> list[int]:
    """Return the positions of the texts that are, normalised, among the others."""
    known = {normalized(other) for other in others}
    return [position for position, text in enumerate(texts) if normalized(text) in known]
