"""The steps of a simulation, how often each is taken and when it can be."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import corpus, damage, power, reading, writing
from .world import World

Ready = Callable[[World], Any]


def _always(_world: World) -> bool:
    return True


def _versions(world: World) -> bool:
    return bool(world.versions)


def _readers(world: World) -> bool:
    return bool(world.readers)


@dataclass(frozen=True)
class Step:
    """One kind of step: what it does, its weight among all, and when it can be taken."""

    do: Callable[[World, random.Random], None]
    weight: float
    ready: Ready

    @property
    def name(self) -> str:
        """What it is called in figures."""
        return self.do.__name__


STEPS = (
    Step(reading.search, 900, _readers),
    Step(reading.search_rows, 900, _readers),
    Step(reading.vectors, 700, _readers),
    Step(reading.approximate, 400, _readers),
    Step(reading.search_items, 250, _readers),
    Step(reading.manifests, 60, _versions),
    Step(reading.words, 60, _readers),
    Step(reading.filtered, 40, reading.has_facts),
    Step(reading.entries, 20, _readers),
    Step(reading.copies, 8, _readers),
    Step(reading.whole, 4, _readers),
    Step(reading.open_reader, 8, _versions),
    Step(reading.close_reader, 1, _readers),
    Step(reading.ask_any, 3, _versions),
    Step(reading.verify, 1, _versions),
    Step(writing.publish, 3, _always),
    Step(writing.publish_disturbed, 4, _always),
    Step(writing.roll_back, 3, _versions),
    Step(writing.vacuum, 2, _versions),
    Step(writing.repair, 2, damage.is_damaged),
    Step(writing.stage, 3, _always),
    Step(writing.abandon, 0.3, _always),
    Step(writing.second_builder, 0.1, _always),
    Step(power.lose_power, 0.5, power.can_lose_power),
    Step(corpus.edit, 10, _always),
    Step(corpus.build, 1.5, corpus.has_images),
    Step(corpus.watch_burst, 0.1, corpus.has_images),
    Step(damage.damage, 3, _versions),
    Step(damage.put_back, 1.5, damage.is_damaged),
    Step(damage.damage_current, 1, damage.can_damage_current),
)


WRITING = frozenset(step.name for step in STEPS if step.do.__module__ != reading.__name__)


def take(world: World, chance: random.Random, reading: float = 1.0) -> str:
    """Take one step and compare what was promised; return its name. `reading` scales how often steps only read."""
    ready = [step for step in STEPS if step.ready(world)]
    (step,) = chance.choices(ready, [one.weight * (1 if one.name in WRITING else reading) for one in ready])
    world.done[step.name] += 1
    step.do(world, chance)
    world.check(chance)
    return step.name
