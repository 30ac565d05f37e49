"""Imports point one way: the arrows of the layout, no cycles, no torch where none is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

MAY_IMPORT = {
    "storage": set(),
    "evaluation": set(),
    "encoders": {"storage"},
    "indexer": {"storage", "encoders", "evaluation"},
    "searcher": {"storage", "encoders", "evaluation"},
    "training": {"storage", "encoders", "evaluation"},
    # It searches and evaluates through a built index as well as in memory.
    "matcher": {"storage", "encoders", "evaluation", "training", "searcher"},
}
OURS = {*MAY_IMPORT, "benchmarks", "tests"}


def modules(home: Path) -> Iterator[tuple[str, Path]]:
    for package in MAY_IMPORT:
        for path in sorted((home / package).rglob("*.py")):
            name = ".".join(path.relative_to(home).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imported_names(name: str, path: Path) -> Iterator[str]:
    """Absolute names that a module imports anywhere, relative ones resolved."""
    base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = base[: len(base) - node.level + 1] if node.level else []
            module = ".".join([*prefix, *(node.module or "").split(".")]).strip(".")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(home: Path, package: str) -> None:
    for name, path in modules(home):
        if name.split(".")[0] == package:
            tops = {imported.split(".")[0] for imported in imported_names(name, path)} & OURS
            assert tops <= {package, *MAY_IMPORT[package]}, f"{name} imports {tops}"


def test_modules_do_not_import_each_other_in_a_circle(home: Path) -> None:
    known = dict(modules(home))
    graph = {
        name: {other for other in imported_names(name, path) if other in known and other != name}
        # A package's own __init__ imports its modules, never the other way round.
        - {name.split(".")[0]}
        for name, path in known.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(known)


def test_storage_and_searcher_do_not_import_torch(home: Path) -> None:
    code = "import sys, storage, searcher, evaluation, indexer.cli, matcher, training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=home, check=False).returncode == 0
