"""The public surface of each package is small, sorted and real."""

from __future__ import annotations

import importlib

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


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_has_a_docstring(name: str) -> None:
    package = importlib.import_module(name)
    for exported in package.__all__:
        value = getattr(package, exported)
        if callable(value):
            assert value.__doc__, f"{name}.{exported}"
