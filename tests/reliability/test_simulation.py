"""A short simulation; and the simulation itself, which finds each fault that is planted in what it watches."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulate
from shim import Call, compile_shim, missing
from simulation.disk import unsynced
from simulation.expected import Content, changed, made_up
from simulation.world import World

FOLDER = Path(__file__).parent
# A seed whose first steps meet the fault, and what the broken promise says.
PLANTED = {
    "a row more is expected": (1, "rejected of version"),
    "a score is altered": (1, "scores of"),
    "a filter lets a row go": (7, "rows where"),
    "a checksum is not compared": (2, "was not refused"),
    "a version is left by a vacuum": (5, "removed"),
    "folders are not synced": (2, "versions"),
    "files are not synced": (2, ".CURRENT.new"),
}


def planted(name: str, seed: int) -> simulate.Played:
    """Play a seed with a fault of this name in what is watched."""
    import storage.catalog
    import storage.exact_search
    import storage.files.atomic
    import storage.store
    import storage.vectors
    import storage.version

    compared, pairs = storage.vectors.VectorTable.compared, storage.exact_search._pair_scores
    check, adopt = storage.version.check, World.adopt
    filtered = storage.catalog.Catalog.filter_rows

    def one_more(world: World, number: int, content: Content, parent: int | None) -> None:
        adopt(world, number, replace(content, rejected=content.rejected + 1), parent)

    def altered(table: storage.vectors.VectorTable, *given: Any) -> Any:
        if (found := compared(table, *given)) is None:  # nothing was compiled, and `_pair_scores` scores
            return None
        return found[0], found[1] * np.float32(1 + 2**-22)

    places: dict[str, tuple[Any, str, Any]] = {
        "a row more is expected": (World, "adopt", one_more),
        "a score is altered": (storage.vectors.VectorTable, "compared", altered),
        "a filter lets a row go": (storage.catalog.Catalog, "filter_rows", lambda *a, **b: filtered(*a, **b)[1:]),
        "a checksum is not compared": (
            storage.version,
            "check",
            lambda root, name, *rest: "vectors" in name or check(root, name, *rest),
        ),
        "a version is left by a vacuum": (storage.store.IndexStore, "_retire", lambda *_: None),
        "folders are not synced": (storage.files.atomic, "sync_directory", lambda _: None),
        "files are not synced": (storage.files.atomic, "write_new", lambda path, data, _: path.write_bytes(data)),
    }
    place, attribute, value = places[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, attribute, value)
        if name == "a score is altered":
            patch.setattr(storage.exact_search, "_pair_scores", lambda *given: pairs(*given) * (1 + 2**-22))
        return simulate.play(seed, range(150), reading=0.3 if "filter" in name else 0.02)


def under_shim(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process with the shim."""
    paths = [FOLDER, FOLDER.parent / "support", FOLDER.parents[1] / "benchmarks", FOLDER.parents[1]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    environment["LD_PRELOAD"] = str(compile_shim(folder))
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_planted_faults_are_found(tmp_path: Path) -> None:
    code = (
        "import json, test_simulation as t\n"
        "for name, (seed, _) in t.PLANTED.items():\n"
        "    print(json.dumps([name, t.planted(name, seed).broken]), flush=True)\n"
    )
    done = under_shim(tmp_path, code)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, broken in told if broken] == list(PLANTED), done.stderr[-3000:]
    assert [name for name, broken in told if PLANTED[name][1] not in broken] == []


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_short_simulation_breaks_no_promise() -> None:
    command = [sys.executable, str(FOLDER / "simulate.py"), "--seeds", "2", "--steps", "400"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "steps: 800\nseeds: 2\nbroken promises: 0\n" in done.stdout


def test_a_broken_promise_is_told_with_the_shortest_line_that_breaks_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(seed: int, steps: list[int], **_: object) -> simulate.Played:
        """Breaks at step 40 where 7 and 23 were taken before."""
        broken = {7, 23, 40} <= set(steps)
        return simulate.Played(seed, broken="no" if broken else None, at=40)

    monkeypatch.setattr(simulate, "play", play)
    simulate.tell(simulate.Played(5, broken="rows", at=40), range(50))
    told = capsys.readouterr().err
    assert "BROKEN seed 5, step 40: rows" in told
    assert "make simulate SEED=5 STEPS=41\n" in told
    assert "simulate.py --seed 5 --only 7,23,40\n" in told


def test_the_same_seed_takes_the_same_steps() -> None:
    first, again = simulate.play(11, range(60)), simulate.play(11, range(60))
    assert first.broken is None
    assert first.done == again.done


def test_what_is_expected_can_be_searched_by_hand() -> None:
    chance = random.Random(3)
    content = changed(chance, made_up(chance))
    half = content.halves["images"]
    ids, scores = half.ranking(half.vectors[:1].astype("float32"), 3, rows=[1, 2])
    assert sorted(ids[0][:2].tolist()) == [1, 2]
    assert (ids[0][2], scores[0][2]) == (-1, float("-inf"))
    assert scores[0][0] >= scores[0][1]


def test_what_current_names_before_it_is_synced_is_told() -> None:
    version = [
        Call("mkdir", "versions/.draft-1"),
        Call("open", "versions/.draft-1/a"),
        Call("write", "versions/.draft-1/a"),
    ]
    synced = [Call("fsync", "versions/.draft-1/a"), Call("fsync", "versions/.draft-1")]
    moved = [Call("rename", "versions/.draft-1", "versions/1"), Call("fsync", "versions")]
    current = [Call("open", ".CURRENT.new"), Call("fsync", ".CURRENT.new"), Call("rename", ".CURRENT.new", "CURRENT")]
    assert unsynced([*version, *synced, *moved, *current, Call("fsync", ".")]) == []
    assert unsynced([*version, *synced, *moved, *current]) == ["., at the end"]
    assert unsynced([*version, *synced[1:], *moved, *current, Call("fsync", ".")]) == ["versions/1/a"]
    assert unsynced([*version, *synced, *moved[:1], *current, Call("fsync", ".")]) == ["versions"]
    assert unsynced([*version, *synced, *moved, current[0], current[2], Call("fsync", ".")])[0] == ".CURRENT.new"
