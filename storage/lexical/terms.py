"""Terms of a text, by which lexical search finds it: the same for what is indexed and for what is asked.

- Case, accents and the points of Hebrew and Arabic fall away: `Café` is `cafe`.
- A word is a run of letters, digits and marks. What is joined by a hyphen, underscore or apostrophe, or by a point
  between digits, gives its parts and the whole without the joint: `SKU-1234` gives `sku`, `1234` and `sku1234`, so that
  `sku1234`, `SKU_1234` and `1234` find it, and the whole, being rarer, ranks it first.
- Scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese), and Korean, whose particles grow on to words,
  give each character and each two neighbours.

There is no stemming and there are no stop words, which would be of one language: how rare a term is says its weight.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import pairwise

LONGEST_TERM = 64
_MOST_PARTS = 8

_SPACELESS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u1049\u1050-\u109f\u1780-\u17d3"
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
)
# Vowel signs of India's scripts, which Python's `\w` leaves out.
_MARKS = "\u0900-\u0963\u0966-\u0dff"
_LETTER = rf"(?:(?![{_SPACELESS}])(?:[^\W_]|[{_MARKS}]))"
_JOINT = r"(?:[-_'\u2019\u2010\u2011]|(?<=\d)\.(?=\d))"
_ASCII_RUNS = re.compile(r"[a-z0-9]+(?:(?:[-_']|(?<=\d)\.(?=\d))[a-z0-9]+)*")
_PARTS = re.compile(_JOINT)
# Of Latin, Greek and Cyrillic, and the points of Hebrew and Arabic.
_ACCENTS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Return what finds accents, runs, and a character of a script without spaces; compiled for texts that need it."""
    runs = rf"[{_SPACELESS}]+|{_LETTER}+(?:{_JOINT}{_LETTER}+)*"
    return re.compile(f"[{_ACCENTS}]"), re.compile(runs), re.compile(f"[{_SPACELESS}]")


def terms(text: str) -> list[str]:
    """Return the terms of a text in order, as often as they occur; empty for one without letters and digits."""
    if text.isascii():
        found: list[str] = []
        for run in _ASCII_RUNS.findall(text.lower()):
            found += [run[:LONGEST_TERM]] if run.isalnum() else _joined(run)
        return found
    accents, runs, spaceless = _patterns()
    plain = unicodedata.normalize("NFC", accents.sub("", unicodedata.normalize("NFKD", text).casefold()))
    found = []
    for run in runs.findall(plain):
        if spaceless.match(run):
            found += [*run, *map("".join, pairwise(run))]
        else:
            found += _joined(run)
    return found


def _joined(run: str) -> list[str]:
    parts = _PARTS.split(run)
    whole = run if "." in run else "".join(parts)
    wholes = [whole[:LONGEST_TERM]] if 1 < len(parts) <= _MOST_PARTS else []
    return [*(part[:LONGEST_TERM] for part in parts), *wholes]
