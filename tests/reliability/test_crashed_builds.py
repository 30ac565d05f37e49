"""A build that is killed at any call, refused by the disk, or loses power leaves the old version or the new one, whole.

A sample of what `crash_sweep.py` does to every call; the mechanism itself is tested too.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_sweep import kept, losses, recorded, replayed
from damage import flip
from power_runs import lose_power, scene
from resume_runs import kill_and_resume, slow, two_builders
from shim import Arming, missing, read_record
from trial import FAULTS, Trial, every_fault, faulted, judged, killed
from upkeep_runs import COMMANDS, disturbed, every_disturbance, prepared
from warm import PROGRAM, Job, Warm, copied

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm() as process:
        yield process


@pytest.fixture(scope="module")
def trial(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial.prepare(warm, tmp_path_factory.mktemp("crashes") / "trial")


@pytest.fixture(scope="module")
def first(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A build where there is nothing yet."""
    return Trial.prepare(warm, tmp_path_factory.mktemp("crashes") / "first", first=True)


def replacing(trial: Trial) -> int:
    """The call that replaces CURRENT."""
    return next(number for number, call in enumerate(trial.calls) if call.other == "CURRENT")


def test_a_build_makes_a_hundred_calls_of_every_kind_that_faults_are_known_for(trial: Trial) -> None:
    assert len(trial.calls) >= 100
    assert {call.name for call in trial.calls} <= set(FAULTS)
    assert Counter(call.name for call in trial.calls)["fsync"] >= 30
    assert len(every_fault(trial)) >= 300


def test_a_build_that_is_killed_leaves_the_old_version_or_the_new_one(trial: Trial) -> None:
    turn, chance = replacing(trial), random.Random(1)
    numbers = [0, turn - 1, turn, turn + 1, len(trial.calls) - 1, *chance.sample(range(len(trial.calls)), 3)]
    for number in numbers:
        assert killed(trial, number, chance.choice(("kill before", "kill after"))) == [], trial.calls[number]


def test_damage_in_what_a_build_leaves_would_be_seen(trial: Trial) -> None:
    trial.build()
    flip(trial.index / "versions" / "00000002" / "texts" / "vectors.arrow")
    ended = trial.warm.run(Job(do="look", index=trial.index))
    assert ended.code != 0
    assert "CorruptIndexError" in ended.err
    (trial.index / "CURRENT").write_bytes((trial.old / "CURRENT").read_bytes())
    assert trial.found(trial.warm.told(Job(do="look", index=trial.index))).startswith("damage: ")


def test_a_first_build_that_is_killed_leaves_nothing_or_a_version(first: Trial) -> None:
    for number in (0, 3, replacing(first), len(first.calls) - 1):
        assert killed(first, number, "kill before") == [], first.calls[number]


def test_a_call_that_fails_ends_in_one_line_or_is_harmless(trial: Trial) -> None:
    outcomes = Counter()
    for number, fault in random.Random(2).sample(every_fault(trial), 8):
        found = faulted(trial, number, fault)
        assert found.wrong == (), (trial.calls[number].name, trial.calls[number].path, fault)
        outcomes[found.outcome] += 1
    assert outcomes["refused"] >= 3


def test_a_version_that_is_published_is_no_failure_when_its_leftovers_stay(trial: Trial) -> None:
    last = len(trial.calls) - 1
    assert trial.calls[last].name == "rmdir"
    ended = trial.build(arming=Arming(action="fail", at=last, error="EIO"))
    assert ended.code == 0
    assert "the version is published, but cannot remove" in ended.out
    assert judged(trial, ended).wrong == ()


def test_a_file_that_may_not_grow_is_told_in_one_line(trial: Trial) -> None:
    for limit in (1000, 100_000):
        ended = trial.build(limit=limit)
        assert ended.code == 1
        assert "File too large" in ended.err
        assert judged(trial, ended).wrong == ()


def test_a_power_loss_leaves_the_old_version_or_the_new_one(trial: Trial, first: Trial) -> None:
    lost = losses(trial, "build", first=5, every=90)
    assert lost.wrong == []
    assert set(lost.found) == {"old", "new"}
    assert losses(first, "first build", first=7, every=90).wrong == []
    assert losses(trial, "upkeep", first=1, every=16).wrong == []


def test_a_new_index_folder_is_safe_in_its_parent_before_anything_is_in_it(first: Trial) -> None:
    """What lies above the index folder is not part of the states above."""
    copied(first.old, first.index)
    calls = first.warm.recorded(Job(do="build", index=first.folder, arguments=first.arguments))
    told = [(call.name, call.path) for call in calls]
    assert told[:2] == [("mkdir", first.index.name), ("fsync", ".")]


def test_without_syncs_a_power_loss_would_be_seen(trial: Trial) -> None:
    calls = recorded(trial, "build", trial.arguments)
    turn = next(number for number, call in enumerate(calls) if call.other == "CURRENT")
    careless = [call for call in calls[: turn + 1] if call.name != "fsync"]
    lost = lose_power(trial, scene(trial, careless), first=1400, every=12, settle_every=10**9)
    assert lost.found["broken"] > 0
    assert lost.wrong


def test_killed_builds_go_on_and_end_with_the_same_tables(trial: Trial) -> None:
    done = kill_and_resume(trial, kills=5, seed=3)
    assert done.wrong == []
    assert done.kills.total() >= 5


def test_a_build_that_is_killed_after_it_has_published_encodes_nothing_again(trial: Trial) -> None:
    """Its shards go one by one, and what is left of them says nothing of what is done."""
    slowed = slow(trial)
    for number in random.Random(6).sample(range(replacing(trial) + 1, len(trial.calls)), 3):
        assert slowed.build(arming=Arming(action="kill before", at=number)).code == -9
        ended = slowed.again()
        assert (ended.code, ended.err) == (0, ""), trial.calls[number]


def test_of_two_builders_at_once_one_is_told_of_the_other(trial: Trial) -> None:
    assert two_builders(trial, 2) == []


@pytest.mark.parametrize("do", COMMANDS)
def test_upkeep_that_is_disturbed_is_done_by_running_it_again(trial: Trial, do: str) -> None:
    upkeep = prepared(trial, do)
    for number, how in random.Random(4).sample(every_disturbance(upkeep), 2):
        assert disturbed(upkeep, number, how) == [], (upkeep.calls[number].name, upkeep.calls[number].path, how)


def test_every_case_that_once_broke_a_promise_is_replayed(trial: Trial) -> None:
    cases = kept()
    assert cases
    for case in cases:
        assert list(replayed(trial, case)) == [], case


CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,"
    "rmdir,mkdir,mkdirat,ftruncate,truncate,link,linkat,symlink,symlinkat,fallocate,sendfile,copy_file_range"
)
SAME = {
    "pwrite64": "write",
    "fdatasync": "fsync",
    "unlinkat": "unlink",
    "ftruncate": "truncate",
    "mkdirat": "mkdir",
    "renameat": "rename",
    "renameat2": "rename",
}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is absent, which the record is compared with")
def test_the_kernel_sees_the_calls_that_are_recorded(trial: Trial, tmp_path: Path) -> None:
    """A call that goes past the shim would never be killed, refused or lost."""
    index, trace, record = copied(trial.old, trial.index), tmp_path / "trace", tmp_path / "record"
    job = Job(do="build", index=index, arguments=trial.arguments, arming=Arming(record=str(record)))
    environment = {"LD_PRELOAD": str(trial.warm.folder / "fault_shim.so"), "OMP_NUM_THREADS": "1"}
    command = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={CALLS}"]
    command += [option for name, value in environment.items() for option in ("-E", f"{name}={value}")]
    told = f"[{_line(job, tmp_path)}]\n"
    done = subprocess.run(
        [*command, sys.executable, "-W", "ignore", str(PROGRAM)], input=told, capture_output=True, text=True, check=True
    )
    assert '"code": 0' in done.stdout
    seen = Counter(_traced(trace.read_text("utf-8", "replace"), str(index)))
    known = Counter((call.name.removesuffix("-truncate"), call.path) for call in read_record(record, index))
    assert known == seen
    assert known.total() > 100


def _line(job: Job, folder: Path) -> str:
    import json

    return json.dumps(job.to_json(folder / "job"))


def _traced(trace: str, folder: str) -> Iterator[tuple[str, str]]:
    """Calls of a trace that change something below a folder: name and path."""
    made: set[str] = set()
    for line in trace.splitlines():
        found = re.match(r"\d+ +(\w+)\((.*)", line)
        if not found:
            continue
        name, rest = found.groups()
        paths = re.findall(rf'[<"]({re.escape(folder)}[^>"]*)[>"]', rest)
        if name == "unlinkat":
            base, entry = re.match(r'\w+<([^>]*)>, "([^"]*)"', rest).groups()  # type: ignore[union-attr]
            paths = [
                path for path in [entry if entry.startswith("/") else f"{base}/{entry}"] if path.startswith(folder)
            ]
        if not paths:
            continue
        path = paths[0]
        if name in ("open", "openat"):
            path = paths[-1] if "O_CREAT" not in rest else paths[0]
            if "O_CREAT" not in rest or path.endswith("/LOCK"):
                continue
            name = "open"
        if name == "unlinkat" and "AT_REMOVEDIR" in rest:
            name = "rmdir"
        made.add(path)
        yield SAME.get(name, name), path.removeprefix(folder).lstrip("/") or "."
