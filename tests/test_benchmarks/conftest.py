"""Tiny copies of the published data sets, in every layout in which they are handed on."""

from __future__ import annotations

from pathlib import Path

import pytest
from colour import ColourEncoder
from tiny_sets import Tiny, read_tiny


@pytest.fixture
def encoder() -> ColourEncoder:
    """A real encoder without weights."""
    return ColourEncoder()


@pytest.fixture(scope="session")
def tiny(data: Path) -> Tiny:
    """Sixteen real photographs of Flickr8k with their captions: twelve to test, two each to train and to choose."""
    return read_tiny(data / "flickr8k", 16)
