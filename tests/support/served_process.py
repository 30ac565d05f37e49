"""The command `serve` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CODE = "from twinlens.commands.serve import serve; from twinlens.console import run; run(serve)"


def start(home: Path, *arguments: object, code: str = CODE, **environment: str) -> subprocess.Popen[str]:
    """Start it, or another program."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=home, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def running(
    home: Path, *arguments: object, code: str = CODE, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Run it for the length of a block, with what it says when it is ready."""
    process = start(home, *arguments, "--port", 0, "--output", "json", code=code, **environment)
    try:
        assert process.stdout is not None
        first, line = "", ""
        while line != "}\n":
            line = process.stdout.readline()
            assert line, process.communicate()
            first += line
        yield process, json.loads(first)
    finally:
        process.kill()
        process.communicate()
