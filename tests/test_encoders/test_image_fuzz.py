"""A sample of the hostile images; `tests/reliability/image_fuzz.py` tries 20,000."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program: a process of its own has its own peak of memory, and survives what kills another."""
    script = home / "tests" / "reliability" / "image_fuzz.py"
    command = [sys.executable, "-W", "error", str(script), *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def test_hostile_images_give_a_picture_or_an_image_error(home: Path) -> None:
    done = run(home, "1000", "3")
    result = json.loads(done.stdout)
    assert (done.returncode, result["unexpected"], result["slow"]) == (0, {}, {})
    assert result["grown"] <= result["most_allowed"]
    # The sample reaches the decoders, and not their front doors alone.
    outcomes = result["outcomes"]
    assert outcomes["decoded"] > 100
    assert outcomes["corrupt"] > 300
    assert outcomes["too_many_pixels"] > 20


def test_a_case_is_the_same_each_time(home: Path) -> None:
    assert run(home, "--case", "7", "1").stdout == run(home, "--case", "7", "1").stdout != b""


def test_the_bound_on_memory_would_see_a_bomb(home: Path) -> None:
    code = (
        "import image_fuzz as fuzz; fuzz.decode_image(fuzz.bomb(1400, 1400)); before = fuzz.peak(); "
        "fuzz.decode_image(fuzz.bomb(8000, 8000)); raise SystemExit(fuzz.peak() - before <= fuzz.MAX_GROWTH)"
    )
    folder = home / "tests" / "reliability"
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0
