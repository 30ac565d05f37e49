"""The figures that keep the code readable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("encoders", "evaluation", "indexer", "matcher", "searcher", "storage", "training", "twinlens")


def files(home: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from (home / package).rglob("*.py")


def function_lengths(home: Path) -> dict[str, int]:
    lengths = {}
    for path in files(home):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{path.relative_to(home)}:{node.name}"] = (node.end_lineno or 0) - node.lineno + 1
    return lengths


def test_functions_are_short(home: Path) -> None:
    lengths = function_lengths(home)
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_files_are_short(home: Path) -> None:
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files(home)}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_no_machine_path_is_in_the_tree(home: Path) -> None:
    needles = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/")
    for path in [
        *files(home),
        *(home / "tests").rglob("*.py"),
        *(home / "benchmarks").rglob("*.*"),
        home / "README.md",
    ]:
        # `benchmarks/work` is where benchmarks keep their indexes; it is no part of the project.
        if path.suffix in {".py", ".md", ".json"} and "work" not in path.relative_to(home).parts:
            text = path.read_text(encoding="utf-8")
            assert not any(needle in text for needle in needles), path


def test_few_files_are_too_small_to_be_a_subject(home: Path) -> None:
    lengths = {
        str(path.relative_to(home)): len(path.read_text(encoding="utf-8").splitlines())
        for path in files(home)
        if path.name not in ("__init__.py", "errors.py")
    }
    assert len(small := {name for name, length in lengths.items() if length < 50}) <= 12, small


def test_the_formatter_lays_out_every_line(home: Path) -> None:
    mark = re.compile(r"# fmt: (skip|off)\s*$", re.MULTILINE)
    for path in [*files(home), *(home / "tests").rglob("*.py"), *(home / "benchmarks").rglob("*.py")]:
        assert mark.search(path.read_text(encoding="utf-8")) is None, path
