"""The README is short, its Python runs as it stands, and it names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from doc_pages import blocks, fill, run

from twinlens.console import twinlens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and captions, and an image to search with."""
    skimage = pytest.importorskip("skimage", reason="real photographs ship in scikit-image")
    folder = tmp_path_factory.mktemp("readme")
    fill(folder, Path(skimage.__file__).parent / "data")
    return folder


def test_the_readme_is_short(home: Path) -> None:
    assert len((home / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


def test_the_python_of_the_readme_works_as_written(home: Path, folder: Path) -> None:
    search, match = (block.code for block in blocks(home / "README.md") if block.language == "python")
    assert re.match(r"1 photos/\S+\.jpg -?0\.\d+ /\S+\.jpg \w+", run([sys.executable, "-c", search], folder))
    assert re.match(r"-?0\.\d+ 0\.\d+ (True|False)\n", run([sys.executable, "-c", match], folder))


def test_the_two_commands_of_the_readme_are_targets(home: Path) -> None:
    first = next(block for block in blocks(home / "README.md") if block.language == "sh")
    for line in first.code.splitlines():
        target = line.split()[1]
        subprocess.run(["make", "--dry-run", target], cwd=home, check=True, capture_output=True)


def test_every_command_is_named_in_the_readme_and_has_help(home: Path) -> None:
    readme = (home / "README.md").read_text(encoding="utf-8")
    for name in CliRunner().invoke(twinlens, ["--help"]).output.split("Commands:")[1].split("\n"):
        if name.strip():
            command = name.split()[0]
            assert command in readme
            assert CliRunner().invoke(twinlens, [command, "--help"]).exit_code == 0


def test_every_path_that_the_readme_names_exists(home: Path) -> None:
    readme = (home / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([^):]+)\)|`((?:docs|benchmarks)/[\w./-]+)`|^\| `(\w+/)` \|", readme, re.MULTILINE))
    paths = {path for match in named for path in match if path}
    assert len(paths) > 12
    assert {path for path in paths if not (home / path).exists()} == set()
