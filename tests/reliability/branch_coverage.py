"""The branches of `storage/` that its tests, the reliability tests and a simulation take, and those that none takes.

Child processes are measured too, but for those that are killed. Some minutes; the exit code is 1 below `--least`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from record import HOME, Figure, record

from storage.errors import install_hint

SIMULATION = ("tests/reliability/simulate.py", "--seeds", "6", "--steps", "1500")
RUNS = (("-m", "pytest", "tests/test_storage", "tests/golden"), ("-m", "pytest", "tests/reliability"), SIMULATION)


def measured(folder: Path, workers: int) -> dict[str, Any]:
    """Run everything and return coverage's report as JSON values."""
    environment = {**os.environ, "COVERAGE_FILE": str(folder / ".coverage"), "PYTHONPATH": str(HOME)}

    def coverage(*arguments: str) -> int:
        command = [sys.executable, "-m", "coverage", *arguments]
        return subprocess.run(command, cwd=HOME, env=environment, check=False).returncode

    for run in RUNS:
        spread = ("--numprocesses", str(workers)) if "pytest" in run else ("--workers", str(workers))
        if coverage("run", *run, *spread):
            sys.exit(f"error: {' '.join(run)} failed, so that its branches say little; run it alone and see why")
    coverage("combine", "--quiet")
    coverage("json", "--quiet", "-o", str(folder / "report.json"))
    report: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    return report


def share(report: Mapping[str, Any]) -> float:
    """The share of the branches that were taken, in percent."""
    totals = report["totals"]
    return 100.0 * totals["covered_branches"] / totals["num_branches"]


def missing(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield `file:line -> line` for each branch that was not taken; line 0 is the end of a function."""
    for name, file in sorted(report["files"].items()):
        for source, target in file["missing_branches"]:
            yield f"{name}:{source} -> {max(target, 0)}"


def main() -> None:
    """Measure, print, and keep the figures where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--least", type=float, default=95.0, help="Percent of the branches to be taken.")
    parser.add_argument("--workers", type=int, default=1, help="Processes that the tests are spread over.")
    parser.add_argument("--report", type=Path, help="Read this report of coverage in place of running anything.")
    parser.add_argument("--record", action="store_true", help="Keep the figures in benchmarks/results.")
    parser.add_argument("--notes", default="", help="Goes into the record.")
    arguments = parser.parse_args()
    if arguments.report:
        report = json.loads(arguments.report.read_text("utf-8"))
    elif importlib.util.find_spec("coverage") is None:
        sys.exit(f"error: branches are counted by the package coverage, which is absent; {install_hint('test')}")
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = measured(Path(folder), arguments.workers)
    print("\n".join(missing(report)))
    totals = report["totals"]
    figures = [
        Figure("branches of storage", totals["num_branches"]),
        Figure("branches taken", totals["covered_branches"]),
        Figure("branches taken, percent", round(share(report), 2), f">= {arguments.least}", "%"),
        Figure("lines run, percent", round(100 * totals["covered_lines"] / totals["num_statements"], 2), "", "%"),
    ]
    if arguments.record:
        record("branch_coverage", figures, arguments.notes)
    print("\n".join(f"{figure.name}: {figure.measured}" for figure in figures))
    sys.exit(share(report) < arguments.least)


if __name__ == "__main__":
    main()
