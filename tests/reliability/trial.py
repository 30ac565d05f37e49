"""One index that a second build is about to replace, and what the build may leave of it, however it ends."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from colour import paint, paint_folder
from shim import Arming, Call
from warm import Ended, Job, Warm, copied

PICTURES = 12
# Approximate indexes of both halves, and a shard for each two pictures, so that every kind of file is written.
SETTINGS = ("--ann", "hnsw", "--shard-cost", "2", "--batch-size", "2", "--decode-workers", "1", "-q")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A warm process, an index with one version (or none), and what the build of the next one does undisturbed.

    Attributes:
        warm: Where commands run.
        folder: Scratch of this trial alone.
        old: The index before the build; never changed, each run works on a copy.
        tables: The vectors that a reader may find, by the name `old` and `new`: file name to checksum.
        calls: What the build does to the disk, in order.
        encoder: Which encoder the build under test takes.
    """

    warm: Warm
    folder: Path
    old: Path
    tables: Mapping[str, Mapping[str, str]]
    calls: tuple[Call, ...]
    encoder: str = "colour"

    @classmethod
    def prepare(cls, warm: Warm, folder: Path, *, first: bool = False) -> Self:
        """Make the corpora and the index; with `first` there is no version yet, and no folder."""
        photos, old = paint_folder(folder / "photos", PICTURES), folder / "old.index"
        before: Mapping[str, str] = {}
        if not first:
            assert warm.run(Job(do="build", index=old, arguments=_arguments(photos, old))).code == 0
            before = warm.told(Job(do="look", index=old))["vectors"]
        paint(photos / "red" / "new.png", "red", noise=99)
        index = copied(old, folder / "run.index")
        job = Job(do="build", index=index, arguments=_arguments(photos, index))
        calls = warm.recorded(job)
        after = warm.told(Job(do="look", index=index))["vectors"]
        assert before != after
        return cls(warm=warm, folder=folder, old=old, tables={"old": before, "new": after}, calls=tuple(calls))

    @property
    def index(self) -> Path:
        """Where the run under test works."""
        return self.folder / "run.index"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the build under test."""
        return _arguments(self.folder / "photos", self.index, self.encoder)

    def build(self, **disturbed: Any) -> Ended:
        """Build on a fresh copy of the old index, disturbed as said."""
        copied(self.old, self.index)
        return self.again(**disturbed)

    def again(self, **disturbed: Any) -> Ended:
        """Build on the index as it is."""
        return self.warm.run(Job(do="build", index=self.index, arguments=self.arguments, **disturbed))

    def settle(self) -> dict[str, Any]:
        """Look at the index, build to the end, look again."""
        return self.warm.told(Job(do="settle", index=self.index, arguments=self.arguments))

    def found(self, seen: Mapping[str, Any]) -> str:
        """Return `old` or `new`, or what else a reader found."""
        if seen["problems"]:
            return f"damage: {seen['problems']}"
        names = [name for name, table in self.tables.items() if dict(table) == seen["vectors"]]
        return names[0] if names else f"other tables in version {seen['current']} of {seen['versions']}"

    def unsettled(self, told: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with an index after the build was run once more."""
        wrong = [] if told["code"] == 0 else [f"the build after it ended with {told['code']}"]
        if self.found(told["after"]) != "new":
            wrong.append(f"the build after it gave {self.found(told['after'])}")
        if told["after"]["leftovers"]:
            wrong.append(f"the build after it left {told['after']['leftovers']}")
        return wrong

    def remove(self) -> None:
        """Remove the scratch."""
        shutil.rmtree(self.folder)


def _arguments(photos: Path, index: Path, encoder: str = "colour") -> tuple[str, ...]:
    return (str(photos), "--out", str(index), "--encoder", encoder, *SETTINGS)


def killed(trial: Trial, number: int, action: str) -> list[str]:
    """Kill a build before or after a call; return what is wrong with what it leaves, nothing as a rule."""
    ended = trial.build(arming=Arming(action=action, at=number))
    if ended.code != -9:
        return [f"the build ended with {ended.code}: {ended.err[-300:]}"]
    told = trial.settle()
    found = trial.found(told["before"])
    wrong = [] if found in ("old", "new") else [f"a reader found {found}"]
    # Until CURRENT is replaced it is the old one, from then on the new one.
    replaced = next(n for n, call in enumerate(trial.calls) if call.other == "CURRENT")
    passed = number + (action == "kill after") > replaced
    if found != ("new" if passed else "old"):
        wrong.append(f"CURRENT is replaced by call {replaced}, and a reader found {found}")
    return wrong + trial.unsettled(told)


# What a call may fail with; `part` is a write that takes only half of the bytes.
SPACE = ("ENOSPC", "EDQUOT", "EIO", "EINTR")
FAULTS: Mapping[str, tuple[str, ...]] = {
    "write": (*SPACE, "part", "full from here"),
    "open": ("ENOSPC", "EDQUOT", "EIO", "EMFILE"),
    "open-truncate": ("ENOSPC", "EIO"),
    "mkdir": ("ENOSPC", "EDQUOT", "EIO"),
    "rename": ("ENOSPC", "EDQUOT", "EIO"),
    "fsync": ("ENOSPC", "EDQUOT", "EIO"),
    "truncate": ("ENOSPC", "EIO"),
    "unlink": ("EIO", "EROFS"),
    "rmdir": ("EIO", "EROFS"),
}


def arming(number: int, fault: str) -> Arming:
    """Return how the shim is armed for a fault, or for a kill before the call."""
    if fault == "kill":
        return Arming(action="kill before", at=number)
    if fault == "part":
        return Arming(action="part", at=number)
    if fault == "full from here":
        return Arming(action="fail from", at=number, error="ENOSPC")
    return Arming(action="fail", at=number, error=fault)


def every_fault(trial: Trial) -> list[tuple[int, str]]:
    """Return each call with each thing that it may fail with."""
    return [(number, fault) for number, call in enumerate(trial.calls) for fault in FAULTS[call.name]]


@dataclass(frozen=True)
class Judged:
    """How a disturbed build ended: `refused` or `harmless`, its one line, and what is wrong."""

    outcome: str
    line: str
    wrong: tuple[str, ...]


def judged(trial: Trial, ended: Ended) -> Judged:
    """Judge a build that met a fault: one clear error and exit 1, or success; old or new, whole; the next one works."""
    lines = ended.err.strip().splitlines()
    wrong = []
    if ended.code not in (0, 1) or ended.hung or "Traceback" in ended.err:
        wrong.append(f"it ended with {ended.code}: {ended.err[-1500:]}")
    elif ended.code == 1 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        wrong.append(f"not one clear line: {ended.err[-1500:]}")
    elif ended.code == 1 and str(trial.folder) not in lines[0]:
        wrong.append(f"no path is named: {ended.err[-1500:]}")
    told = trial.settle()
    found = trial.found(told["before"])
    if found not in ("old", "new"):
        wrong.append(f"a reader found {found}")
    if found != ("new" if ended.code == 0 else "old") and "is current" not in ended.err:
        wrong.append(f"exit {ended.code} and a reader found {found}: {ended.err[-500:]}")
    return Judged("harmless" if ended.code == 0 else "refused", "".join(lines[-1:]), (*wrong, *trial.unsettled(told)))


def faulted(trial: Trial, number: int, fault: str) -> Judged:
    """Let one call of a build fail and judge the end."""
    return judged(trial, trial.build(arming=arming(number, fault)))
