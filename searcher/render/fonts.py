"""Fonts for words in any script: the one that ships with Pillow, then the system's, then words that name a sign."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Run = tuple[Font, str]

# Pillow looks these names up where the system keeps its fonts. Wide ones first, then those of single scripts.
_SYSTEM = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "FreeSans.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "wqy-zenhei.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "DroidSansFallback.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoEmoji-Regular.ttf",
    "Symbola.ttf",
    "unifont.ttf",
    "unifont.otf",
)
_PROBE = 20
_NOBODYS = "\U0010ffff"  # no font has it, so every font draws its box
_SIMPLER = {"Pd": "-", "Pi": '"', "Pf": '"', "Zs": " "}


@lru_cache(maxsize=256)
def font(size: int, name: str | None = None) -> Font:
    """Return the font that ships with Pillow, or a system's one by its file name, `size` pixels high.

    Raises:
        OSError: The system has no font of this name.
    """
    return ImageFont.load_default(size=size) if name is None else ImageFont.truetype(name, size)


def runs(text: str, size: int) -> list[Run]:
    """Return a line of text in pieces, each with a font that has its signs: one piece where one font has them all."""
    names = _names(text)
    for name in dict.fromkeys(names):
        if all(_has(name, sign) for sign in text):
            return [(font(size, name), text)]
    pairs = groupby(zip(names, text, strict=True), key=lambda pair: pair[0])
    return [(font(size, name), "".join(sign for _, sign in part)) for name, part in pairs]


def length(text: str, size: int) -> float:
    """Return how wide a line of text is, in pixels."""
    return sum(font_.getlength(part) for font_, part in runs(text, size))


def spelled(text: str) -> str:
    """Return text with the signs that no font here has in words: `[dog face]`, `[devanagari]`, `e` for an accented e.

    A box would tell nobody anything.
    """
    described = ""
    for sign in text:
        if described.rstrip().endswith("]") and unicodedata.category(sign).startswith("M"):
            continue  # a mark on a letter that is not shown
        words = sign if _is_known(sign) else _in_words(sign)
        # A script is named once, however many of its letters and words follow each other.
        described += "" if words.startswith("[") and described.rstrip().endswith(words) else words
    return described


def _in_words(sign: str) -> str:
    simple = "".join(part for part in unicodedata.normalize("NFKD", sign) if part != sign and _is_known(part))
    kind = unicodedata.category(sign)
    if simple or kind in _SIMPLER or kind.startswith("M"):
        return simple or _SIMPLER.get(kind, "")
    name = unicodedata.name(sign, "unknown sign").lower()
    return f"[{name.split()[0] if kind.startswith('L') else name}]"


def _names(text: str) -> list[str | None]:
    """The font of each sign; spaces and marks stay with what they follow."""
    homes: list[str | None] = []
    for sign in text:
        joins = bool(homes) and (sign.isspace() or unicodedata.category(sign).startswith("M"))
        homes.append(homes[-1] if joins and _has(homes[-1], sign) else _home(sign))
        if joins and not sign.isspace() and _has(homes[-1], text[len(homes) - 2]):
            homes[-2] = homes[-1]  # a mark is drawn on its letter by one font
    return homes


def _home(sign: str) -> str | None:
    """The first font that has a sign; None is Pillow's own, also where no font has it."""
    return None if _has(None, sign) else next((name for name in _installed() if _has(name, sign)), None)


def _is_known(sign: str) -> bool:
    return _has(_home(sign), sign)


@lru_cache(maxsize=16_384)
def _has(name: str | None, sign: str) -> bool:
    mask, box = (font(_PROBE, name).getmask(one) for one in (sign, _NOBODYS))
    return sign.isspace() or mask.size != box.size or bytes(mask) != bytes(box)


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    """Return the fonts of the list that this system has; looked up only once some text needs more than Pillow's own."""
    return tuple(name for name in _SYSTEM if _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        font(_PROBE, name)
    except OSError:
        return False
    return True
