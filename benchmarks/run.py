"""Run every benchmark, one after the other; each writes its own dated result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("bad_input", "clip_vectors", "fidelity", "flickr8k_lite", "kill_resume", "million")


def main() -> None:
    failed = [name for name in SCRIPTS if run(name)]
    if failed:
        sys.exit(f"error: these benchmarks failed: {', '.join(failed)}; their output above says why")


def run(name: str) -> int:
    return subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=False).returncode


if __name__ == "__main__":
    main()
