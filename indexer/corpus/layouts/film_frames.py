"""The films of a folder: each gives many images, `film.mp4#t=12.5`, that know their second, or is passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from encoders.errors import ImageError
from encoders.formats.films import VIDEO_SUFFIXES, FilmPlan, check_can_read_films, frame_name, plan_frames
from encoders.images import DEFAULT_LIMITS, IMAGE_SUFFIXES

from ...errors import SourceError
from ..item import Item, Rejection, is_utf8, printable

FRAME_COLUMNS = pa.schema([("time", pa.float64()), ("duration", pa.float64()), ("film", pa.string())])
"""What the catalog knows of a frame: its second, the seconds of its film, and the `uri` of that film."""
# The film that a phone takes beside a photograph, and calls like it.
_LIVE = ".mov"


class Films:
    """The films among the files of a folder.

    Attributes:
        names: Those whose frames are images, by relative path.
        notes: How many were passed over, and why.
        metadata_schema: The columns of frames; none where no frames are asked for.

    Raises:
        SourceError: Frames are asked for, and the extra `video` is not installed.
    """

    def __init__(self, root: Path, files: Sequence[str], frames: str | None) -> None:
        self._root, self._frames = root, frames
        self.metadata_schema = FRAME_COLUMNS if frames is not None else pa.schema([])
        films = [name for name in files if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES]
        live = _live_films(films, files)
        self.names = frozenset(name for name in films if name not in live) if frames is not None else frozenset()
        self.notes = tuple(_notes(films, live, frames))
        self._plans: dict[str, FilmPlan | ImageError] = {}
        if self.names:
            try:
                check_can_read_films()
            except ImageError as error:
                raise SourceError(f"--frames: {error.detail}") from error

    def items(self, name: str) -> Iterator[Item | Rejection]:
        """Yield the frames of a film, and what of it could not be read."""
        shown = printable(name)
        whole = Item(item_id=shown, collection="images", content=self._root / name, uri=shown, location=shown)
        if not is_utf8(name):
            yield whole.rejected("read", "not_utf8", f"the file name {shown!r} is not UTF-8")
            return
        plan = self._plan(name)
        if isinstance(plan, ImageError):
            yield whole.rejected("decode", plan.reason, plan.detail)
            return
        for seconds in plan.times:
            frame = frame_name(name, seconds)
            yield Item(
                item_id=frame,
                collection="images",
                content=self._root / frame,
                uri=frame,
                location=frame,
                metadata={"time": seconds, "duration": plan.duration, "film": name},
            )
        if plan.reason:
            yield whole.rejected("decode", plan.reason, plan.problem)

    def _plan(self, name: str) -> FilmPlan | ImageError:
        """Return which frames stand for a film, the same each time that the corpus is read."""
        if name not in self._plans:
            try:
                self._plans[name] = plan_frames(self._root / name, self._frames or "", DEFAULT_LIMITS.max_pixels)
            except ImageError as error:
                self._plans[name] = error
        return self._plans[name]


def _live_films(films: Sequence[str], files: Sequence[str]) -> frozenset[str]:
    """Return the films that belong to a photograph of their name."""
    photographs = {
        str(PurePosixPath(name).with_suffix(""))
        for name in files
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    }
    return frozenset(
        name
        for name in films
        if PurePosixPath(name).suffix.lower() == _LIVE and str(PurePosixPath(name).with_suffix("")) in photographs
    )


def _notes(films: Sequence[str], live: frozenset[str], frames: str | None) -> Iterator[str]:
    if live:
        yield f"passed over {len(live)} films of live photos, which their photographs stand for, first {min(live)!r}"
    rest = [name for name in films if name not in live]
    if rest and frames is None:
        kinds = Counter(PurePosixPath(name).suffix.lower() for name in rest)
        told = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(5))
        yield (
            f"passed over {len(rest)} films: {told}; --frames 2s or --frames scenes takes images from them "
            "(extra video)"
        )
