"""The installed programs, as a stranger runs them: real photographs, the `lite` encoder, and everything done wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROGRAMS = Path(sys.executable).parent
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "brick.png")


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program, *rest = map(str, arguments)
    return subprocess.run(
        [str(PROGRAMS / program), *rest],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def result(*arguments: str | Path) -> Any:
    done = run(*arguments, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def one_line_error(*arguments: str | Path, code: int = 1) -> str:
    done = run(*arguments)
    assert done.returncode == code, done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return errors[0]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skimage = pytest.importorskip("skimage", reason="its wheel ships photographs")
    folder = tmp_path_factory.mktemp("programs") / "photos"
    folder.mkdir()
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, folder)
        (folder / name).with_suffix(".txt").write_text(f"a photograph of {Path(name).stem}\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def index(photos: Path) -> Path:
    out = photos.parent / "photos.index"
    report = result("build-index", photos, "--out", out, "--encoder", "lite")
    assert (report["images"], report["texts"], report["pairs"], report["rejected"]) == (5, 5, 5, 0)
    return out


@pytest.mark.parametrize(
    ("query", "first"), [("a cat", "chelsea.png"), ("a cup of coffee", "coffee.png"), ("a rocket launch", "rocket.jpg")]
)
def test_words_find_the_photograph(index: Path, query: str, first: str) -> None:
    found = result("twinlens", "search", index, "--text", query, "-k", "2")
    assert [hit["rank"] for hit in found["hits"]] == [1, 2]
    assert found["hits"][0]["item_id"] == found["hits"][0]["uri"] == first
    assert -1 <= found["hits"][1]["score"] <= found["hits"][0]["score"] <= 1
    assert found["ann"]["kind"] == "flat"


def test_several_queries_give_a_list(index: Path) -> None:
    found = result("twinlens", "search", index, "--text", "a cat", "--text", "a cup of coffee", "-k", "1")
    assert [answer["hits"][0]["item_id"] for answer in found] == ["chelsea.png", "coffee.png"]


def test_a_photograph_finds_itself_and_its_words(index: Path, photos: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "hits.png"
    texts = result(
        "twinlens", "search", index, "--image", photos / "chelsea.png", "--into", "texts", "--contact-sheet", sheet
    )
    assert len(texts["hits"]) == 5
    assert sheet.stat().st_size > 1000
    images = result("twinlens", "search", index, "--image", photos / "chelsea.png", "--into", "images", "-k", "1")
    assert images["hits"][0]["score"] == pytest.approx(1.0, abs=2e-3)


def test_a_filter_leaves_what_it_says(index: Path) -> None:
    found = result("twinlens", "search", index, "--text", "a cat", "--where", "width > height and width < 500")
    assert {hit["item_id"] for hit in found["hits"]} == {"chelsea.png"}


def test_info_and_verify_tell_of_the_index(index: Path) -> None:
    info = result("twinlens", "info", index)
    assert (info["images"], info["texts"], info["rejected"]) == (5, 5, 0)
    assert info["encoder"]["spec"] == "lite"
    assert "text_to_image" in info["ann"]["images"]["operating_points"]
    assert run("twinlens", "verify", index).returncode == 0


def test_an_update_with_nothing_new_says_so(index: Path, photos: Path) -> None:
    done = run("build-index", photos, "--out", index, "--update")
    assert done.returncode == 0, done.stderr
    assert "nothing has changed, still version 1" in done.stdout


def test_a_damaged_index_is_refused_with_the_name_of_the_file(index: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.index"
    shutil.copytree(index, copy)
    vectors = copy / "versions" / "00000001" / "images" / "vectors.arrow"
    data = bytearray(vectors.read_bytes())
    data[len(data) // 2] ^= 1
    vectors.chmod(0o644)
    vectors.write_bytes(data)
    assert "images/vectors.arrow" in one_line_error("twinlens", "search", copy, "--text", "a cat", code=3)
    assert run("twinlens", "verify", copy).returncode == 3
    repaired = one_line_error("twinlens", "verify", copy, "--repair", code=3)
    assert "images/vectors.arrow cannot be repaired" in repaired


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--text", "a cat", "--where", "widht > 100"], "widht", 1),
        (["--text", "a cat", "--where", "width >"], "width >", 1),
        (["--text", "a cat", "-k", "0"], "0", 2),
        (["--text", ""], "text", 1),
        (["--image", "no-such-file.jpg"], "no-such-file.jpg", 1),
        (["--text", "a cat", "--ann-recall", "7"], "7", 2),
        (["--text", "a cat", "--version", "99"], "99", 1),
        ([], "--image", 2),
    ],
)
def test_a_wrong_search_is_one_clear_line(index: Path, arguments: list[str], words: str, code: int) -> None:
    assert words in one_line_error("twinlens", "search", index, *arguments, code=code)


def test_a_wrong_build_is_one_clear_line(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.index"
    (tmp_path / "empty").mkdir()
    table = tmp_path / "table.csv"
    table.write_text("photo,title\na.jpg,hello\n", encoding="utf-8")
    wrong: list[tuple[list[str | Path], str, int]] = [
        (["no-such-folder", "--out", out], "no-such-folder", 1),
        ([tmp_path / "empty", "--out", out, "--encoder", "lite"], "empty", 1),
        ([table, "--out", out, "--encoder", "lite", "--image", "foto"], "foto", 1),
        ([photos, "--out", out, "--encoder", "no-such-model"], "no-such-model", 1),
        ([photos, "--out", out, "--encoder", "lite", "--device", "cuda:77"], "cuda:77", 1),
        ([photos, "--out", out, "--encoder", "lite", "--max-rejected", "many"], "many", 2),
        ([photos, "--out", photos, "--encoder", "lite"], str(photos), 1),
        ([photos], "--out", 2),
        (["--out", out], "CORPUS", 2),
    ]
    for arguments, words, code in wrong:
        assert words in one_line_error("build-index", *arguments, code=code)


@pytest.mark.parametrize("spoil", ["nan", "unnormalised", "three dimensions", "pickle"])
def test_ready_made_vectors_that_are_wrong_are_refused_or_counted(tmp_path: Path, spoil: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if spoil == "nan":
        vectors[3, 3] = np.nan
    path, out = tmp_path / "images.npy", tmp_path / "out.index"
    spoiled = {"nan": vectors, "unnormalised": vectors * 3, "three dimensions": vectors[None]}
    np.save(path, spoiled.get(spoil, np.array([{"a": 1}], dtype=object)))
    if spoil == "nan":
        assert result("build-index", "--image-embeddings", path, "--out", out)["rejected"] == 1
    else:
        assert "images.npy" in one_line_error("build-index", "--image-embeddings", path, "--out", out)


def test_a_model_that_cannot_be_fetched_names_both_ways_out(photos: Path, tmp_path: Path) -> None:
    error = one_line_error(
        "build-index", photos, "--out", tmp_path / "out.index", "--encoder", "ViT-B-32/laion2b_s34b_b79k"
    )
    assert "local-dir:" in error
    assert "lite" in error


def test_a_second_builder_is_told_who_holds_the_index(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.index"
    code = "import sys, time; from storage import IndexStore; s = IndexStore.create(sys.argv[1]); c = s.lock();"
    code += "c.__enter__(); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        error = one_line_error("build-index", photos, "--out", out, "--encoder", "lite")
        holder.kill()
    assert str(holder.pid) in error
