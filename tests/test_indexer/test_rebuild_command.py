"""A damaged version that only its corpus can mend names the command that made it, word for word fit for a shell."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint

from indexer import BuildConfig, SourceOptions, build_index
from indexer.errors import RepairError
from indexer.rebuild_command import rebuild_command
from indexer.repair import repair_index
from storage import IndexStore
from twinlens.commands.build import build


def run(*arguments: object) -> None:
    done = CliRunner().invoke(build, [*map(str, arguments), "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def named(out: Path) -> list[str]:
    """Damage the vectors of version 1 and return the words of the command that the refusal names."""
    path = next((out / "versions" / "00000001").glob("*/vectors.arrow"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RepairError) as caught:
        repair_index(out)
    found = re.search(r"build again with `build-index (.*)`$", str(caught.value))
    assert found is not None, str(caught.value)
    return shlex.split(found[1])


def vectors(out: Path) -> dict[str, bytes]:
    with IndexStore.open(out).open_version() as version:
        return {
            name: version.vectors(name).gather(np.arange(info.rows)).tobytes()
            for name, info in version.manifest.collections.items()
        }


def test_a_table_with_options_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("open_clip", reason="the encoder `lite` is not installed")
    for number in range(4):
        paint(tmp_path / "my photos" / f"{number}.png", "red", noise=number)
    (tmp_path / "it's a table.csv").write_text(
        "file|title|sku|part\n" + "".join(f"{n}.png|a red thing {n}|s{n}|{'ab'[n // 3]}\n" for n in range(4)), "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    words = "--image file --text title --id sku --split-column part --split a --delimiter | --max-rejected 5% --seed 7"
    options = [*words.split(), "--root", "my photos", "--prompt", "a photo of {}", "--max-file-bytes", "1M"]
    run("it's a table.csv", "--out", "new index", "--encoder", "lite", "--min-ann-recall", "0.5", *options)
    before = vectors(tmp_path / "new index")
    command = named(tmp_path / "new index")
    monkeypatch.chdir(tmp_path / "my photos")
    run(*command)
    assert IndexStore.open(tmp_path / "new index").current() == 2
    assert vectors(tmp_path / "new index") == before
    assert IndexStore.open(tmp_path / "new index").manifest().build["source_options"]["image"] == "file"


def test_ready_made_vectors(tmp_path: Path) -> None:
    rows = np.eye(8, dtype=np.float32)
    for name in ("images", "texts"):
        np.save(tmp_path / f"{name}.npy", rows * 2)
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} {n}\n" for n in range(8)), "utf-8")
    (tmp_path / "pairs.csv").write_text("image_row,text_row\n0,1\n", "utf-8")
    files = [f"--image-embeddings {tmp_path}/images.npy", f"--text-embeddings {tmp_path}/texts.npy --normalize"]
    files += [f"--image-ids {tmp_path}/images.txt --pairs {tmp_path}/pairs.csv --captions {tmp_path}/texts.txt"]
    run(*" ".join(files).split(), "--out", tmp_path / "out")
    before = vectors(tmp_path / "out")
    run(*named(tmp_path / "out"))
    assert vectors(tmp_path / "out") == before
    assert IndexStore.open(tmp_path / "out").manifest().counts.pairs == 1


def test_what_came_from_python_is_called_corpus(photos: Path, tmp_path: Path) -> None:
    from indexer import open_source

    build_index(open_source(photos, SourceOptions()), tmp_path / "out", encoder=ColourEncoder())
    assert named(tmp_path / "out") == ["CORPUS", "--out", str(tmp_path / "out"), "--encoder", "colour"]


def test_every_setting_that_can_be_recorded_is_an_option_of_the_command(photos: Path, tmp_path: Path) -> None:
    report = build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    config: dict[str, object] = {
        one.name: 0.123 for one in fields(BuildConfig) if one.name not in ("encoder", "prompt", "update")
    }
    config["cache"] = "folder"
    options = {one.name: ["x"] if "tuple" in str(one.type) else "x" for one in fields(SourceOptions)}
    manifest = report.manifest
    object.__setattr__(manifest, "build", {"config": config, "source_options": options, "corpus_path": "c"})
    words = shlex.split(rebuild_command(manifest, tmp_path / "out"))
    known = {name for parameter in build.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert len([word for word in words if word.startswith("--")]) == len(config) + len(options) + 2
