"""Text on pictures: fonts, wrapping, and a pen that draws cards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from .summary import clean

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

PAGE = "#f4f5f7"
CARD = "#ffffff"
EDGE = "#dcdfe4"
WELL = "#e9ebee"
INK = "#1d2430"
MUTED = "#69727f"
ACCENT = "#2457d6"
SCALE = 2  # drawn for screens of two pixels a point, so that small text stays sharp


@lru_cache(maxsize=16)
def font(size: int) -> Font:
    """Return the font that ships with Pillow, `size` points high; it has Latin letters only."""
    return ImageFont.load_default(size=size * SCALE)


def line_height(size: int) -> int:
    """Return the distance of two lines in pixels."""
    return round(size * 1.4 * SCALE)


def wrap(text: str, size: int, width: int, lines: int) -> list[str]:
    """Break text into at most `lines` lines of `width` pixels; what is left out shows as an ellipsis."""
    wrapped: list[str] = []
    for word in _pieces(clean(text)[: 200 * lines], size, width):
        joined = f"{wrapped[-1]} {word}" if wrapped else word
        if wrapped and font(size).getlength(joined) <= width:
            wrapped[-1] = joined
        elif len(wrapped) == lines:
            return [*wrapped[:-1], _ellipsis(wrapped[-1], size, width)]
        else:
            wrapped.append(word)
    return wrapped


def _pieces(text: str, size: int, width: int) -> Iterator[str]:
    """Words, those wider than a line cut into pieces."""
    for word in text.split():
        while font(size).getlength(word) > width and len(word) > 1:
            fit = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font(size).getlength(word[:n]) <= width)
            yield word[:fit]
            word = word[fit:]
        yield word


def _ellipsis(line: str, size: int, width: int) -> str:
    while line and font(size).getlength(line + "...") > width:
        line = line[:-1]
    return line.rstrip(" ,.;") + "..."


class Pen:
    """Draws on a page that grows downwards as cards are placed."""

    def __init__(self, width: int, height: int) -> None:
        self.page = Image.new("RGB", (width, height), PAGE)
        self._draw = ImageDraw.Draw(self.page)

    def card(self, box: Box, fill: str = CARD, edge: str | None = EDGE) -> None:
        """Draw a box with round corners."""
        self._draw.rounded_rectangle(box, radius=5 * SCALE, fill=fill, outline=edge, width=SCALE // 2)

    def lines(self, left: int, top: int, lines: list[str], size: int, colour: str = INK) -> int:
        """Write lines and return where the next one would begin."""
        for line in lines:
            self._draw.text((left, top), line, font=font(size), fill=colour)
            top += line_height(size)
        return top

    def right(self, right: int, top: int, text: str, size: int, colour: str = INK) -> None:
        """Write one line that ends at `right`."""
        self._draw.text((right - font(size).getlength(text), top), text, font=font(size), fill=colour)

    def badge(self, left: int, top: int, text: str, size: int) -> None:
        """Write white on a coloured pill, as ranks are shown."""
        width = max(round(font(size).getlength(text)) + 10 * SCALE, 20 * SCALE)
        height = line_height(size) + 2 * SCALE
        self._draw.rounded_rectangle((left, top, left + width, top + height), radius=height // 2, fill=ACCENT)
        centre = (left + width / 2, top + height / 2)
        self._draw.text(centre, text, font=font(size), fill="white", anchor="mm")

    def picture(self, image: Image.Image, box: Box) -> None:
        """Paste a picture into the middle of a box that is at least as large."""
        left = box[0] + (box[2] - box[0] - image.width) // 2
        top = box[1] + (box[3] - box[1] - image.height) // 2
        self.page.paste(image, (left, top))

    def note(self, text: str, box: Box, size: int) -> None:
        """Write one line into the middle of a box."""
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        self._draw.text(centre, text, font=font(size), fill=MUTED, anchor="mm")
