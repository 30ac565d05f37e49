"""The identity of an encoder is remembered beside its files, and believed only while they are as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_clip import write_folder

from encoders import load_encoder, two_towers
from encoders.remembered import recall, remember, user_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written = write_folder(tmp_path / "model")
    time.sleep(0.03)  # what has only just changed is not believed
    return written


def spec_of(folder: Path) -> str:
    return f"local-dir:{folder}"


def test_what_was_loaded_is_recalled_with_its_whole_identity(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recall(spec_of(folder)) is None
    encoder = load_encoder(spec_of(folder), "cpu")
    monkeypatch.chdir(folder.parent)
    known = recall("local-dir:model")
    assert known is not None
    assert known.info == encoder.info


def test_lite_is_recalled() -> None:
    encoder = load_encoder("lite", "cpu")
    known = recall("lite")
    assert known is not None
    assert known.info == encoder.info


def test_the_second_load_hashes_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_encoder(spec_of(folder), "cpu").fingerprint
    hashed: list[object] = []
    monkeypatch.setattr(two_towers, "_add_weights", lambda *given: hashed.append(given))
    assert load_encoder(spec_of(folder), "cpu").fingerprint == first
    assert not hashed
    (folder / "README.md").write_text("a new file may change what is loaded", encoding="utf-8")
    load_encoder(spec_of(folder), "cpu")
    assert hashed


def test_other_weights_under_the_old_size_and_times_are_noticed(folder: Path, tmp_path: Path) -> None:
    first = load_encoder(spec_of(folder), "cpu").fingerprint
    weights = folder / "open_clip_model.safetensors"
    before = weights.stat()
    weights.write_bytes((write_folder(tmp_path / "other", seed=1) / weights.name).read_bytes())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert recall(spec_of(folder)) is None
    assert load_encoder(spec_of(folder), "cpu").fingerprint != first


def test_a_file_that_changed_while_it_was_loaded_is_not_remembered(folder: Path) -> None:
    info = load_encoder(spec_of(folder), "cpu").info
    (folder / "open_clip_config.json").touch()
    began = time.time_ns() - 10_000_000
    remember(info, "0" * 64, [folder / "open_clip_config.json"], began)
    assert recall(spec_of(folder)) is None


def test_other_packages_are_not_believed_to_make_the_same_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_encoder(spec_of(folder), "cpu")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    assert recall(spec_of(folder)) is None


@pytest.mark.parametrize("data", [b"", b"{}", b'{"info": null}', b"\xff"])
def test_a_damaged_record_is_none(folder: Path, data: bytes) -> None:
    load_encoder(spec_of(folder), "cpu")
    (record,) = (user_cache() / "encoders").iterdir()
    record.write_bytes(data)
    assert recall(spec_of(folder)) is None


def test_recalling_imports_no_torch(folder: Path) -> None:
    load_encoder(spec_of(folder), "cpu")
    code = (
        "import sys; from encoders.remembered import recall; "
        f"assert recall({spec_of(folder)!r}) is not None; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
