"""What the routes share: the index, the engine, and what is kept between requests."""

from __future__ import annotations

from encoders import DecodeLimits

from .engine import Engine
from .live import LiveIndex
from .metrics import Metrics
from .pictures import Pictures
from .remembered import QueryPictures
from .settings import ServerSettings


class Service:
    """One server's parts.

    Attributes:
        live: The index.
        settings: The limits.
        metrics: The counters.
        engine: Answers questions.
        pictures: Thumbnails.
        remembered: Query pictures.
    """

    def __init__(self, live: LiveIndex, settings: ServerSettings) -> None:
        self.live = live
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(settings, self.metrics)
        self.pictures = Pictures(DecodeLimits())
        self.remembered = QueryPictures()
        live.tell(self.metrics)

    def hide(self, message: str) -> str:
        """Return a message without places on this machine."""
        for place in self.live.secrets:
            message = message.replace(place, "...")
        return message

    def close(self) -> None:
        """Let go of everything."""
        self.engine.close()
        self.live.close()
