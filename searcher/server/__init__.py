"""An index behind HTTP: a JSON API, images by item id, metrics, and a page to look at it.

`create_app` gives the application for any ASGI server, `twinlens serve` runs it. It needs the extra `server`; importing
`searcher`, or this package alone, does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .settings import ServerSettings

if TYPE_CHECKING:
    from .app import create_app

__all__ = ["ServerSettings", "create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from .app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
