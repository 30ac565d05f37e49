"""Defaults of the user's own: variables and twinlens.toml, below the command line and never against an index."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storage.errors import TwinlensError
from twinlens.console import COMMANDS, OPTIONS, CommandGroup, default_map, twinlens, user_defaults, variable


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OPTIONS:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def test_a_variable_wins_over_the_folder_and_the_folder_over_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert user_defaults() == {}
    (tmp_path / "config" / "twinlens").mkdir(parents=True)
    (tmp_path / "config" / "twinlens" / "twinlens.toml").write_text(
        'encoder = "lite"\ndevice = "cpu"\nann-recall = 0.9\n'
    )
    (tmp_path / "twinlens.toml").write_text('device = "cuda"\n')
    monkeypatch.setenv("TWINLENS_ENCODER", "ViT-B-32/openai")
    assert user_defaults() == {"encoder": "ViT-B-32/openai", "device": "cuda", "ann_recall": 0.9}
    assert default_map("build") == {"encoder": "ViT-B-32/openai", "device": "cuda"}
    assert default_map(None)["search"] == {"device": "cuda", "ann_recall": 0.9}
    assert default_map("verify") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('encodr = "lite"', r"twinlens\.toml has 'encodr', which is no option with a default; did you mean encoder"),
        ('update = "yes"', "there are encoder, device"),
        ("encoder = 3", "encoder is '3'; give a text in quotes"),
        ('ann-recall = "much"', "ann-recall is 'much'; give a number"),
        ("ann-recall = true", "give a number"),
        ("encoder = ", "cannot be read"),
        ("[search]\ndevice = 1", "has 'search', which is no option"),
    ],
)
def test_a_file_with_what_is_no_default_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "twinlens.toml").write_text(text)
    with pytest.raises(TwinlensError, match=message):
        user_defaults()


def test_each_option_with_a_default_is_one_of_its_commands() -> None:
    assert isinstance(twinlens, CommandGroup)
    for name, (_, commands) in OPTIONS.items():
        for each in commands:
            command = twinlens.get_command(twinlens.context_class(twinlens), each)
            assert command is not None
            assert name in [param.name for param in command.params], (name, each)
    assert {each for _, commands in OPTIONS.values() for each in commands} <= set(COMMANDS)


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    script = f"from twinlens.{'commands.build' if arguments[0] == 'build-index' else 'console'} import main; main()"
    command = [sys.executable, "-c", f"import sys; sys.argv = {list(arguments)!r}; {script}"]
    home = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": home, **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_a_build_takes_the_encoder_of_the_file_and_an_update_that_of_its_index(tmp_path: Path) -> None:
    rows = np.eye(12, 16, dtype=np.float32)
    np.save(tmp_path / "v.npy", rows)
    (tmp_path / "twinlens.toml").write_text('device = "tpu"\n')
    done = run("build-index", "--image-embeddings", "v.npy", "--out", "a.index", "-q", cwd=tmp_path)
    assert done.returncode == 0, done.stderr  # vectors that are there need no device
    done = run("twinlens", "search", "a.index", "a dog", cwd=tmp_path, TWINLENS_ANN_RECALL="much")
    assert done.returncode != 0
    assert "'much'" in done.stderr
    assert "TWINLENS_ANN_RECALL or twinlens.toml" in done.stderr
    (tmp_path / "twinlens.toml").write_text('encoder = "nonsense"\n')
    done = run("twinlens", "info", "a.index", "--output", "json", cwd=tmp_path)
    assert "nonsense" not in done.stdout
    assert json.loads(done.stdout)["version"] == 1
