"""Small published indexes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_index import publish

from storage import IndexStore
from storage.files import atomic


@pytest.fixture(scope="session")
def published_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with two versions, of 5 and 6 rows; the second is current. To be copied, not changed."""
    store = IndexStore.create(tmp_path_factory.mktemp("published") / "index")
    publish(store, 5)
    publish(store, 6)
    return store.path


@pytest.fixture
def index(published_once: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(published_once, tmp_path / "index"))


@pytest.fixture
def store(index: Path) -> IndexStore:
    """The same, opened."""
    return IndexStore.open(index)


@pytest.fixture
def no_hook() -> Iterator[None]:
    """Takes away the hook that a test has set."""
    yield
    atomic.hook = None
