"""What `benchmarks/start.py` counts is what a program costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import start

BUSY = "import time; started = time.process_time()\nwhile time.process_time() - started < 0.3: pass"


def test_cpu_seconds_are_counted_and_waiting_is_not(tmp_path: Path) -> None:
    idle = start.cost(tmp_path, 1, ["-c", "import time; time.sleep(0.3)"]).seconds
    assert idle < 0.2
    assert start.cost(tmp_path, 1, ["-c", BUSY]).seconds == pytest.approx(0.3 + idle, abs=0.1)


def test_what_is_prepared_is_prepared_before_each_run(tmp_path: Path) -> None:
    seen: list[int] = []
    start.cost(tmp_path, 2, ["-c", "pass"], seen.append)
    assert seen == [-1, 0, 1]


def test_a_program_that_fails_ends_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"ended with 1: .*no such thing"):
        start.cost(tmp_path, 1, ["-c", "raise SystemExit('no such thing')"])


def test_the_commands_are_those_that_are_installed(tmp_path: Path) -> None:
    assert "search" in start.run(tmp_path, start.twinlens("--help"))
    assert "--portable" in start.run(tmp_path, start.build_index("--help"))
