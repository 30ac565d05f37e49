"""Asking a running `twinlens serve` over its JSON API: `Client`, and `AsyncClient` for asyncio.

What comes back is what a search of the index here gives, `Hits`; importing this loads neither DuckDB nor FAISS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

if TYPE_CHECKING:
    from .async_client import AsyncClient
    from .client import Client

__all__ = ["AsyncClient", "Client"]

__getattr__ = lazy_exports(__name__, {"AsyncClient": ".async_client", "Client": ".client"})
