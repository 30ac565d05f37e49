"""Films by the checksum of their bytes, so that the frames of one that only moved are known again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from encoders import ImageError
from encoders.formats.films import film_of, film_sha256, frame_name
from storage import Manifest

from ..corpus import Source, SourceOptions
from ..corpus.item import Item

_KEY = "films"  # of the build report in a manifest
# A manifest has one MiB at most; frames of films beyond that are decoded again when these move.
_MOST_BYTES = 256 * 1024


def films_report(source: Source, options: SourceOptions | None) -> dict[str, Any]:
    """Return what a build report says of the films: the checksum of each that gave frames, by its `uri`; some 2,000."""
    if options is None or options.frames is None:
        return {}
    films: dict[str, str] = {}
    room = _MOST_BYTES
    for item in source.items():
        frame = film_of(item.uri) if isinstance(item, Item) and isinstance(item.content, Path) else None
        if frame is not None and frame[0] not in films and (digest := _digest(item)) is not None:
            room -= len(json.dumps([frame[0], digest], ensure_ascii=False).encode("utf-8", "surrogatepass"))
            if room < 0:
                break
            films[frame[0]] = digest
    return {_KEY: films}


class KnownFilms:
    """The films of a version."""

    def __init__(self, manifest: Manifest) -> None:
        films = manifest.build.get(_KEY)
        pairs = films.items() if isinstance(films, dict) else ()
        self._by_sha256 = {str(digest): str(uri) for uri, digest in pairs}

    def frame_before(self, item: Item) -> str | None:
        """Return the id that a frame has in the version, by the bytes of its film; None where no such film is known."""
        frame = film_of(item.uri)
        uri = self._by_sha256.get(_digest(item) or "") if frame is not None and self._by_sha256 else None
        return None if frame is None or uri is None else frame_name(uri, frame[1])


def _digest(item: Any) -> str | None:
    frame = film_of(str(item.content))
    try:
        return None if frame is None else film_sha256(Path(frame[0]))
    except ImageError:
        return None  # it is rejected where it is opened
