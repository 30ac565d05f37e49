"""The parts of the sweep in which builds are killed, refused by the disk, or lose power; cases go to two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from power_runs import Losses, Scene, lose_power, scene
from resume_runs import Resumed, kill_and_resume, two_builders
from shim import Call
from trial import Judged, Trial, every_fault, faulted, killed
from upkeep_runs import COMMANDS, disturbed, every_disturbance, prepared
from warm import Job, Warm, copied

Figures = dict[str, Any]
Case = TypeVar("Case")
Result = TypeVar("Result")

KEPT = Path(__file__).parent / "corpus" / "crashes"
STEPS = Path(__file__).parents[1] / "support" / "crash_points.py"
WORKERS = 2


@contextmanager
def trials(folder: Path, *, first: bool = False) -> Iterator[list[Trial]]:
    """Two equal trials, each with a warm process of its own."""
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack, ThreadPoolExecutor(WORKERS) as pool:
        warm = [stack.enter_context(Warm()) for _ in range(WORKERS)]
        places = [folder / f"trial-{number}" for number in range(WORKERS)]
        yield list(pool.map(lambda one, place: Trial.prepare(one, place, first=first), warm, places))


def spread(
    ready: Sequence[Trial], cases: Sequence[Case], run: Callable[[Trial, Case], Result]
) -> list[tuple[Case, Result]]:
    """Run all cases, every second one in each trial."""

    def share(number: int) -> list[tuple[Case, Result]]:
        return [(case, run(ready[number], case)) for case in cases[number :: len(ready)]]

    with ThreadPoolExecutor(len(ready)) as pool:
        return [result for results in pool.map(share, range(len(ready))) for result in results]


def kills(action: str, *, first: bool = False, every: int = 1) -> Callable[[Path], Figures]:
    """A build killed before or after every so many of its calls; on an index with a version, or where nothing is."""

    def part(scratch: Path) -> Figures:
        with trials(scratch, first=first) as ready:
            calls = ready[0].calls
            found = spread(ready, range(0, len(calls), every), lambda trial, number: killed(trial, number, action))
            broken = [(number, wrong) for number, wrong in found if wrong]
            for number, wrong in broken:
                keep(calls, number, action, wrong)
            return {"calls of the build": len(calls), "kills": len(found), "broken promises": len(broken)}

    return part


def faults(number: int, parts: int) -> Callable[[Path], Figures]:
    """Every call of a build with everything that it may fail with, one part of them."""

    def part(scratch: Path) -> Figures:
        with trials(scratch) as ready:
            cases = every_fault(ready[0])[number::parts]
            found = spread(ready, cases, lambda trial, case: faulted(trial, *case))
            broken = [(case, judged) for case, judged in found if judged.wrong]
            for (call, fault), judged in broken:
                keep(ready[0].calls, call, fault, judged.wrong)
            return {**_outcomes([judged for _, judged in found]), "broken promises": len(broken)}

    return part


def _outcomes(judged: Sequence[Judged]) -> Figures:
    told = Counter(one.outcome for one in judged)
    return {"faults": len(judged), "refused in one line": told["refused"], "harmless": told["harmless"]}


def power_loss(what: str) -> Callable[[Path], Figures]:
    """What a disk may hold at any moment of a build, of a first build, or of a rollback and a vacuum."""

    def part(scratch: Path) -> Figures:
        with trials(scratch, first=what == "first build") as ready:
            found = spread(ready, range(WORKERS), lambda trial, half: losses(trial, what, half))
        states = sum(lost.states for _, lost in found)
        wrong = [line for _, lost in found for line in lost.wrong]
        for line in wrong[:20]:
            print("  " + line[-700:], file=sys.stderr)
        return {
            "states": states,
            "found old": sum(lost.found["old"] for _, lost in found),
            "found new": sum(lost.found["new"] for _, lost in found),
            "built on": sum(lost.settled for _, lost in found),
            "broken promises": len(wrong),
        }

    return part


def losses(trial: Trial, what: str, first: int, every: int = WORKERS) -> Losses:
    """Record what is done to an index, and lose the power at every moment of it."""
    if what in ("build", "first build"):
        return lose_power(trial, scene(trial, recorded(trial, "build", trial.arguments)), first, every)
    lost = Losses()
    for change in upkeep(trial):
        part = lose_power(trial, change, first, every)
        lost.found += part.found
        lost.settled += part.settled
        lost.wrong += part.wrong
    return lost


def recorded(trial: Trial, do: str, arguments: tuple[str, ...]) -> list[Call]:
    """What a command does to a copy of the old index."""
    copied(trial.old, trial.index)
    return trial.warm.recorded(Job(do=do, index=trial.index, arguments=arguments), with_data=True)


def upkeep(trial: Trial) -> Iterator[Scene]:
    """A rollback from the second version to the first, and a vacuum of the first."""
    start = trial.folder / "two.index"
    for do, options in (("rollback", ("--to", "1")), ("vacuum", ("--keep", "1"))):
        trial.build()
        copied(trial.index, start)
        calls = trial.warm.recorded(Job(do=do, index=trial.index, arguments=(str(trial.index), *options)), True)
        yield scene(trial, calls, "new", "old" if do == "rollback" else "new", start)


def resumed(kills_wanted: int) -> Callable[[Path], Figures]:
    """Builds killed at random moments until they get through."""

    def part(scratch: Path) -> Figures:
        with trials(scratch) as ready:
            found = spread(ready, range(WORKERS), lambda trial, n: kill_and_resume(trial, kills_wanted // WORKERS, n))
        done: list[Resumed] = [one for _, one in found]
        struck: Counter[str] = sum((one.kills for one in done), Counter())
        wrong = [line for one in done for line in one.wrong]
        for line in wrong[:20]:
            print("  " + line, file=sys.stderr)
        return {
            "kills": struck.total(),
            **{name: struck[name] for name in sorted(struck)},
            "builds that got through": sum(one.builds for one in done),
            "pictures encoded again a kill": round(sum(one.again for one in done) / struck.total(), 2),
            "broken promises": len(wrong),
        }

    return part


def rivals(scratch: Path) -> Figures:
    """Two builders of one index, started at once."""
    with trials(scratch) as ready:
        found = spread(ready, range(WORKERS), lambda trial, _: two_builders(trial, 15))
    wrong = [line for _, lines in found for line in lines]
    for line in wrong[:20]:
        print("  " + line, file=sys.stderr)
    return {"pairs of builders": 15 * WORKERS, "broken promises": len(wrong)}


def upkeep_disturbed(scratch: Path) -> Figures:
    """Rollback and vacuum, killed before every call and failing at every call; repair at every third."""
    figures: Figures = {"disturbed": 0, "broken promises": 0}
    with trials(scratch) as ready:
        for do in COMMANDS:
            both = [prepared(trial, do) for trial in ready]
            cases = every_disturbance(both[0])[:: 3 if do == "verify" else 1]  # a repair is a build without encoding
            at = dict(zip(map(id, ready), both, strict=True))
            found = spread(ready, cases, lambda trial, case, at=at: disturbed(at[id(trial)], *case))  # type: ignore[misc]
            for case, wrong in found:
                if wrong:
                    print(f"  broken promise: {do} {case} {both[0].calls[case[0]]}: {wrong}"[:1500], file=sys.stderr)
            figures |= {f"calls of {do}": len(both[0].calls), "disturbed": figures["disturbed"] + len(found)}
            figures["broken promises"] += sum(bool(wrong) for _, wrong in found)
    return figures


def named_steps(scratch: Path) -> Figures:
    """The named steps of publishing, rolling back, vacuuming and staging, the process ending at each."""
    sys.path.insert(0, str(STEPS.parent))
    from small_index import publish, rows_found

    from storage import IndexStore

    scratch.mkdir(exist_ok=True)
    store = IndexStore.create(scratch / "index")
    publish(store, 5)
    publish(store, 6)
    figures: Figures = {"named steps": 0, "broken promises": 0}
    for operation, after in (("publish", {6, 7}), ("rollback", {5, 6}), ("vacuum", {6}), ("stage", {6})):
        (scratch / operation).mkdir()
        command = [sys.executable, str(STEPS), operation, str(store.path), str(scratch / operation)]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        figures |= {f"steps of {operation}": len(names), "named steps": figures["named steps"] + len(names)}
        for number in range(len(names)):
            left = scratch / operation / str(number)
            whole = rows_found(left) in after and publish(IndexStore.open(left), 8) and rows_found(left) == 8
            figures["broken promises"] += not whole
    return figures


def keep(calls: Sequence[Call], number: int, how: str, wrong: Sequence[str]) -> None:
    """Keep a case that broke a promise, by its call and place, which later releases number differently."""
    pattern = _pattern(calls[number].path)
    nth = sum(_same(call, calls[number].name, pattern) for call in calls[:number])
    KEPT.mkdir(parents=True, exist_ok=True)
    told = {
        "call": calls[number].name,
        "path": pattern,
        "nth": nth,
        "how": how,
        "found": [line[:400] for line in wrong],
    }
    name = "-".join((how.replace(" ", "_"), calls[number].name, pattern.replace("/", "_").replace("*", "x"), str(nth)))
    (KEPT / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(
        f"  broken promise: {how} at call {number}, {calls[number].name} {calls[number].path}: {wrong}", file=sys.stderr
    )


def kept() -> list[dict[str, Any]]:
    """Return the cases that are kept."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(KEPT.glob("*.json"))]


def replayed(trial: Trial, case: dict[str, Any]) -> Sequence[str]:
    """Return what is wrong with a kept case today; nothing where the build has no such call any more."""
    places = [n for n, call in enumerate(trial.calls) if _same(call, case["call"], case["path"])]
    if len(places) <= case["nth"]:
        return ()
    number, how = places[case["nth"]], case["how"]
    return killed(trial, number, how) if how.startswith("kill") else faulted(trial, number, how).wrong


def _pattern(path: str) -> str:
    """A path without the fingerprint of a build."""
    parts = path.split("/")
    return "/".join("*" if parts[0] == "staging" and place == 1 else part for place, part in enumerate(parts))


def _same(call: Call, name: str, pattern: str) -> bool:
    return call.name == name and fnmatch(call.path, pattern)


PARTS: dict[str, Callable[[Path], Figures]] = {
    "named-steps": named_steps,
    "calls-killed-before": kills("kill before"),
    # To the disk, after a call is before the next one, so that a part of them will do.
    "calls-killed-after": kills("kill after", every=3),
    "calls-killed-first-build": kills("kill before", first=True, every=2),
    **{f"faults-{number}": faults(number, 4) for number in range(4)},
    "power-loss-build": power_loss("build"),
    "power-loss-first-build": power_loss("first build"),
    "power-loss-upkeep": power_loss("upkeep"),
    "kill-and-resume": resumed(210),
    "two-builders": rivals,
    "upkeep": upkeep_disturbed,
}
