"""The public surface of each package is small, sorted and real."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PACKAGES = ("encoders", "evaluation", "indexer", "matcher", "searcher", "storage", "training", "twinlens")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_exports_few_sorted_names_that_exist(name: str) -> None:
    """A dozen at most; the front door, which gathers from all of them, has a few more."""
    package = importlib.import_module(name)
    assert list(package.__all__) == sorted(package.__all__)
    assert 0 < len(package.__all__) <= (15 if name == "twinlens" else 12)
    for exported in package.__all__:
        assert getattr(package, exported) is not None


def test_every_name_of_the_front_door_stands_in_the_docs(home: Path) -> None:
    pages = [home / "README.md", *(home / "docs").glob("*.md")]
    words = set(re.findall(r"\w+", " ".join(page.read_text("utf-8") for page in pages)))
    assert set(importlib.import_module("twinlens").__all__) <= words


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_has_a_docstring(name: str) -> None:
    package = importlib.import_module(name)
    for exported in package.__all__:
        value = getattr(package, exported)
        if callable(value):
            assert value.__doc__, f"{name}.{exported}"
