"""A real server on the loopback interface, and small indexes to serve."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from colour import ColourEncoder, paint_folder

from indexer import build_index
from searcher.server import ServerSettings
from searcher.server.app import create_app
from searcher.server.live_index import LiveIndex
from searcher.server.uvicorn_server import server_of


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server: its address, a client, and the index as it holds it."""

    url: str
    client: httpx.Client
    live: LiveIndex

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.client.get(path, **given)

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self.client.post(path, **given)

    def ask(self, **parameters: Any) -> dict[str, Any]:
        """Search, and return the answer; it must be one."""
        answer = self.client.get("/search", params=parameters)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def serving(index: Path, settings: ServerSettings | None = None, encoder: Any = None) -> Iterator[Served]:
    """Serve an index for the length of a block."""
    settings = settings or ServerSettings()
    live = LiveIndex(index, settings, encoder)
    server = server_of(create_app(live, settings), settings)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        while not server.started:
            time.sleep(0.01)
        limits = httpx.Limits(max_connections=200)
        with httpx.Client(base_url=url, timeout=30, limits=limits) as client:
            yield Served(url=url, client=client, live=live)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


class SlowEncoder(ColourEncoder):
    """Encodes texts when it is let: until then every text query is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.begun = threading.Event()
        self.calls = 0

    def encode_texts(self, texts: Any) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.may.wait(20)
        return super().encode_texts(texts)


def colour_index(folder: Path, count: int = 40, *, copied: bool = False) -> Path:
    """Build an index of painted pictures with captions, and return its path; again for a further version.

    With `copied` the second red one is a copy of the first.
    """
    red = paint_folder(folder / "photos", count) / "red"
    if copied:
        shutil.copyfile(red / "0000.png", red / "0008.png")
    build_index(
        folder / "photos", folder / "photos.index", encoder=ColourEncoder(), update=(folder / "photos.index").exists()
    )
    return folder / "photos.index"
