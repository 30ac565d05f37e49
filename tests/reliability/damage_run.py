"""Runs cases of damage in child processes and counts what became of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from damage_cases import Case

CORPUS = Path(__file__).parent / "corpus"
CHILD = Path(__file__).parent / "damage_child.py"


@dataclass
class Tally:
    """What became of the cases: outcomes for each way of opening, and the cases that broke a promise."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: list[tuple[Case, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())

    def count(self, mode: str, outcome: str | None = None) -> int:
        return sum(n for (how, told), n in self.outcomes.items() if how == mode and outcome in (None, told))

    def add(self, case: Case, told: str) -> None:
        outcome = told.split(" ", 1)[0]
        self.outcomes[case.mode, outcome] += 1
        if not keeps_promise(case, told):
            self.broken.append((case, told))


def keeps_promise(case: Case, told: str) -> bool:
    """Whether an outcome is one that is promised.

    `full`: refused by name of the file, or nothing had changed. The two others: an error of ours, or an answer.
    """
    outcome = told.split(" ", 1)[0]
    if case.mode != "full":
        return outcome in ("refused", "harmless", "different")
    if outcome == "refused":
        return case.how == "swapped" or case.file in told
    return outcome == "harmless" and case.how in ("zero_page", "move_page", "foreign", "swapped")


def run(cases: Iterable[Case], golden: Path, scratch: Path, seconds: float = float("inf")) -> Tally:
    """Run the cases in one child after another, a new one wherever one died; stop after some seconds."""
    tally, rest, deadline = Tally(), list(cases), time.monotonic() + seconds
    scratch.mkdir(parents=True, exist_ok=True)
    while rest and time.monotonic() < deadline:
        rest = rest[_one_child(rest, golden, scratch, deadline, tally) :]
    return tally


def _one_child(cases: Sequence[Case], golden: Path, scratch: Path, deadline: float, tally: Tally) -> int:
    """Feed one child until it dies, time is up or all is done; return how many cases were answered."""
    command = [sys.executable, "-W", "ignore", str(CHILD), str(golden), str(scratch)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert None not in (child.stdin, child.stdout, child.stderr)
        for number, case in enumerate(cases):
            if time.monotonic() > deadline:
                child.stdin.close()
                return number
            told = _ask(child, case)
            if told is None:
                child.wait()
                tally.add(case, f"died {child.returncode} {child.stderr.read()[-300:]}")
                return number + 1
            tally.add(case, told)
        child.stdin.close()
    return len(cases)


def _ask(child: subprocess.Popen[str], case: Case) -> str | None:
    """Return the child's answer; None when it died of the question."""
    assert None not in (child.stdin, child.stdout)
    try:
        child.stdin.write(json.dumps(case.to_json()) + "\n")
        child.stdin.flush()
    except BrokenPipeError:
        return None
    return child.stdout.readline().strip() or None


def keep(broken: Iterable[tuple[Case, str]]) -> None:
    """Write cases that broke a promise to the corpus, to be replayed by the tests for ever."""
    CORPUS.mkdir(exist_ok=True)
    for case, told in broken:
        name = f"{case.mode}-{case.index}-{case.file.replace('/', '-')}-{case.how}-{case.seed}.json"
        value = {"case": case.to_json(), "found": told[:300]}
        (CORPUS / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def corpus() -> list[Case]:
    """Return the cases that are kept."""
    return [Case(**json.loads(path.read_text("utf-8"))["case"]) for path in sorted(CORPUS.glob("*.json"))]
