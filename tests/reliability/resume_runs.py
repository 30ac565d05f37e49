"""Builds that are killed at random moments and run again until they are done; two builders at once; signals."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from trial import PICTURES, Trial
from warm import Ended, Job, copied

# What each signal makes of a build: Ctrl-C is handled and says so, the others end it where it is.
CODES: Mapping[signal.Signals, int] = {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 130}
SECONDS_A_BATCH = 0.02
# The shard that is written behind and the one that is encoded, of two pictures each, and the batches read ahead.
MOST_AGAIN = 4
FIRST = 0.04  # no earlier: the command has not begun


@dataclass
class Resumed:
    """What kills did: builds that reached their end, kills by signal, pictures encoded again, and what was wrong."""

    builds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    again: int = 0
    wrong: list[str] = field(default_factory=list)


def slow(trial: Trial) -> Trial:
    """Return the trial with an encoder that takes its time."""
    return replace(trial, encoder=f"slow:{SECONDS_A_BATCH}")


def kill_and_resume(trial: Trial, kills: int, seed: int) -> Resumed:
    """Kill builds at random moments, each again and again until it gets through, until so many kills have struck."""
    done, chance = Resumed(), random.Random(seed)
    trial = slow(trial)
    undisturbed = trial.build().seconds
    while done.kills.total() < kills:
        _one_build(trial, done, chance, undisturbed)
    return done


def _one_build(trial: Trial, done: Resumed, chance: random.Random, undisturbed: float) -> None:
    copied(trial.old, trial.index)
    encoded = struck = 0
    while True:
        which = chance.choice(list(CODES))
        ended = trial.again(kill_after=chance.uniform(FIRST, 1.1 * undisturbed), signal=int(which))
        encoded += len(ended.err) - len(ended.err.lstrip("."))  # the slow encoder prints a dot a picture
        if ended.code == 0:
            break
        struck += 1
        done.kills[which.name] += 1
        done.wrong += _wrong_end(which, ended)
    done.builds += 1
    done.again += encoded - PICTURES - 1
    if encoded - PICTURES - 1 > MOST_AGAIN * struck:
        done.wrong.append(f"{encoded} pictures encoded, of {PICTURES + 1}, after {struck} kills")
    told = trial.warm.told(Job(do="look", index=trial.index))
    if trial.found(told) != "new" or told["leftovers"]:
        done.wrong.append(f"after {struck} kills: {trial.found(told)}, left {told['leftovers']}")


def _wrong_end(which: signal.Signals, ended: Ended) -> list[str]:
    said = ended.err.lstrip(".").strip()
    if ended.code != CODES[which]:
        return [f"{which.name} ended the build with {ended.code}: {said[-500:]}"]
    if which == signal.SIGINT and not (said.startswith("error: interrupted") and "\n" not in said):
        return [f"Ctrl-C is told by {said[-800:]!r}"]
    return []


def two_builders(trial: Trial, rounds: int) -> list[str]:
    """Start two builds of one index at once, many times; return what was wrong."""
    wrong = []
    for _ in range(rounds):
        copied(trial.old, trial.index)
        job = Job(do="build", index=trial.index, arguments=trial.arguments)
        ended = trial.warm.together(job, job)
        codes = sorted(each.code for each in ended)
        told = trial.warm.told(Job(do="look", index=trial.index))
        if codes not in ([0, 0], [0, 1]) or trial.found(told) != "new" or told["leftovers"]:
            wrong.append(f"two builders ended with {codes}, {trial.found(told)}, left {told['leftovers']}")
        wrong += [each.err for each in ended if each.code and "is being built by process" not in each.err]
    return wrong
