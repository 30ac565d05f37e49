"""A step that loses power in the middle of a publish: what the disk may hold then is the old version or the new one."""

from __future__ import annotations

import random
import shutil

import power_loss

from storage import IndexStore
from storage.errors import IndexNotFoundError

from .compare import compare
from .promise import expect
from .world import World
from .writing import next_content, write


def can_lose_power(world: World) -> bool:
    """Whether calls can be recorded, and nothing is damaged that a disk would not hold."""
    whole = not any(known.damaged for known in world.versions.values())
    return world.disk.has_shim and whole and world.pointer != "damaged"


def lose_power(world: World, chance: random.Random) -> None:
    """Publish, and open what a disk may hold that lost its power at some call of it."""
    before, lost, content = world.folder / "before", world.folder / "lost", next_content(world, chance)
    shutil.copytree(world.path, before)
    parent, old = world.current, dict(world.versions)
    with world.disk.recorded(with_data=True) as calls:
        ended = world.attempt(lambda: write(world.store, content))
    number = world.after_publishing(ended, content, parent)
    replaced = next(place for place, call in enumerate(calls) if call.other == "CURRENT")
    end = len(calls) if chance.random() < 0.5 else replaced
    after = chance.randrange(end + 1)
    disk = power_loss.Disk(before)
    for call in calls[:after]:
        disk.play(call)
    state = chance.choice(list(disk.states(chance, 5)))
    store = IndexStore.open(disk.write(state, lost))
    synced = any((call.name, call.path) == ("fsync", ".") for call in calls[replaced + 1 : after])
    allowed = {parent} if after <= replaced else {number} if synced else {parent, number}
    what = f"what is current after call {after} of {len(calls)}, kept {sorted(state.kept)}, torn {state.torn}"
    expect(store.current() in allowed, True, f"{what}: {store.current()}, one of {allowed}")
    try:
        with store.open_version() as version:
            known = content if version.number == number else old[version.number].content
            compare(version, known)
    except IndexNotFoundError:
        expect(store.current(), None, what)
    shutil.rmtree(before)
    shutil.rmtree(lost)
