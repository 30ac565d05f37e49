"""Query pictures that people gave: their vectors and a thumbnail, under a name that a link can carry."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pictures import Picture

_KEPT = 512


@dataclass(frozen=True, kw_only=True)
class QueryPicture:
    """A picture that was searched with.

    Attributes:
        vector: (dim,), unit length.
        fingerprint: Of the encoder that made the vector.
        thumbnail: To show what was asked.
    """

    vector: NDArray[np.float32]
    fingerprint: str
    thumbnail: Picture


class QueryPictures:
    """The last 512 query pictures, in memory alone. Belongs to one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, QueryPicture] = OrderedDict()

    def keep(self, picture: QueryPicture) -> str:
        """Return a new name for a picture; nobody can guess it."""
        name = secrets.token_urlsafe(12)
        self._kept[name] = picture
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> QueryPicture | None:
        """Return a picture by its name, or None where it is no longer known."""
        return self._kept.get(name)
