"""The end of the process: in time, whatever its threads are doing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_process import running, start

GRACE = 2.0

# An item is looked up for ever: a lock that nobody gives back.
STUCK = """
import threading, searcher.server.api.api_routes as api
lock = threading.Lock()
lock.acquire()
api.item_facts = lambda *given: lock.acquire()
from twinlens.commands.serve import serve; from twinlens.console import run; run(serve)
"""
# The index cannot be closed either.
STUCK_CLOSE = (
    "import searcher.server.live_index as live\nlive.LiveIndex.close = lambda self: lock.acquire()\n" + STUCK.strip()
)
# What `serve-ray` waits in, and a thread that is stuck after it.
STUCK_RAY = """
import threading, twinlens.commands.serve_ray as command
command._RAY_SECONDS = 0
command.until_signal(float({grace}), lambda: print("ready", flush=True))
lock = threading.Lock(); lock.acquire(); lock.acquire()
"""


@contextmanager
def stuck_server(
    home: Path, index: Path, *options: object, code: str = STUCK
) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Run a server of which one thread is stuck for ever."""
    with running(home, index, *options, code=code) as (process, said), ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(httpx.get, said["url"] + "items/images-3", timeout=30)
        until_asked(said["url"])
        yield process, said
        process.kill()
        waiting.exception()


def until_asked(url: str) -> None:
    """Wait until a request is under way."""
    end = time.monotonic() + 20
    while "twinlens_requests_under_way 1.0" not in httpx.get(url + "metrics").text:
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(process: subprocess.Popen[str], signals: Sequence[int], apart: float = 0.0) -> tuple[float, str]:
    """Send signals, and return the seconds to the end and what was written to stderr."""
    started = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(apart)
    process.wait(30)
    seconds = time.monotonic() - started
    assert process.stderr is not None
    return seconds, process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("code", [STUCK, STUCK_CLOSE])
def test_a_stuck_thread_is_left_when_the_grace_is_over(home: Path, ready_made: Path, number: int, code: str) -> None:
    options = ("--grace", GRACE, "--timeout", 0.5)
    with stuck_server(home, ready_made, *options, code=code) as (process, said):
        assert httpx.get(said["url"] + "healthz").status_code == 200
        seconds, error = ended(process, [number])
        assert process.returncode == 124
        assert GRACE / 2 < seconds < GRACE + 0.5
        (line,) = [line for line in error.splitlines() if "has not ended" in line]
        assert "twinlens-look-up_0 in " in line
        assert line.endswith("with exit code 124")


def test_a_second_signal_does_not_wait(home: Path, ready_made: Path) -> None:
    for signals in ([signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]):
        with stuck_server(home, ready_made, "--grace", 60) as (process, _):
            seconds, _ = ended(process, signals, apart=0.3)
            assert process.returncode == 124
            assert seconds < 3


def test_a_request_that_ends_within_the_grace_is_answered(home: Path, ready_made: Path) -> None:
    code = STUCK.replace("lambda *given: lock.acquire()", "lambda *given: (lock.acquire(timeout=1.5), {'late': 1})[1]")
    with running(home, ready_made, "--grace", 5, code=code) as (process, said), ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(httpx.get, said["url"] + "items/images-3", timeout=30)
        until_asked(said["url"])
        seconds, error = ended(process, [signal.SIGTERM])
        assert waiting.result().json() == {"late": 1}
        assert (process.returncode, error) == (0, "")
        assert seconds < 4


def test_waiting_for_a_signal_ends_in_time_too(home: Path) -> None:
    for signals in ([signal.SIGTERM], [signal.SIGINT, signal.SIGINT]):
        process = start(home, code=STUCK_RAY.format(grace=GRACE if len(signals) == 1 else 60))
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            seconds, _ = ended(process, signals, apart=0.2)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 124
        assert seconds < GRACE + 1.5


def test_a_thread_that_holds_python_itself_is_ended_by_the_kernel() -> None:
    code = (
        "import ctypes, signal, time\n"
        "from searcher.server.watchdog import Watchdog\n"
        "watchdog = Watchdog(0.1)\n"
        "watchdog.signalled(signal.SIGTERM)\n"
        "ctypes.PyDLL(None).sleep(20)\n"  # a call that does not let Python go
    )
    started = time.monotonic()
    process = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert process.returncode == -signal.SIGALRM
    assert time.monotonic() - started < 15
