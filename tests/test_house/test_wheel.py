"""What a user installs: the packages, no tests, no benchmarks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = {"encoders", "evaluation", "indexer", "matcher", "searcher", "storage", "training", "twinlens"}


@pytest.fixture(scope="module")
def names(home: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy, so that the tree stays as it is.
    for name in [*PACKAGES, "tests", "benchmarks"]:
        shutil.copytree(home / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(home / name, folder / "tree" / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        "./tree",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return wheel.namelist()


def test_the_wheel_holds_our_packages_and_nothing_else(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_license_is_in_the_wheel(names: list[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_package_is_typed(names: list[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_every_module_and_data_file_is_in_the_wheel(names: list[str], home: Path) -> None:
    for package in PACKAGES:
        for path in (home / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(home)) in names


def test_nobody_is_told_to_install_twinlens_from_a_package_index(home: Path) -> None:
    """The name there belongs to somebody else."""
    texts = [home / "README.md", *(home / "docs").glob("*.md")]
    for folder in [*PACKAGES, "benchmarks"]:
        texts += (home / folder).rglob("*.py")
    for path in texts:
        assert not re.search(r"install[^\n]{0,40}[ '\"]twinlens(\[|`|\"|'|$)", path.read_text("utf-8"), re.MULTILINE), (
            path
        )
