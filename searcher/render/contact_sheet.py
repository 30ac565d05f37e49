"""Contact sheet: one image of many hits.

One section a query: the query at the top, below it a grid of cards, best first, row by row.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw

from storage.files.atomic import next_step, write_whole

from ..errors import SearchError
from ..hits import Hit, Hits, about, clean, shown_score
from .fonts import length, runs, spelled
from .thumbnails import Thumbnail, hit_thumbnail, thumbnail

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
            fit = max(1, _count_fitting(word, size, width))
            yield word[:fit]
            word = word[fit:]
        yield word


def _ellipsis(line: str, size: int, width: int) -> str:
    if width_of(line + "...", size) > width:
        line = line[: _count_fitting(line, size, width - width_of("...", size))]
    return line.rstrip(" ,.;") + "..."


def _count_fitting(text: str, size: int, width: int) -> int:
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

    def paste(self, image: Image.Image, box: Box) -> None:
        """Paste an image into the middle of a box that is at least as large."""
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


MAX_HITS = 500
_MARGIN = 24 * SCALE
_GAP = 14 * SCALE
_PAD = 10 * SCALE
_PAGE_WIDTH = 1060 * SCALE
_LEAST_WIDTH = 320 * SCALE  # a page of few hits: still room for a heading
_QUERY_BOX = (150 * SCALE, 110 * SCALE)
_TITLE, _BODY, _SMALL = 19, 12, 10


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Cards of one size.

    Attributes:
        columns: Cards beside each other.
        image_height: In pixels; 0 for texts.
        lines: Lines of caption.
        id_lines: Lines of the item id, which is shown whole.
    """

    columns: int
    image_height: int
    lines: int
    id_lines: int = 1

    @property
    def width(self) -> int:
        return (_PAGE_WIDTH - 2 * _MARGIN - (self.columns - 1) * _GAP) // self.columns

    @property
    def height(self) -> int:
        text = self.lines * line_height(_BODY) + self.id_lines * line_height(_SMALL) + 2 * _PAD
        return self.image_height + text + (0 if self.image_height else line_height(_BODY) + _PAD)

    def wide(self, hits: int) -> int:
        """Pixels of a page that shows so many cards, margins included."""
        columns = min(hits, self.columns)
        return 2 * _MARGIN + columns * self.width + max(columns - 1, 0) * _GAP

    def tall(self, hits: int) -> int:
        """Pixels that so many cards take."""
        rows = -(-hits // self.columns)
        return rows * (self.height + _GAP)


# Beside the item id stands the score.
_SCORE_WIDTH = 44 * SCALE
# An id of more than some thousand characters is cut after all.
_MOST_ID_LINES = 60
_IMAGES = _Grid(columns=5, image_height=150 * SCALE, lines=2)
_TEXTS = _Grid(columns=3, image_height=0, lines=6)


# Of the sheet by the suffix of its name.
SHEET_FORMATS = {"": "PNG", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def sheet_format(path: Path) -> str:
    """Return the format that the suffix of a sheet's name asks for; raises `SearchError` where none is known."""
    kind = SHEET_FORMATS.get(path.suffix.lower())
    if kind is None:
        raise SearchError(
            f"the contact sheet {str(path)!r} cannot be written as {path.suffix!r}; end its name in "
            f"{', '.join(filter(None, SHEET_FORMATS))}"
        )
    return kind


def save_contact_sheet(path: Path, results: Sequence[Hits], root: Path | None = None) -> None:
    """Write the hits of one or more queries as an image.

    Args:
        path: The file to write; an existing one is replaced. Its suffix names the format: `.png`, `.jpg`, `.webp`; a
            name without one gets a PNG.
        results: The hits of each query.
        root: The folder that the images' `uri` are relative to. An image that cannot be shown is a grey tile that says
            why.

    Raises:
        SearchError: More than 500 hits, another suffix, or the file cannot be written.
    """
    kind = sheet_format(path)
    total = sum(len(hits) for hits in results)
    if total > MAX_HITS:
        raise SearchError(f"{total} hits do not fit on a contact sheet; ask for {MAX_HITS} or fewer in all with k (-k)")
    sheet = draw_contact_sheet(results, root)
    buffer = io.BytesIO()
    try:
        sheet.save(buffer, format=kind, **({} if kind == "PNG" else {"quality": 90}))
        write_whole(path, buffer.getvalue())
    except OSError as error:
        reason, step = error.strerror or error, next_step(error)
        raise SearchError(f"cannot write the contact sheet {str(path)!r}: {reason}; {step}") from error
    except ValueError as error:  # a side too long for the format
        raise SearchError(f"cannot write the contact sheet {str(path)!r}: {error}; end its name in .png") from error


def draw_contact_sheet(results: Sequence[Hits], root: Path | None = None) -> Image.Image:
    """Return the image that `save_contact_sheet` writes."""
    sections = [_Section(hits, root) for hits in results]
    # No wider than what stands on it; a heading may widen the page up to the full width, and is broken there.
    width = min(_PAGE_WIDTH, max([_LEAST_WIDTH, *(section.width for section in sections)]))
    for section in sections:
        section.fit(width)
    pen = Pen(width, _GAP + sum(section.height for section in sections))
    top = _MARGIN
    for section in sections:
        section.draw(pen, top)
        top += section.height
    return pen.page


class _Section:
    """One query and its hits."""

    def __init__(self, hits: Hits, root: Path | None) -> None:
        self._hits = hits
        self._root = root
        self._grid = _fitting(hits)
        self._query_image = thumbnail(hits.query.content, _QUERY_BOX) if hits.query.kind == "image" else None
        self._indent = _QUERY_BOX[0] + _GAP if self._query_image else 0
        self.fit(_PAGE_WIDTH)

    @property
    def width(self) -> int:
        """Pixels that the cards, and the heading without a break, would take."""
        lines = [width_of(line, _TITLE) for line in self._title] + [width_of(line, _BODY) for line in self._about]
        return max(self._grid.wide(len(self._hits)), 2 * _MARGIN + self._indent + max(lines))

    def fit(self, width: int) -> None:
        """Break the heading for a page so wide."""
        room = width - 2 * _MARGIN - self._indent
        self._title = wrap(self._hits.query.label, _TITLE, room, 2)
        self._about = wrap(about(self._hits), _BODY, room, 3)

    @property
    def _head(self) -> int:
        text = len(self._title) * line_height(_TITLE) + len(self._about) * line_height(_BODY)
        return max(text, _QUERY_BOX[1] if self._query_image else 0) + _GAP

    @property
    def height(self) -> int:
        return self._head + self._grid.tall(len(self._hits)) + _MARGIN

    def draw(self, pen: Pen, top: int) -> None:
        self._draw_head(pen, top)
        top += self._head
        for position, hit in enumerate(self._hits):
            row, column = divmod(position, self._grid.columns)
            left = _MARGIN + column * (self._grid.width + _GAP)
            above = top + row * (self._grid.height + _GAP)
            box = (left, above, left + self._grid.width, above + self._grid.height)
            pen.card(box)
            if self._grid.image_height:
                _draw_image(pen, hit, box, self._grid, self._root)
            else:
                _draw_text(pen, hit, box, self._grid)

    def _draw_head(self, pen: Pen, top: int) -> None:
        left = _MARGIN
        if self._query_image:
            box = (left, top, left + _QUERY_BOX[0], top + _QUERY_BOX[1])
            _draw_thumbnail(pen, self._query_image, box)
            left = box[2] + _GAP
        top = pen.lines(left, top, self._title, _TITLE)
        pen.lines(left, top, self._about, _BODY, MUTED)


def _fitting(hits: Hits) -> _Grid:
    """Cards as high as the longest caption and the longest id need."""
    grid = _IMAGES if hits.collection == "images" else _TEXTS
    lines = [len(wrap(hit.caption or "", _BODY, grid.width - 2 * _PAD, grid.lines)) for hit in hits]
    id_lines = [len(_id_lines(hit, grid.width - 2 * _PAD)) for hit in hits]
    return replace(grid, lines=max(lines, default=0), id_lines=max(id_lines, default=1))


def _id_lines(hit: Hit, width: int) -> list[str]:
    """The item id, broken into as many lines as it takes beside the score."""
    return wrap(hit.item_id, _SMALL, width - _SCORE_WIDTH, _MOST_ID_LINES) or [""]


def _draw_thumbnail(pen: Pen, thumb: Thumbnail, box: Box) -> None:
    pen.card(box, fill=WELL, edge=None)
    if thumb.image:
        pen.paste(thumb.image, box)
    else:
        pen.note(thumb.problem or "", box, _BODY)


def _draw_image(pen: Pen, hit: Hit, box: Box, grid: _Grid, root: Path | None) -> None:
    inset = SCALE
    well = (box[0] + inset, box[1] + inset, box[2] - inset, box[1] + grid.image_height)
    size = (well[2] - well[0], well[3] - well[1])
    _draw_thumbnail(pen, hit_thumbnail(hit, root, size), well)
    pen.badge(box[0] + _PAD // 2, box[1] + _PAD // 2, str(hit.rank), _SMALL)
    _draw_words(pen, hit, (box[0], well[3] + _PAD // 2, box[2], box[3]), grid)


def _draw_text(pen: Pen, hit: Hit, box: Box, grid: _Grid) -> None:
    pen.badge(box[0] + _PAD, box[1] + _PAD, str(hit.rank), _SMALL)
    _draw_words(pen, hit, (box[0], box[1] + _PAD + line_height(_BODY) + _PAD // 2, box[2], box[3]), grid)


def _draw_words(pen: Pen, hit: Hit, box: Box, grid: _Grid) -> None:
    """The caption from the top of the box, the id and the score at its foot."""
    left, right = box[0] + _PAD, box[2] - _PAD
    if hit.caption:
        pen.lines(left, box[1], wrap(hit.caption, _BODY, right - left, grid.lines), _BODY, INK)
    ids = _id_lines(hit, right - left)
    foot = box[3] - _PAD // 2 - len(ids) * line_height(_SMALL)
    pen.lines(left, foot, ids, _SMALL, MUTED)
    pen.right(right, foot, shown_score(hit.score), _SMALL, ACCENT)
