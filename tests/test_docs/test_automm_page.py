"""The page for people who come from AutoMM: its tutorial runs, and the tests that it names exist."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
FEATURES = 60
PHOTOGRAPHS = 130


@pytest.fixture(scope="module")
def page(home: Path) -> str:
    return (home / "docs" / "automm.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs and their captions, as the tutorial expects them."""
    folder = tmp_path_factory.mktemp("automm")
    (folder / "photos").mkdir()
    lines = (data / "flickr8k" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "dev"][:PHOTOGRAPHS]
    for row in rows:
        source = data / "flickr8k" / row["image"]
        row["image"] = f"photos/{source.name}"
        (folder / row["image"]).write_bytes(source.read_bytes())
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def printed(page: str, folder: Path, home: Path) -> str:
    program = "\n".join(BLOCK.findall(page))
    (folder / "tutorial.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "tutorial.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tutorial_runs_as_written(printed: str) -> None:
    assert printed.startswith("400 training pairs; ")
    assert "the same figures: True" in printed
    assert "the same predictions: True" in printed


def test_the_tutorial_says_what_it_shows(printed: str) -> None:
    gain = re.search(r"R@1 ([\d.]+) -> ([\d.]+) (\w+)", printed)
    assert gain is not None
    assert float(gain[2]) > 0.1
    assert gain[3] in {"finished", "early", "time_limit"}
    assert "(150, 384) (150, 384) True" in printed
    assert (
        "Matcher.fit() has no keyword 'train_data', which is AutoMM's; here it is train: fit(train, val=...)" in printed
    )
    assert printed.count("photos/") == 3
    probabilities = [float(value) for value in re.findall(r"probability ([\d.]+)", printed)]
    assert len(probabilities) == 4
    assert all(0 <= value <= 1 for value in probabilities)


def test_every_feature_has_a_row(page: str) -> None:
    assert re.findall(r"^\| A(\d+) \|", page, re.MULTILINE) == [str(number) for number in range(1, FEATURES + 1)]


def test_every_row_names_a_test_that_exists(page: str, home: Path) -> None:
    known = {
        (path.name, node.name)
        for path in (home / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    for row in re.findall(r"^\| A\d+ \|.*$", page, re.MULTILINE):
        named = NAMED.findall(row)
        assert named, row
        assert set(named) <= known, row
