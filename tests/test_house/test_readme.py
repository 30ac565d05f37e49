"""The README's blocks run as they stand, on real files, with the encoder that they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from twinlens.console import twinlens

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(home: Path, language: str) -> list[str]:
    return [code for name, code in BLOCK.findall((home / "README.md").read_text(encoding="utf-8")) if name == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and captions, and a picture to search with."""
    skimage = pytest.importorskip("skimage", reason="the demo's photographs ship in scikit-image")
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png"):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            image.convert("RGB").save(folder / "photos" / f"{Path(name).stem}.jpg")
        (folder / "photos" / f"{Path(name).stem}.txt").write_text(f"a photograph of {Path(name).stem}\n", "utf-8")
    (folder / "query.jpg").write_bytes((folder / "photos" / "chelsea.jpg").read_bytes())
    return folder


def run(command: list[str], folder: Path) -> str:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": programs}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_is_short(home: Path) -> None:
    assert len((home / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


def test_the_commands_of_the_readme_work_as_written(home: Path, folder: Path) -> None:
    for block in blocks(home, "bash"):
        run(["bash", "-euo", "pipefail", "-c", block], folder)
    with Image.open(folder / "hits.png") as sheet:
        assert sheet.width > 200


def test_the_python_of_the_readme_works_as_written(home: Path, folder: Path) -> None:
    for block in blocks(home, "python"):
        printed = run([sys.executable, "-c", block], folder)
        assert printed.startswith("1 ")


def test_the_two_commands_of_the_readme_are_targets(home: Path) -> None:
    for line in blocks(home, "sh")[0].splitlines():
        target = line.split()[1]
        subprocess.run(["make", "--dry-run", target], cwd=home, check=True, capture_output=True)


def test_every_command_is_named_in_the_readme_and_has_help(home: Path) -> None:
    readme = (home / "README.md").read_text(encoding="utf-8")
    for name in CliRunner().invoke(twinlens, ["--help"]).output.split("Commands:")[1].split("\n"):
        if name.strip():
            command = name.split()[0]
            assert command in readme
            assert CliRunner().invoke(twinlens, [command, "--help"]).exit_code == 0
