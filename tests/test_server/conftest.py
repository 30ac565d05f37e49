"""One small index of pictures with captions, and a server of it that all tests may ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs the extra server")
pytest.importorskip("uvicorn", reason="the server needs the extra server")
pytest.importorskip("httpx", reason="the server's tests ask it with httpx")

from colour import ColourEncoder
from paired_index import build_paired, captioned
from served_index import Served, colour_index, serving

from searcher import Searcher


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures and the index lie: no answer may name it."""
    folder = tmp_path_factory.mktemp("served")
    colour_index(folder, copied=True)
    return folder


@pytest.fixture(scope="session")
def index(folder: Path) -> Path:
    return folder / "photos.index"


@pytest.fixture(scope="session")
def server(index: Path) -> Iterator[Served]:
    with serving(index, encoder=ColourEncoder()) as server:
        yield server


@pytest.fixture(scope="session")
def direct(index: Path) -> Iterator[Searcher]:
    """The same index in this process."""
    with Searcher.open(index, encoder=ColourEncoder()) as searcher:
        yield searcher


@pytest.fixture(scope="session")
def ready_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of ready-made vectors: no encoder, no files."""
    images, texts, pairs = captioned(30, 2, dim=16)
    return build_paired(tmp_path_factory.mktemp("ready"), images, texts, pairs)
