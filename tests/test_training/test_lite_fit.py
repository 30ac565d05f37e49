"""The embedded encoder, fine-tuned on real photographs by the command, in an index and in figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from encoders import load_encoder
from indexer import build_index
from searcher import Searcher
from twinlens.commands.fit import fit

TRAIN, VAL = 60, 60


def run(*arguments: object) -> Result:
    return CliRunner().invoke(fit, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def table(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 photographs of Flickr8k with their captions, in two splits."""
    lines = (data / "flickr8k" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "train"][: TRAIN + VAL]
    for number, row in enumerate(rows):
        row |= {"image": str(data / "flickr8k" / row["image"]), "split": "train" if number < TRAIN else "dev"}
    path = tmp_path_factory.mktemp("table") / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def fitted(table: Path) -> tuple[Path, dict]:
    """The encoder's folder, and what the command printed."""
    out, plot = table.with_name("my-encoder"), table.with_name("fit.png")
    options = [
        "--encoder",
        "lite",
        "--split",
        "train",
        "--val-split",
        "dev",
        "--time-limit",
        600,
        "--epochs",
        8,
        "--plot",
        plot,
    ]
    result = run(table, "--image", "image", "--text", "captions", *options, "--out", out, "--output", "json", "-q")
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_sixty_photographs_already_help(fitted: tuple[Path, dict]) -> None:
    _, report = fitted
    assert report["counts"] == {
        "train_left": 60,
        "train_right": 300,
        "train_pairs": 300,
        "val_left": 60,
        "val_right": 300,
        "val_pairs": 300,
    }
    assert report["settings"]["mode"] == "upper"
    assert report["after"]["mean"] > report["before"]["mean"]
    assert report["stopped_by"] in ("finished", "early")


def test_the_plot_is_an_image(fitted: tuple[Path, dict]) -> None:
    assert fitted[0].with_name("fit.png").read_bytes().startswith(b"\x89PNG")


def test_an_index_takes_the_fine_tuned_encoder(fitted: tuple[Path, dict], data: Path, tmp_path: Path) -> None:
    photographs = tmp_path / "photos"
    photographs.mkdir()
    for path in sorted((data / "flickr8k" / "images").iterdir())[:12]:
        (photographs / path.name).symlink_to(path)
    spec = f"local-dir:{fitted[0]}"
    build_index(photographs, tmp_path / "photos.index", encoder=spec, device="cpu")
    with Searcher.open(tmp_path / "photos.index", device="cpu") as searcher:
        assert searcher.manifest.encoder.fingerprint == load_encoder(spec, device="cpu").fingerprint
        assert len(searcher.text_to_image("a girl in a pink dress", k=3)) == 3


def test_a_fine_tuned_lite_can_be_fine_tuned_again(fitted: tuple[Path, dict], table: Path, tmp_path: Path) -> None:
    options = ["--encoder", f"local-dir:{fitted[0]}", "--epochs", 1, "--out", tmp_path / "again", "--output", "json"]
    result = run(table, *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["settings"]["mode"] == "upper"
    assert report["before"]["mean"] > 0.3


def test_progress_goes_to_stderr_and_text_says_what_came_out(table: Path, tmp_path: Path) -> None:
    result = run(table, "--split", "dev", "--epochs", 1, "--out", tmp_path / "encoder")
    assert result.exit_code == 0, result.output
    assert "features of" in result.stderr
    assert "loss" in result.stderr
    assert "after   validation R@1/5: image to text" in result.stdout
    assert result.stdout.rstrip().endswith(f"encoder local-dir:{tmp_path / 'encoder'}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "photo"], "captions.jsonl has no column 'photo'. Its columns: 'image'"),
        (["--split", "test"], "captions.jsonl has no rows of split 'test'; its splits: "),
        (["--encoder", "litte"], "there is no encoder 'litte'; did you mean lite?"),
        (["--epochs", "0"], "epochs is 0; give 1 or more"),
        (["--out", "."], "output folder '.' is not empty; give a new one"),
        (["--plot", "nowhere/fit.png"], "there is no folder 'nowhere'; make it first"),
        (["--plot", "fit.xyz"], "cannot draw to 'fit.xyz'; name a file that ends in .png"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str, table: Path, tmp_path: Path) -> None:
    result = run(table, "--out", tmp_path / "encoder", *options)
    assert result.exit_code == 1
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "encoder").exists()


WAITING = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may start without it
from twinlens.commands import fit
from twinlens.console import run
plain = fit.line_listener()
def listen(progress):
    plain(progress)
    if "loss" in progress.text:
        time.sleep(300)  # the signal comes here, however busy the machine is
fit.line_listener = lambda: listen
run(fit.fit)
"""


def start(table: Path, out: Path) -> subprocess.Popen[str]:
    """Start the command, which waits for a signal after its first evaluation."""
    options = ["--split", "dev", "--encoder", "lite", "--epochs", "20", "--out", str(out)]
    command = [sys.executable, "-c", WAITING, str(table), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"the run ended before it said {word!r}")


def test_a_killed_command_leaves_a_checkpoint_and_ctrl_c_an_encoder(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder"
    killed = start(table, out)
    wait_for(killed, "loss")
    state = tmp_path / "encoder.fit" / "state.json"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:  # it is written beside the steps
        time.sleep(0.05)
    killed.kill()
    killed.communicate(timeout=60)
    assert not out.exists()
    step = json.loads(state.read_text("utf-8"))["step"]
    interrupted = start(table, out)
    wait_for(interrupted, "loss")
    interrupted.send_signal(signal.SIGINT)
    stdout = interrupted.communicate(timeout=180)[0]
    assert interrupted.returncode == 130
    assert "stopped by: interrupted" in stdout
    report = json.loads((out / "training.json").read_text("utf-8"))
    assert report["curve"][0]["step"] == step
    assert load_encoder(f"local-dir:{out}", device="cpu").dim == 384
    assert not (tmp_path / "encoder.fit").exists()
