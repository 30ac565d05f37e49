"""Opens what a disk may hold after a power loss, state after state, and says which of them break a promise."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from power_loss import State, distinct_states
from shim import Call
from trial import Trial
from warm import Job

AT_ONCE = 25  # states that are opened by one fork


@dataclass
class Losses:
    """What readers found: states by what they held, how many were built on, and what was wrong."""

    found: Counter[str] = field(default_factory=Counter)
    settled: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def states(self) -> int:
        return self.found.total()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A record to be cut short: where it starts, what happened, and from which call on which tables must be found.

    `promised` maps the number of calls that had happened to the names of what a reader may find.
    """

    start: Path
    calls: Sequence[Call]
    promised: Callable[[int], frozenset[str]]


def scene(trial: Trial, calls: Sequence[Call], old: str = "old", new: str = "new", start: Path | None = None) -> Scene:
    """A change from one version to another: either may be found from the rename of CURRENT to its folder's sync."""
    replaced = next((n for n, call in enumerate(calls) if call.other == "CURRENT"), len(calls))
    synced = next((n for n, call in enumerate(calls) if n > replaced and (call.name, call.path) == ("fsync", ".")), 0)

    def promised(done: int) -> frozenset[str]:
        if done <= replaced:
            return frozenset({old})
        return frozenset({new} if done > synced else {old, new})

    return Scene(start=start or trial.old, calls=calls, promised=promised)


def lose_power(trial: Trial, what: Scene, first: int = 0, every: int = 1, settle_every: int = 20) -> Losses:
    """Look at every so many of the distinct states, from the one with a number on; build on some of them."""
    losses, folder = Losses(), trial.folder / "losses"
    folder.mkdir()
    written: list[tuple[State, Path]] = []
    for disk, state in islice(distinct_states(what.start, what.calls), first, None, every):
        # Written at once: the disk goes on with the next state.
        written.append((state, disk.write(state, folder / str(len(written)))))
        if len(written) == AT_ONCE:
            _look(trial, what, written, losses, settle_every)
            written.clear()
    _look(trial, what, written, losses, settle_every)
    folder.rmdir()
    return losses


def _look(trial: Trial, what: Scene, written: Sequence[tuple[State, Path]], losses: Losses, settle_every: int) -> None:
    """Open all, build on some, remove all."""
    job = Job(do="look at all", index=trial.index, arguments=tuple(str(path) for _, path in written))
    for (state, path), tables in zip(written, trial.warm.told(job) if written else (), strict=True):
        names = [name for name, table in trial.tables.items() if dict(table) == tables]
        losses.found[names[0] if names else "broken"] += 1
        place = f"after call {state.after} of {len(what.calls)}, kept {sorted(state.kept)}, torn {state.torn}"
        if not what.promised(state.after) & set(names):
            losses.wrong.append(f"{place}: a reader found {names or tables}")
        elif losses.states % settle_every == 0:
            losses.settled += 1
            losses.wrong += [f"{place}: {line}" for line in _settled(trial, path)]
        shutil.rmtree(path, ignore_errors=True)


def _settled(trial: Trial, path: Path) -> list[str]:
    shutil.rmtree(trial.index, ignore_errors=True)
    path.rename(trial.index)
    return trial.unsettled(trial.settle())
