"""What is searched: responses in memory, or one half of a built index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder
from searcher import Searcher
from storage.spec import TARGETS, Collection, Direction

from .errors import MatcherError
from .nearest import Chunks, nearest
from .roles import Roles


class Found(NamedTuple):
    """Ids (n, k) and cosines (n, k), best first; k is smaller than asked where there is less to find."""

    ids: NDArray[Any]
    scores: NDArray[np.float64]


class Gallery(Protocol):
    """Something that answers vectors with the nearest of its items."""

    def search(self, vectors: NDArray[Any], k: int) -> Found:
        """Return the nearest items of each vector."""


class InMemory:
    """Responses as vectors; ids are their rows."""

    def __init__(self, vectors: NDArray[np.float32], chunks: Chunks | None = None) -> None:
        self.vectors = vectors
        self._chunks = chunks

    def search(self, vectors: NDArray[Any], k: int) -> Found:
        """Return the nearest rows, exactly; equal scores by lower row."""
        return Found(*nearest(vectors, self.vectors, k, self._chunks))


class InIndex:
    """The half of an index that holds what the response column would; ids are its item ids.

    The index is opened for each search and closed after it, so the current version answers.
    """

    def __init__(self, path: str | Path, roles: Roles, encoder: Encoder | None) -> None:
        self._path = Path(path)
        self._encoder = encoder
        self._direction: Direction = _direction(roles)
        self._into: Collection = TARGETS[self._direction]

    def search(self, vectors: NDArray[Any], k: int) -> Found:
        """Return the nearest item ids, as `Searcher.search_vectors` finds them."""
        with Searcher.open(self._path, verify="size") as searcher:
            self._check(searcher)
            ids, scores = searcher.search_vectors(self._into, vectors, k, direction=self._direction)
        held = int((ids[0] != None).sum()) if len(ids) else 0  # noqa: E711 (an array of objects)
        return Found(ids[:, :held], scores[:, :held].astype(np.float64))

    def _check(self, searcher: Searcher) -> None:
        made_by = searcher.manifest.encoder
        if self._encoder is None or made_by is None or made_by.fingerprint in (None, self._encoder.fingerprint):
            return
        raise MatcherError(
            f"the index {str(self._path)!r} was made by encoder {made_by.spec!r}, not by {self._encoder.spec!r}, so "
            f"their vectors cannot be compared; use Matcher.from_index({str(self._path)!r})"
        )


def _direction(roles: Roles) -> Direction:
    directions: dict[tuple[str, str], Direction] = {
        ("text", "image"): "text_to_image",
        ("image", "text"): "image_to_text",
        ("image", "image"): "image_to_image",
        ("text", "text"): "text_to_text",
    }
    return directions[roles.query_type, roles.response_type]
