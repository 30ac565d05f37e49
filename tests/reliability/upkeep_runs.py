"""Rollback, vacuum and repair, killed or failing at every call: the same command, run again, gets it done."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from damage import flip
from shim import Call
from trial import FAULTS, Trial, arming
from warm import Ended, Job, copied

KILL = "kill"
# What each is asked for, and the versions that may be current while it is under way.
COMMANDS: Mapping[str, tuple[tuple[str, ...], frozenset[int]]] = {
    "rollback": (("--to", "1"), frozenset({1, 2})),
    "vacuum": (("--keep", "1"), frozenset({2})),
    "verify": (("--repair",), frozenset({2, 3})),
}


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """One command on an index with two versions; for a repair the second has a damaged file.

    Attributes:
        trial: Where it runs.
        do: Which command.
        calls: What it does to the disk, in order.
    """

    trial: Trial
    do: str
    calls: Sequence[Call]

    @property
    def start(self) -> Path:
        """The index before; each run works on a copy."""
        return self.trial.folder / f"{self.do}.index"

    def run(self, **disturbed: object) -> Ended:
        """Run the command on the index as it is."""
        arguments = (str(self.trial.index), *COMMANDS[self.do][0])
        return self.trial.warm.run(Job(do=self.do, index=self.trial.index, arguments=arguments, **disturbed))  # type: ignore[arg-type]


def prepared(trial: Trial, do: str) -> Upkeep:
    """Build two versions, damage the second for a repair, and record what the command does."""
    trial.build()
    start = copied(trial.index, trial.folder / f"{do}.index")
    if do == "verify":
        flip(start / "versions" / "00000002" / "images" / "ann.faiss")
    copied(start, trial.index)
    job = Job(do=do, index=trial.index, arguments=(str(trial.index), *COMMANDS[do][0]))
    return Upkeep(trial=trial, do=do, calls=tuple(trial.warm.recorded(job)))


def every_disturbance(upkeep: Upkeep) -> list[tuple[int, str]]:
    """Return each call with a kill before it, and with one thing that it may fail with."""
    found = [(number, KILL) for number in range(len(upkeep.calls))]
    for number, call in enumerate(upkeep.calls):
        faults = FAULTS[call.name]
        found.append((number, faults[number % len(faults)]))
    return found


def disturbed(upkeep: Upkeep, number: int, how: str) -> list[str]:
    """Disturb the command at a call; return what is wrong with what it leaves, or with running it again."""
    copied(upkeep.start, upkeep.trial.index)
    told = arming(number, how)
    ended = upkeep.run(arming=told)
    wrong = []
    if ended.code not in ((-9,) if how == KILL else (0, 1, 3)) or "Traceback" in ended.err:
        wrong.append(f"{upkeep.do} ended with {ended.code}: {ended.err[-800:]}")
    wrong += _current(upkeep)
    again = upkeep.run()
    if again.code:
        wrong.append(f"run again it ended with {again.code}: {again.err[-800:]}")
    seen = upkeep.trial.warm.run(Job(do="verify", index=upkeep.trial.index, arguments=(str(upkeep.trial.index),)))
    if seen.code:
        wrong.append(f"after that the current version is not whole: {seen.out[-800:]}")
    return wrong


def _current(upkeep: Upkeep) -> list[str]:
    """What is wrong with the version that is current now: a repair leaves the damaged one current, or a whole one."""
    index = upkeep.trial.index
    number = int((index / "CURRENT").read_text("ascii").split()[0])
    wrong = [] if number in COMMANDS[upkeep.do][1] else [f"version {number} is current"]
    seen = upkeep.trial.warm.run(Job(do="verify", index=index, arguments=(str(index),)))
    damaged = upkeep.do == "verify" and number == 2
    if seen.code != (3 if damaged else 0):
        wrong.append(f"version {number} verifies with {seen.code}: {seen.out[-500:]}")
    return wrong
