"""Runs one operation on copies of an index, and ends the process at its first, second, ... named step.

Usage: crash_points.py OPERATION INDEX FOLDER. Leaves FOLDER/0, FOLDER/1, ... and prints the name of each step.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import small_index

from storage import IndexStore
from storage.files import atomic


def stage(store: IndexStore) -> None:
    staging = store.staging("abc")
    staging.write_plan({"shards": 2})
    staging.write(1, pa.table({"x": [1, 2, 3]}))


OPERATIONS = {
    "publish": lambda store: small_index.publish(store, 7),
    "rollback": lambda store: store.rollback(1),
    "vacuum": lambda store: store.vacuum(1),
    "stage": stage,
}


def run_until(operation: str, path: Path, step: int, out: int) -> None:
    """Run the operation in this process and end it at the numbered step; exit with 0 when there is no such step."""
    seen = 0

    def hook(name: str) -> None:
        nonlocal seen
        if seen == step:
            os.write(out, f"{name}\n".encode())
            os._exit(137)
        seen += 1

    atomic.hook = hook
    OPERATIONS[operation](IndexStore.open(path))


def main(operation: str, index: Path, folder: Path) -> None:
    for step in range(200):
        copy = shutil.copytree(index, folder / str(step))
        child = os.fork()  # a fork each, not a start each: the libraries are loaded once
        if child == 0:
            run_until(operation, copy, step, sys.stdout.fileno())
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            shutil.rmtree(copy)
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
