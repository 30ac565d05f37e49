"""What works in an installation of the core alone, where no package that encodes or trains can be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ABSENT = ("torch", "torchvision", "open_clip", "timm", "transformers", "huggingface_hub", "safetensors", "tokenizers")

BLOCK = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""

SERVE = """
from served_index import serving
with serving(Path("it.index")) as served:
    answer = served.post("/search", json={"vector": [0.0, 0.0, 1.0] + [0.0] * 9, "k": 1})
print(json.dumps([answer.status_code, answer.json()]))
"""


def python(home: Path, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(home), str(home / "tests" / "support")])
    return subprocess.run(
        [sys.executable, "-c", f"{BLOCK}\nimport json\nfrom pathlib import Path\n{code}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def twinlens(home: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(home, folder, f"sys.argv[1:] = {list(arguments)}\nfrom twinlens.console import main\nmain()")


@pytest.fixture(scope="module")
def folder(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index that was built from ready-made vectors without torch."""
    folder = tmp_path_factory.mktemp("core")
    np.save(folder / "images.npy", np.eye(12, dtype=np.float32))
    np.save(folder / "texts.npy", np.eye(12, dtype=np.float32))
    (folder / "pairs.csv").write_text("image_row,text_row\n" + "".join(f"{row},{row}\n" for row in range(12)))
    vectors = ("--image-embeddings", "images.npy", "--text-embeddings", "texts.npy", "--pairs", "pairs.csv")
    built = twinlens(home, folder, "build", *vectors, "--out", "it.index")
    assert built.returncode == 0, built.stderr
    return folder


def test_an_index_of_vectors_is_verified_and_described(home: Path, folder: Path) -> None:
    for command in ("verify", "info", "versions"):
        done = twinlens(home, folder, command, "it.index")
        assert done.returncode == 0, done.stderr


def test_an_index_is_searched_by_vector(home: Path, folder: Path) -> None:
    code = """
import numpy as np
from searcher import Searcher
with Searcher.open("it.index") as searcher:
    hits = searcher.text_to_image(np.eye(12, dtype=np.float32)[2], k=1)
    print(json.dumps([hit.item_id for hit in hits]))
"""
    done = python(home, folder, code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["2"]


def test_an_index_is_evaluated_against_its_own_pairs(home: Path, folder: Path) -> None:
    done = twinlens(home, folder, "evaluate", "it.index", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text_to_image"]["R@1"] == 1.0


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_an_index_is_exported(home: Path, folder: Path, form: str) -> None:
    done = twinlens(home, folder, "export", "it.index", "--to", form, "--format", form)
    assert done.returncode == 0, done.stderr
    assert any((folder / form).iterdir())


def test_an_index_is_served_and_asked_by_vector(home: Path, folder: Path) -> None:
    pytest.importorskip("fastapi", reason="serving needs the extra server")
    done = python(home, folder, SERVE)
    assert done.returncode == 0, done.stderr
    status, answer = json.loads(done.stdout)
    assert (status, answer["hits"][0]["item_id"]) == (200, "2")


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "it.index", "--text", "a dog", "--encoder", "ViT-B-32/openai"),
        ("build", "photos", "--out", "photos.index", "--encoder", "ViT-B-32/openai"),
        ("fit", "captions.csv", "--out", "tuned"),
        ("match", "captions.csv", "--image", "image", "--text", "caption", "--uncalibrated"),
        ("fit-hrem", "precomp", "--out", "hrem"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_that_encodes_names_the_extra_in_one_line(
    home: Path, folder: Path, arguments: tuple[str, ...]
) -> None:
    (folder / "photos").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "photos" / "a.png")
    (folder / "captions.csv").write_text("image,caption\nphotos/a.png,a dog\n")
    done = twinlens(home, folder, *arguments)
    assert done.returncode != 0
    *progress, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert last.endswith("""run pip install ".[cpu,encode]" in the project's folder"""), done.stderr
    assert all(line.startswith(("building ", "loading ")) for line in progress), done.stderr


def test_importing_the_packages_loads_none_of_what_encodes(home: Path, tmp_path: Path) -> None:
    names = "twinlens, storage, searcher, searcher.server, evaluation, matcher, training, indexer, encoders"
    code = f"import sys, {names}; print(sorted(set(sys.modules) & set({ABSENT})))"
    environment = {**os.environ, "PYTHONPATH": str(home)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
