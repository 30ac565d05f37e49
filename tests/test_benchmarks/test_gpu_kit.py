"""The GPU kit is in step with the project: what it names is there, and a step runs from end to end without a GPU."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu.photographs import captions_of, collect, paths_of
from gpu.steps import STEPS

KIT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"
MODULES = sorted(path.stem for path in KIT.glob("*.py") if path.stem != "__init__")
PROJECT = ("encoders", "indexer", "searcher", "storage", "training")
# Besides what is imported: modules of the kit and other benchmarks, by their bare names.
BENCHMARKS = {"gpu", *(path.stem for path in KIT.parent.glob("*.py"))}


def tree(module: str) -> ast.Module:
    return ast.parse((KIT / f"{module}.py").read_text("utf-8"))


def imported(module: str) -> Iterator[tuple[str, str]]:
    """Module and name of all that a file of the kit imports of ours, also inside its functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {*PROJECT, *BENCHMARKS}:
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("module", MODULES)
def test_what_the_kit_imports_is_there(module: str) -> None:
    importlib.import_module(f"gpu.{module}")
    for name, attribute in imported(module):
        assert hasattr(importlib.import_module(name), attribute), f"{module}.py: {name} has no {attribute}"


def test_the_kit_uses_each_of_the_packages_that_run_on_a_gpu() -> None:
    packages = {name.split(".")[0] for module in MODULES for name, _ in imported(module)}
    assert packages >= {"encoders", "indexer", "searcher", "training"}


def test_what_the_kit_reads_of_an_encoder_is_there() -> None:
    """It measures below the public surface, which no import would show."""
    from encoders.open_clip_encoder import ClipEncoder

    source = ast.parse(inspect.getsource(ClipEncoder))
    names = {node.name for node in ast.walk(source) if isinstance(node, ast.FunctionDef)}
    names |= {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)}
    used = {
        node.attr
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "encoder"
    }
    assert {"_fast", "_image_features", "_run", "_text"} <= used <= names


def test_every_step_is_a_function_of_its_module() -> None:
    for name, step in STEPS.items():
        assert callable(getattr(importlib.import_module(f"gpu.{step.module}"), name))


def test_photographs_of_a_folder_of_data_are_copied_with_their_captions(tmp_path: Path) -> None:
    for folder in ("coco_cc", "flickr8k"):
        (tmp_path / folder / "images").mkdir(parents=True)
        for number in range(4):
            (tmp_path / folder / "images" / f"{folder}{number}.jpg").write_bytes(b"%d" % number)
        rows = [{"image": f"images/{folder}{n}.jpg", "captions": [f"{folder} {n}", "a dog"]} for n in range(4)]
        (tmp_path / folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    collect(tmp_path, tmp_path / "to")
    assert [path.read_bytes() for path in paths_of(tmp_path / "to")] == [b"0", b"1", b"2", b"3"] * 2
    assert captions_of(tmp_path / "to", 2) == ["coco_cc 0", "a dog", "coco_cc 1", "a dog"]
    with pytest.raises(FileNotFoundError, match="--photographs"):
        paths_of(tmp_path)


def kit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KIT / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_step_runs_without_a_gpu_and_one_that_fails_is_told(tmp_path: Path) -> None:
    """Some seconds: a process that imports torch. `fine_tuning` stops at the photographs that are not there."""
    folders = ("--out", str(tmp_path / "out"), "--work", str(tmp_path), "--photographs", str(tmp_path / "none"))
    done = kit("--device", "cpu", "--small", "--slow", "5", "--only", "fine_tuning", "machine", *folders)
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    machine = report["machine"]
    assert (machine["finished"], machine["failures"]) == (True, []), machine
    assert machine["facts"]["versions"]["torch"] != "absent"
    (result,) = (tmp_path / "out").glob("*_gpu_kit.json")
    names = [figure["name"] for figure in json.loads(result.read_text("utf-8"))["figures"]]
    assert names == [figure["name"] for figure in machine["figures"]]
    assert "matrix product 512^3, bfloat16" in names
    assert done.returncode == 1
    assert "error: 1 steps or parts failed" in done.stderr
    assert "fine_tuning / fine_tuning: FileNotFoundError: there are no photographs" in done.stdout


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU here")
def test_without_a_gpu_it_says_so_at_once(tmp_path: Path) -> None:
    done = kit("--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"))
    assert done.returncode == 1
    assert done.stderr == (
        "error: nvidia-smi sees no GPU here; run this where there is one, or rehearse it: --device cpu --small\n"
    )
    assert not list(tmp_path.iterdir())
