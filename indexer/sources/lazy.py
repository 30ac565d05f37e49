"""Bytes of a picture that are read only when its turn comes: out of an archive, or from the web."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..errors import ContentError

__all__ = ["ContentError", "LazyBytes"]


class LazyBytes(ABC):
    """Where the bytes of a picture can be had, any number of times and from any thread."""

    __slots__ = ()

    @abstractmethod
    def read(self, max_bytes: int) -> bytes:
        """Return the whole content, without ever holding much more than `max_bytes`.

        Raises:
            ContentError: It cannot be had, or is larger.
        """

    @property
    @abstractmethod
    def identity(self) -> Any:
        """JSON values that change when the content may have changed; told without reading it."""

    @property
    def state(self) -> tuple[int, int] | None:
        """Bytes and modification time in ns, as a catalog keeps them; None where they are not known."""
        return None

    @abstractmethod
    def is_unchanged(self, file_bytes: int | None, mtime_ns: int | None) -> bool:
        """Whether content of this place, known by these figures, need not be read again."""
