"""Run every benchmark that the data at hand allow, one after the other; each writes its own dated result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from record import DATA

# `flickr30k.py` and `coco.py` need pictures that are not at hand; their own --help says which.
COMMANDS = (
    ("bad_input",),
    ("clip_vectors",),
    ("fidelity",),
    ("flickr8k", "--root", str(DATA / "flickr8k"), "--encoder", "lite", "--split", "dev"),
    ("flickr8k_lite",),
    ("match",),
    ("tutorial",),
    ("semantic_search",),
    ("metrics", "--large"),
    ("fine_tune",),
    ("fine_tune_limit",),
    ("encode",),
    ("encode", "--raced", "--only", "--name", "encode_raced"),
    ("start",),
    ("queries",),
    ("nothing_fits",),
    ("hybrid",),
    ("relevance_map",),
    ("duplicates",),
    ("audit",),
    ("photo_columns",),
    ("text_query",),
    ("kill_resume",),
    ("watch",),
    ("text_to_text",),
    ("million",),
)


def main() -> None:
    failed = [command[0] for command in COMMANDS if run(*command)]
    if failed:
        sys.exit(f"error: these benchmarks failed: {', '.join(failed)}; their output above says why")


def run(name: str, *arguments: str) -> int:
    script = Path(__file__).with_name(f"{name}.py")
    return subprocess.run([sys.executable, str(script), *arguments], check=False).returncode


if __name__ == "__main__":
    main()
