"""Corpora and builds that take a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from colour import ColourEncoder, paint_folder


@pytest.fixture
def encoder() -> ColourEncoder:
    """A real encoder without weights."""
    return ColourEncoder()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 pictures in subfolders by colour, with two captions each."""
    return paint_folder(tmp_path / "photos")
