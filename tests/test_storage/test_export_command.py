"""The command `export`: what it prints, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from twinlens.commands.export import export

RUN = "from twinlens.console import run; from twinlens.commands.export import export; run(export)"


def test_results_go_to_stdout_and_progress_to_stderr(index: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(export, [str(index), "--to", str(tmp_path / "out"), "--output", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"] == {"images": 6, "texts": 6}
    assert "images: 6 of 6" in done.stderr
    quiet = CliRunner().invoke(export, [str(index), "--to", str(tmp_path / "two"), "-q"])
    assert quiet.stderr == ""
    assert quiet.stdout.startswith("exported 6 images and 6 texts (8-d float16) and 6 pairs of version 2")


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [(["--to", "{there}"], "exists already", 1), (["--to", "{there}/a/b"], "there is no folder", 1), ([], "--to", 2)],
)
def test_an_error_is_one_line(
    arguments: list[str], words: str, code: int, index: Path, tmp_path: Path, home: Path
) -> None:
    filled = [argument.format(there=tmp_path) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(index), *filled], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("target", "package"), [("milvus:x.db", "milvus"), ("qdrant:x", "qdrant"), ("out", "lance")])
def test_a_missing_package_is_named_with_its_extra(
    target: str, package: str, index: Path, tmp_path: Path, home: Path
) -> None:
    module = {"milvus": "pymilvus", "qdrant": "qdrant_client", "lance": "lance"}[package]
    # None in sys.modules makes an import fail as if the package were absent.
    code = f"import sys; sys.modules[{module!r}] = None; {RUN}"
    place = target if ":" in target else str(tmp_path / target)
    done = subprocess.run(
        [sys.executable, "-c", code, str(index), "--to", place, "--format", "lance"],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f'pip install ".[cpu,{package}]"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"index"}
