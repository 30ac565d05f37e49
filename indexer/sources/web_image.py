"""A picture of a corpus that is named by its URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..web.fetch import Fetcher
from .lazy import LazyBytes


@dataclass(frozen=True, slots=True)
class WebImage(LazyBytes):
    """What stands at a URL. The URL stands for the picture: an update fetches only those that it does not know."""

    url: str
    fetcher: Fetcher

    def read(self, max_bytes: int) -> bytes:
        """Fetch the picture."""
        return self.fetcher.fetch(self.url, max_bytes)

    @property
    def identity(self) -> Any:
        """The URL, and what may be reached."""
        return ["url", self.url, self.fetcher.limits.allow_private]

    def is_unchanged(self, file_bytes: int | None, mtime_ns: int | None) -> bool:
        """True, since nothing is known of a picture on the web without fetching it."""
        return True
