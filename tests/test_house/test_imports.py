"""Imports point one way: the arrows of the layout, no cycles, no torch where none is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
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
    "training": {"storage", "encoders", "evaluation", "indexer.corpus"},
    # It searches and evaluates through a built index as well as in memory.
    "matcher": {"storage", "encoders", "evaluation", "training", "searcher", "indexer.corpus"},
    "twinlens": {"storage", "encoders", "evaluation", "indexer", "searcher", "training", "matcher"},
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


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(home: Path, package: str) -> None:
    known = {name for name, _ in modules(home)}
    for name, path in modules(home):
        if name.split(".")[0] == package:
            ours = {
                imported
                for imported in imported_names(name, path)
                if imported in known or imported in ("benchmarks", "tests")
            }
            wrong = {imported for imported in ours if not within(imported, {package, *MAY_IMPORT[package]})}
            assert not wrong, f"{name} imports {wrong}"


def dependencies(home: Path) -> dict[str, set[str]]:
    known = dict(modules(home))
    return {
        name: {other for other in imported_names(name, path) if other in known and other != name}
        # A package's own __init__ imports its modules, never the other way round.
        - {".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)}
        for name, path in known.items()
    }


def test_modules_do_not_import_each_other_in_a_cycle(home: Path) -> None:
    graph = dependencies(home)
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


def test_folders_do_not_import_each_other_in_a_cycle(home: Path) -> None:
    """A folder is one node; the modules at the root of a package are nodes of their own."""
    known = dict(modules(home))

    def folder(name: str) -> str:
        parts = name.split(".")
        return name if len(parts) <= 2 and known[name].name != "__init__.py" else ".".join(parts[:2])

    graph: dict[str, set[str]] = {}
    for name, others in dependencies(home).items():
        if "." in name:
            graph.setdefault(folder(name), set()).update(folder(other) for other in others if "." in other)
    list(TopologicalSorter({name: others - {name} for name, others in graph.items()}).static_order())


def test_storage_and_searcher_do_not_import_torch(home: Path) -> None:
    names = "storage, searcher, evaluation, twinlens.commands.build, matcher, training"
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=home, check=False).returncode == 0


def test_storage_names_no_package_but_those_that_read_and_write_its_files(home: Path) -> None:
    """Also not lazily, inside a function: what encodes, serves or parses command lines lies above it."""
    allowed = {"storage", "numpy", "pyarrow", "duckdb", "faiss", *sys.stdlib_module_names}
    for name, path in modules(home):
        if name.split(".")[0] == "storage":
            foreign = {imported.split(".")[0] for imported in imported_names(name, path)} - allowed
            assert not foreign, f"{name} imports {foreign}"


def test_modules_found_by_their_bare_name_have_one_each(home: Path, pytestconfig: pytest.Config) -> None:
    """Tests find their support and the benchmarks by bare names: of two alike, one would hide the other."""
    folders = [home / folder for folder in pytestconfig.getini("pythonpath")]
    names = Counter(path.stem for folder in folders for path in folder.glob("*.py"))
    assert len(names) > 50
    assert [name for name, count in names.items() if count > 1] == []
