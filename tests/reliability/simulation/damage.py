"""Steps that damage files of versions, or CURRENT, and those that put them back."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from damage_cases import BYTES

from .promise import expect
from .world import MANIFEST, World, stats

STRAY = "catalog.duckdb.wal"


def _removed(_world: World, path: Path) -> None:
    path.unlink()


def _linked(world: World, path: Path) -> None:
    elsewhere = world.folder / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def _piped(_world: World, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _foldered(_world: World, path: Path) -> None:
    path.unlink()
    path.mkdir()


WHOLE: tuple[Callable[[World, Path], None], ...] = (_removed, _linked, _piped, _foldered)


def damage(world: World, chance: random.Random) -> None:
    """Damage one file of a version: its bytes, all of it, or a file too many."""
    number = chance.choice(sorted(world.versions))
    known, folder = world.versions[number], world.store.version_path(number)
    name = chance.choice([*sorted(known.hashes), STRAY])
    if name in known.damaged or (name == MANIFEST and world.pointer == "damaged"):
        return
    path = folder / name
    if name == STRAY:
        path.write_bytes(b"WAL")
        known.damaged[name] = None
    else:
        data = path.read_bytes()
        if chance.random() < 0.2:
            chance.choice(WHOLE)(world, path)
        else:
            changed = bytearray(data)
            BYTES[chance.choice(sorted(BYTES))](changed, chance)
            if changed == data:
                return
            path.unlink()  # an open reader keeps the file that it has
            path.write_bytes(changed)
        known.damaged[name] = data
    known.stats = stats(folder)
    world.changed = True


def put_back(world: World, chance: random.Random) -> None:
    """Take the files of a damaged version from a backup."""
    number = chance.choice([one for one, known in world.versions.items() if known.damaged])
    known, folder = world.versions[number], world.store.version_path(number)
    for name, data in known.damaged.items():
        path = folder / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
    known.damaged.clear()
    known.stats = stats(folder)
    world.changed = True


def is_damaged(world: World) -> bool:
    """Whether there is a version to put back."""
    return any(known.damaged for known in world.versions.values())


def can_damage_current(world: World) -> bool:
    """Whether CURRENT is good, and so is every manifest: else nobody can tell which of the two is wrong."""
    manifests = any(MANIFEST in known.damaged for known in world.versions.values())
    return world.pointer == "good" and world.current is not None and not manifests


def damage_current(world: World, chance: random.Random) -> None:
    """Damage CURRENT or lose it: it is refused by whoever needs it, until a rollback or a copy."""
    path = world.path / "CURRENT"
    data = path.read_bytes()
    kind = chance.choice(("lost", "other", *sorted(BYTES)))
    if kind == "lost":
        path.unlink()
        world.current, world.pointer = None, "lost"
    else:
        changed = bytearray(data)
        if kind == "other":  # the number of another version and the checksum of this one
            others = [number for number in world.versions if number != world.current]
            changed[:8] = f"{chance.choice([*others, 77]):08d}".encode()
        else:
            BYTES[kind](changed, chance)
        if bytes(changed).rstrip(b"\n") == data.rstrip(b"\n"):
            return
        path.write_bytes(changed)
        world.pointer = "damaged"
    world.changed = True
    if chance.random() < 0.5:  # a backup
        world.check(chance)
        path.write_bytes(data)
        world.pointer, world.current = "good", int(data[:8])
        world.changed = True
        expect(world.store.current(), world.current, "CURRENT was put back")
