"""Text on pictures: fonts, wrapping, and a pen that draws cards."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from PIL import Image, ImageDraw

from .fonts import length, runs, spelled
from .summary import clean

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

PAGE = "#f4f5f7"
CARD = "#ffffff"
EDGE = "#dcdfe4"
WELL = "#e9ebee"
INK = "#1d2430"
MUTED = "#69727f"
ACCENT = "#2457d6"
_BASE = 0.95  # of a line's size: from its top to where its letters stand
SCALE = 2  # drawn for screens of two pixels a point, so that small text stays sharp


def line_height(size: int) -> int:
    """Return the distance of two lines in pixels."""
    return round(size * 1.4 * SCALE)


def width_of(text: str, size: int) -> int:
    """Return how many pixels a line of text takes, rounded up."""
    return int(length(text, size * SCALE)) + 1


def wrap(text: str, size: int, width: int, lines: int) -> list[str]:
    """Break text into at most `lines` lines of `width` pixels; what is left out shows as an ellipsis."""
    wrapped: list[str] = []
    for word in _pieces(spelled(clean(text[: 400 * lines])[: 200 * lines]), size, width):
        joined = f"{wrapped[-1]} {word}" if wrapped else word
        if wrapped and width_of(joined, size) <= width:
            wrapped[-1] = joined
        elif len(wrapped) == lines:
            return [*wrapped[:-1], _ellipsis(wrapped[-1], size, width)]
        else:
            wrapped.append(word)
    return wrapped


def _pieces(text: str, size: int, width: int) -> Iterator[str]:
    """Words, those wider than a line cut into pieces."""
    for word in text.split():
        while width_of(word, size) > width and len(word) > 1:
            fit = max(1, _fitting(word, size, width))
            yield word[:fit]
            word = word[fit:]
        yield word


def _ellipsis(line: str, size: int, width: int) -> str:
    if width_of(line + "...", size) > width:
        line = line[: _fitting(line, size, width - width_of("...", size))]
    return line.rstrip(" ,.;") + "..."


def _fitting(text: str, size: int, width: int) -> int:
    """How many signs of a text fit into a width."""
    return bisect_right(range(1, len(text) + 1), width, key=lambda count: width_of(text[:count], size))


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
            self._write(left, top, line, size, colour)
            top += line_height(size)
        return top

    def right(self, right: int, top: int, text: str, size: int, colour: str = INK) -> None:
        """Write one line that ends at `right`."""
        self._write(right - width_of(text, size), top, text, size, colour)

    def badge(self, left: int, top: int, text: str, size: int) -> None:
        """Write white on a coloured pill, as ranks are shown."""
        width = max(width_of(text, size) + 10 * SCALE, 20 * SCALE)
        height = line_height(size) + 2 * SCALE
        self._draw.rounded_rectangle((left, top, left + width, top + height), radius=height // 2, fill=ACCENT)
        self._centred((left + width / 2, top + height / 2), text, size, "white")

    def picture(self, image: Image.Image, box: Box) -> None:
        """Paste a picture into the middle of a box that is at least as large."""
        left = box[0] + (box[2] - box[0] - image.width) // 2
        top = box[1] + (box[3] - box[1] - image.height) // 2
        self.page.paste(image, (left, top))

    def note(self, text: str, box: Box, size: int) -> None:
        """Write one line into the middle of a box."""
        self._centred(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, size, MUTED)

    def _centred(self, centre: tuple[float, float], text: str, size: int, colour: str) -> None:
        font = runs(text, size * SCALE)[0][0]
        self._draw.text(centre, text, font=font, fill=colour, anchor="mm")

    def _write(self, left: float, top: int, text: str, size: int, colour: str) -> None:
        """Write one line, its pieces on one base line whatever their fonts."""
        base = top + round(size * _BASE * SCALE)
        for font, part in runs(text, size * SCALE):
            self._draw.text((left, base), part, font=font, fill=colour, anchor="ls")
            left += font.getlength(part)
